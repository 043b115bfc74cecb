"""What a start refuses, in processes of their own: settings are read once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GOOD = {
    "SWITCHYARD_MODE": "production",
    "SECRET_KEY": "pB7!kQ2-xZ" * 6,
    "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
    "ALLOWED_HOSTS": "switchyard.example",
}


def manage(*arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    names = {"PATH": os.environ["PATH"], **GOOD, **environment}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        check=False,
        cwd=ROOT,
        env={key: value for key, value in names.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_check_deploy_is_clean_in_production_settings():
    done = manage("check", "--deploy", "--fail-level", "DEBUG")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no issues (0 silenced)" in done.stdout


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY is not set; give it a random value of at least 50 characters."),
        ({"SECRET_KEY": "short"}, "SECRET_KEY is shorter than 50 characters; give it a longer random value."),
        ({"DEBUG": "1"}, "DEBUG is on; production shows no internals, so unset it."),
        (
            {"ALLOWED_HOSTS": "*"},
            "ALLOWED_HOSTS is open or empty; name the host names that this dashboard is reached by.",
        ),
        (
            {"ALLOWED_HOSTS": None},
            "ALLOWED_HOSTS is open or empty; name the host names that this dashboard is reached by.",
        ),
        ({"SWITCHYARD_MODE": "prod"}, "SWITCHYARD_MODE is 'prod'; it must be production, local or test."),
    ],
)
def test_a_production_start_is_refused_with_a_sentence(changed, sentence):
    done = manage("check", **changed)
    assert done.returncode == 1
    assert done.stderr.strip() == f"Not started: {sentence}"


def test_everything_that_is_wrong_is_said_at_once():
    done = manage("check", SECRET_KEY=None, DEBUG="1", ALLOWED_HOSTS="*")
    assert len(done.stderr.strip().splitlines()) == 3


def test_a_command_without_its_database_says_so_in_one_line():
    done = manage("week", "list")
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: The database does not answer: ")
    assert len(done.stderr.strip().splitlines()) == 1
