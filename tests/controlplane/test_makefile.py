"""The Makefile explains itself."""

from __future__ import annotations

import re
import subprocess

import pytest

from controlplane.environment import REPOSITORY

TARGETS = ("demo", "up", "test", "lint", "bench", "bench-flip", "bench-gateway", "bench-live", "reset", "lock")


def make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_make_alone_lists_every_target_with_one_line():
    listed = dict(re.findall(r"^  (\S+) +(\S.*)$", make(), re.MULTILINE))
    declared = re.search(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None
    assert set(listed) == set(declared[1].split())
    assert set(TARGETS) <= set(listed)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_planned(target: str):
    assert ".venv/bin/" in make("--dry-run", target)


def test_the_demo_installs_from_the_lock_file_with_hashes():
    planned = make("--dry-run", "--always-make", "demo")
    assert "--require-hashes -r requirements/embedded.txt" in planned
    assert "dev.txt" not in planned
