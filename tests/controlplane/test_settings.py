"""A production start refuses to be half configured, and says why in a sentence each."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from django.core.management import call_command

from controlplane.environment import REPOSITORY

PRODUCTION = {
    "SWITCHYARD_MODE": "production",
    "SECRET_KEY": "8f2b1c7d9e3a4f5061728394a5b6c7d8e9f00112233445566778899aabbccddeeff",
    "ALLOWED_HOSTS": "dashboard.example.org",
    "DATABASE_URL": "postgres://switchyard@127.0.0.1:1/switchyard",
}


def check(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_production_settings_pass_the_deployment_check(clean_environ: dict[str, str]):
    done = check(clean_environ | PRODUCTION)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is not set"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY is shorter than 50"),
        ({"DEBUG": "true"}, "DEBUG is on"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS is open"),
        ({"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS is open or empty"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"SWITCHYARD_MODE": "staging"}, "SWITCHYARD_MODE is 'staging'"),
        ({"METRICS_TOKEN": "short"}, "METRICS_TOKEN is shorter than 20"),
        ({"GATEWAY_TESTER_SECRET": "guess me"}, "GATEWAY_TESTER_SECRET must be 16 to 200 letters"),
        ({"GATEWAYS": "gw-2"}, "GATEWAYS has 'gw-2'; write key=DIR,URL,ADMIN_URL"),
        ({"METRICS_NETWORKS": "10.0.0.0/8,everywhere"}, "METRICS_NETWORKS has 'everywhere'"),
        ({"HEALTH_NETWORKS": "10.0.0.0/8,inside"}, "HEALTH_NETWORKS has 'inside', which is not a network"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_production_refuses(clean_environ: dict[str, str], change: dict[str, str], sentence: str):
    environ = {name: value for name, value in (clean_environ | PRODUCTION | change).items() if value}
    done = check(environ)
    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.django_db
def test_the_migrations_hold_every_change_of_the_models(capsys: pytest.CaptureFixture[str]):
    call_command("makemigrations", check=True, dry_run=True)
    assert "No changes detected" in capsys.readouterr().out


def test_a_reader_that_has_read_enough_is_no_error(clean_environ: dict[str, str]):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} manage.py help | head -1"],
        cwd=REPOSITORY, env=clean_environ | PRODUCTION, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""


def test_what_the_checks_may_use_is_taken_as_it_stands(clean_environ: dict[str, str]):
    given = {
        "CHECK_DATABASE_MAIN": "postgres://a:b%25c@127.0.0.1/main",
        "CHECK_ACCOUNT_DEMO": "ana:$PATH",
        "CHECK_SECRET_JWT": "$SECRET_KEY",
        "CHECK_SECRET_EMPTY": "",
    }
    script = (
        "import json, controlplane.settings as s;"
        "print(json.dumps([s.CHECK_DATABASES, s.CHECK_ACCOUNTS, s.CHECK_SECRETS]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY, env=clean_environ | PRODUCTION | given, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [
        {"main": given["CHECK_DATABASE_MAIN"]},
        {"demo": given["CHECK_ACCOUNT_DEMO"]},
        {"jwt": given["CHECK_SECRET_JWT"]},
    ]


@pytest.mark.parametrize(
    ("given", "token", "networks"),
    [
        ({}, "", []),
        ({"SWITCHYARD_MODE": "test"}, "", ["127.0.0.0/8", "::1/128"]),
        ({"SWITCHYARD_MODE": "test", "METRICS_NETWORKS": ""}, "", []),
        (
            {"METRICS_TOKEN": "$SECRET_KEY is not meant here", "METRICS_NETWORKS": "10.0.0.0/8,192.0.2.7"},
            "$SECRET_KEY is not meant here",
            ["10.0.0.0/8", "192.0.2.7/32"],
        ),
    ],
    ids=["production", "test", "none", "set"],
)
def test_who_may_read_the_metrics(
    clean_environ: dict[str, str], given: dict[str, str], token: str, networks: list[str]
):
    script = (
        "import json, controlplane.settings as s; print(json.dumps([s.METRICS_TOKEN, [*map(str, s.METRICS_NETWORKS)]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY, env=clean_environ | PRODUCTION | given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout) == [token, networks], done.stderr
