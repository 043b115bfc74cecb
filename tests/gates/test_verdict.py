"""The gate as a pure function."""

from datetime import UTC, datetime, timedelta

import pytest

from migrations_app.choices import CheckState, Decision, WeekStatus
from migrations_app.gates.checks import INSTANT
from migrations_app.gates.seen import (
    SeenApproval,
    SeenFreeze,
    SeenOverride,
    SeenPrerequisite,
    SeenRequest,
    SeenResult,
    SeenService,
    SeenSignOff,
    SeenWeek,
    Snapshot,
)
from migrations_app.gates.verdict import LineKind, judge, judge_done

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MORNING = NOON - timedelta(hours=4)
SIGN_OFF = SeenSignOff("ada", MORNING)
HEALTHY = SeenService("auth", "Auth", "healthy", "", MORNING)


def manual(number: int, sign_off: SeenSignOff | None) -> SeenPrerequisite:
    return SeenPrerequisite(number, f"line-{number}", f"Line {number}", "", sign_off, "", {})


def automatic(check: str, *, result: SeenResult | None = None, **parameters) -> SeenPrerequisite:
    return SeenPrerequisite(9, "auto", "Automatic", "", None, check, parameters, result)


def verdict(*prerequisites: SeenPrerequisite, services=(HEALTHY,), weights=None, judged=judge, **seen):
    return judged(Snapshot(3, NOON, prerequisites, services, weights or {}, **seen), INSTANT)


def line_of(*prerequisites: SeenPrerequisite, **seen):
    (line,) = verdict(*prerequisites, services=(), **seen).lines
    return line


def test_a_gate_without_conditions_is_open():
    assert verdict(services=()).open


def test_one_missing_sign_off_closes_the_gate_and_is_the_only_reason():
    found = verdict(manual(1, SIGN_OFF), manual(2, None))
    assert not found.open
    assert [line.key for line in found.blocking] == ["line-2"]
    assert found.progress == "1/2"
    assert found.blocking[0].command == "manage.py prerequisite tick 2"
    assert found.blocking[0].who == "release managers and approvers"
    assert found.sentence() == "The gate of week 3 is closed. Line 2: not signed off."


@pytest.mark.parametrize("state", ["unhealthy", "unknown"])
def test_health_counts_though_it_is_no_prerequisite(state):
    found = verdict(manual(1, SIGN_OFF), services=(SeenService("auth", "Auth", state, "no connection", MORNING),))
    assert not found.open
    assert found.progress == "1/1"
    assert found.blocking[0].kind == LineKind.HEALTH
    assert found.blocking[0].value == f"{state}: no connection"
    assert found.blocking[0].since == MORNING


@pytest.mark.parametrize(
    ("left", "of", "warned"),
    [
        (timedelta(hours=1), timedelta(hours=4), False),
        (timedelta(minutes=30), timedelta(hours=4), True),
        (timedelta(minutes=6), timedelta(minutes=20), False),  # a short one is warned of in its last quarter
        (timedelta(minutes=5), timedelta(minutes=20), True),
    ],
)
def test_a_sign_off_warns_before_it_ends(left, of, warned):
    line = line_of(manual(1, SeenSignOff("ada", NOON + left - of, expires_at=NOON + left)))
    assert line.held
    assert line.until == NOON + left
    assert bool(line.warning) is warned


@pytest.mark.parametrize(("late", "held"), [(timedelta(microseconds=-1), True), (timedelta(0), False)])
def test_a_sign_off_opens_again_at_the_very_moment_that_it_ends(late, held):
    line = line_of(manual(1, SeenSignOff("ada", MORNING, expires_at=NOON - late)))
    assert line.held is held
    if not held:
        assert line.value == "expired 0 s ago, signed off by ada"
        assert (line.since, line.until) == (NOON, None)


@pytest.mark.parametrize(("vouches_for", "held"), [("now", True), ("before", False), (None, True)])
def test_a_sign_off_is_void_once_it_vouches_for_something_else(vouches_for, held):
    line = line_of(manual(1, SeenSignOff("ada", MORNING, vouches_for=vouches_for)), target="now")
    assert line.held is held
    assert ("void" in line.value) is not held


def test_a_check_that_this_version_does_not_know_is_not_held():
    found = verdict(automatic("phase_of_the_moon"))
    assert not found.open
    assert found.blocking[0].value == "cannot tell: not checked yet"


@pytest.mark.parametrize(
    ("state", "age", "held", "value"),
    [
        (CheckState.HELD, 59, True, "12 of 12"),
        (CheckState.HELD, 60, True, "12 of 12"),
        (CheckState.HELD, 61, False, "cannot tell: the last check was 1 min ago"),
        (CheckState.NOT_HELD, 1, False, "12 of 12"),
        (CheckState.NOT_HELD, 61, False, "cannot tell: the last check was 1 min ago"),
        (CheckState.UNKNOWN, 1, False, "cannot tell: 12 of 12"),
    ],
)
def test_only_a_recent_result_that_holds_opens(state, age, held, value):
    result = SeenResult(state, "12 of 12", "12", "", MORNING, NOON - timedelta(seconds=age))
    line = line_of(automatic("backup_fresh", result=result))
    assert (line.held, line.value) == (held, value)
    assert line.checked_at == result.checked_at
    assert line.command == "manage.py prerequisite check 9"


