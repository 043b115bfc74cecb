"""The gate as a pure function."""

from datetime import UTC, datetime

import pytest

from migrations_app.gates.checks import CHECKS
from migrations_app.gates.verdict import LineKind, SeenPrerequisite, SeenService, SeenSignOff, Snapshot, judge

SIGN_OFF = SeenSignOff("ada", datetime(2026, 11, 24, tzinfo=UTC), "")
HEALTHY = SeenService("auth", "Auth", "healthy", "")


def manual(number: int, sign_off: SeenSignOff | None) -> SeenPrerequisite:
    return SeenPrerequisite(number, f"line-{number}", f"Line {number}", "", sign_off, "", {})


def automatic(check: str, **parameters) -> SeenPrerequisite:
    return SeenPrerequisite(9, "auto", "Automatic", "", None, check, parameters)


def verdict(*prerequisites: SeenPrerequisite, services=(HEALTHY,), weights=None):
    return judge(Snapshot(3, prerequisites, services, weights or {}), CHECKS)


def test_a_gate_without_conditions_is_open():
    assert verdict(services=()).open


def test_one_missing_sign_off_closes_the_gate_and_is_the_only_reason():
    found = verdict(manual(1, SIGN_OFF), manual(2, None))
    assert not found.open
    assert [line.key for line in found.blocking] == ["line-2"]
    assert found.progress == "1/2"
    assert "manage.py prerequisite tick 2" in found.blocking[0].act
    assert found.sentence() == "The gate of week 3 is closed. Line 2: not signed off."


@pytest.mark.parametrize("state", ["unhealthy", "unknown"])
def test_health_counts_though_it_is_no_prerequisite(state):
    found = verdict(manual(1, SIGN_OFF), services=(SeenService("auth", "Auth", state, "no connection"),))
    assert not found.open
    assert found.progress == "1/1"
    assert found.blocking[0].kind == LineKind.HEALTH
    assert found.blocking[0].value == f"{state}: no connection"


def test_a_check_that_this_version_does_not_know_is_not_held():
    found = verdict(automatic("phase_of_the_moon"))
    assert not found.open
    assert found.blocking[0].value == "cannot tell"


@pytest.mark.parametrize(
    ("parameters", "weights", "held", "value"),
    [
        ({"all": True}, {1: {"A": 100}, 2: {"B": 100}}, True, "2 of 2 flags fully on"),
        ({"all": True}, {1: {"A": 100}, 2: {"B": 99}}, False, "1 of 2 flags fully on"),
        ({"weeks": [1]}, {1: {"A": 100}, 2: {"B": 0}}, True, "1 of 1 flags fully on"),
        ({"weeks": [2]}, {1: {"A": 100}, 2: {"B": 0}}, False, "0 of 1 flags fully on"),
        ({"weeks": [7]}, {1: {"A": 100}}, False, "0 of 0 flags fully on"),
        ({}, {1: {"A": 100}}, False, "0 of 0 flags fully on"),
    ],
)
def test_flags_on(parameters, weights, held, value):
    (line,) = verdict(automatic("flags_on", **parameters), services=(), weights=weights).lines
    assert (line.held, line.value) == (held, value)


def test_a_verdict_can_be_stored_and_read():
    data = verdict(manual(1, None)).as_json()
    assert (data["week"], data["open"], data["progress"]) == (3, False, "0/1")
    assert data["lines"][0]["act"].startswith("Tick it")
