"""The lock files: every package has hashes, and no file says where packages come from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from controlplane.environment import REPOSITORY

FILES = sorted((REPOSITORY / "requirements").glob("*.txt"))
NAME = r"[a-z0-9]+(?:[-_.][a-z0-9]+)*"


def pinned(path: Path) -> dict[str, str]:
    """Package -> version."""
    return dict(re.findall(rf"^({NAME})==(\S+)", path.read_text(), re.MULTILINE))


def asked() -> dict[str, list[str]]:
    """Lock file -> the requirements of pyproject.toml that it must hold."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    base = project["dependencies"]
    return {"base": base, "embedded": base + extras["embedded"], "dev": base + extras["embedded"] + extras["dev"]}


def test_there_are_three():
    assert [path.stem for path in FILES] == ["base", "dev", "embedded"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_package_is_pinned_with_hashes(path: Path):
    entries = re.split(rf"^(?={NAME}(?:\[[^\]]*\])?\s*(?:==|@|>))", path.read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    for entry in entries:
        assert re.match(rf"{NAME}==", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_host_and_no_local_path_is_named(path: Path):
    for line in path.read_text().splitlines():
        assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|file:/|\s/\w", line), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_requirement_of_the_project_is_locked(path: Path):
    locked = pinned(path)
    for requirement in asked()[path.stem]:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name is not None
        assert re.sub(r"[-_.]+", "-", name[0]).lower() in locked, requirement


def test_the_three_agree_on_versions():
    everything = pinned(REPOSITORY / "requirements" / "dev.txt")
    for path in FILES:
        assert pinned(path).items() <= everything.items()