def test_a_result_of_the_future_holds_as_one_of_now():
    """The clock of the host was put back by an hour since the check: no reason to close a gate, or to open one."""
    result = SeenResult(CheckState.HELD, "12 of 12", "12", "", MORNING, NOON + timedelta(hours=1))
    assert line_of(automatic("backup_fresh", result=result)).held


@pytest.mark.parametrize(
    ("week", "held", "value"),
    [
        (SeenWeek(2, "Two"), False, "planned"),
        (SeenWeek(2, "Two", WeekStatus.IN_PROGRESS), False, "in progress"),
        (SeenWeek(2, "Two", WeekStatus.ROLLED_BACK), False, "rolled back"),
        (SeenWeek(2, "Two", WeekStatus.DONE), True, "done"),
        (SeenWeek(2, "Two", WeekStatus.SOAKING, timedelta(hours=4), MORNING), True, "soaked"),
        (SeenWeek(2, "Two", WeekStatus.SOAKING, timedelta(hours=48), MORNING), False, "soaking, 4 h of 48 h"),
        (
            SeenWeek(2, "Two", WeekStatus.SOAKING, timedelta(hours=4), None, "RAG was unhealthy"),
            False,
            "soaking, the clock stands: RAG was unhealthy",
        ),
    ],
)
def test_a_week_waits_for_the_soak_of_the_ones_before_it(week, held, value):
    line = line_of(after=(week,))
    assert (line.kind, line.held, line.value) == (LineKind.ORDER, held, value)
    # The same of the week itself, before it is called done.
    line = line_of(judged=judge_done, own=week)
    assert (line.kind, line.held, line.value) == (LineKind.SOAK, held, value)


def request(*approvals: SeenApproval, revision=4, vouches_for="now", expires_at=NOON + timedelta(hours=8)):
    return SeenRequest(5, "rita", MORNING, expires_at, revision, vouches_for, approvals)


def given(actor: str, *, counts: bool = True, decision=Decision.GIVEN) -> SeenApproval:
    return SeenApproval(actor, decision, MORNING, counts)


@pytest.mark.parametrize(
    ("asked", "held", "value"),
    [
        (None, False, "not asked for"),
        (request(), False, "0 of 2, asked for by rita"),
        (request(given("paul")), False, "1 of 2: paul"),
        (request(given("paul"), given("quinn")), True, "2 of 2: paul, quinn"),
        (request(given("paul"), given("paul")), False, "1 of 2: paul"),
        (request(given("paul"), given("rita")), False, "1 of 2: paul"),
        (request(given("paul"), given("quinn", counts=False)), False, "1 of 2: paul"),
        (request(given("paul"), given("quinn", decision=Decision.DECLINED)), False, "1 of 2: paul"),
        (
            request(given("paul"), given("quinn"), revision=3),
            False,
            "void: asked for plan revision 3, the plan is at 4",
        ),
        (
            request(given("paul"), given("quinn"), vouches_for="before"),
            False,
            "void: the week's flags, routes or upstreams have changed since it was asked for",
        ),
        (request(given("paul"), given("quinn"), expires_at=NOON), False, "expired 0 s ago"),
    ],
)
def test_approvals_count_by_person_and_for_one_exact_change(asked, held, value):
    line = line_of(approvals_needed=2, approver_role="approver", request=asked, target="now", revision=4)
    assert (line.kind, line.held, line.value) == (LineKind.APPROVAL, held, value)


def test_a_freeze_closes_every_gate_and_says_until_when():
    until = NOON + timedelta(hours=1)
    line = line_of(freezes=(SeenFreeze(7, "Month end", MORNING, until),))
    assert (line.held, line.until, line.command) == (False, until, "manage.py freeze lift 7")


@pytest.mark.parametrize(
    ("lines", "expires_at", "vouches_for", "opened"),
    [
        ({"line-1"}, NOON + timedelta(minutes=1), "now", True),
        ({"line-2"}, NOON + timedelta(minutes=1), "now", False),
        ({"line-1"}, NOON, "now", False),
        ({"line-1"}, NOON + timedelta(minutes=1), "before", False),
    ],
)
def test_an_override_opens_what_it_names_until_it_ends(lines, expires_at, vouches_for, opened):
    override = SeenOverride(frozenset(lines), "olga", "the house burns", expires_at, vouches_for)
    found = verdict(manual(1, None), override=override, target="now")
    assert found.open is opened
    assert [line.key for line in found.overridden] == (["line-1"] if opened else [])
    assert not found.lines[0].held, "an overridden line is still not held"


def test_nothing_overrides_what_a_week_is_done_when():
    override = SeenOverride(frozenset({"line-1", "soak"}), "olga", "hurry", NOON + timedelta(hours=1), "now")
    found = verdict(manual(1, None), judged=judge_done, override=override, target="now", own=SeenWeek(3, "Three"))
    assert [line.key for line in found.blocking] == ["soak", "line-1"]


def test_a_verdict_can_be_stored_and_read():
    data = verdict(manual(1, None)).as_json()
    assert (data["week"], data["open"], data["progress"]) == (3, False, "0/1")
    assert data["lines"][0]["act"].startswith("Sign it off")
    assert data["lines"][0]["command"] == "manage.py prerequisite tick 1"
