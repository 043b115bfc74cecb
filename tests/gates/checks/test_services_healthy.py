"""`services_healthy`: for how long, without a break, and of whom."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from migrations_app.choices import CheckState
from migrations_app.gates.checks.services_healthy import services_healthy
from migrations_app.gates.load import verdicts
from migrations_app.gates.seen import SeenService, Snapshot
from migrations_app.models import HealthState
from tests.factories import make_healthy, tick_all

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def service(key: str, state: str = "healthy", minutes: float | None = 60, error: str = "") -> SeenService:
    since = None if minutes is None else NOON - timedelta(minutes=minutes)
    return SeenService(key, key.upper(), state, error, since)


def found(parameters, *services: SeenService, own=("rag",), **seen):
    health = {one.key: one for one in services}
    of_week = tuple(health[key] for key in own if key in health)
    return services_healthy(parameters, Snapshot(1, NOON, (), of_week, {}, health, **seen))


@pytest.mark.parametrize(
    ("minutes", "held", "value", "act"),
    [
        (5, True, "1 healthy for 5 min", ""),
        (4.99, False, "1 healthy for 4 min", "Wait another 1 s."),
        (2, False, "1 healthy for 2 min", "Wait another 3 min."),
        (0, False, "1 healthy for 0 s", "Wait another 5 min."),
        (-60, False, "1 healthy for 0 s", "Wait another 1 h 5 min."),  # the clock was put back
    ],
)
def test_it_holds_once_all_have_been_healthy_for_long_enough(minutes, held, value, act):
    result = found({"for": "5m"}, service("rag", minutes=minutes))
    assert (result.state == CheckState.HELD, result.value, result.act) == (held, value, act)
    assert result.limit == "all healthy for 5 min"


def test_the_one_that_recovered_last_counts():
    result = found({"for": "10m"}, service("rag", minutes=60), service("auth", minutes=9), own=("rag", "auth"))
    assert result.state == CheckState.NOT_HELD
    assert result.since == NOON - timedelta(minutes=9)


@pytest.mark.parametrize(
    ("services", "state", "value"),
    [
        ([service("rag", "unhealthy", error="answered 500")], CheckState.NOT_HELD, "RAG is unhealthy (answered 500)"),
        ([service("rag", "unknown")], CheckState.UNKNOWN, "RAG is unknown"),
        ([service("rag"), service("auth", "unhealthy")], CheckState.NOT_HELD, "AUTH is unhealthy"),
        (
            [service("rag", "unknown"), service("auth", "unhealthy")],
            CheckState.NOT_HELD,
            "RAG is unknown, AUTH is unhealthy",
        ),
    ],
)
def test_one_that_is_not_healthy_is_named(services, state, value):
    result = found({}, *services, own=("rag", "auth"))
    assert (result.state, result.value) == (state, value)


def test_the_services_that_are_named_count_and_no_others():
    sound, ill = service("rag"), service("auth", "unhealthy")
    assert found({"services": ["rag"]}, sound, ill, own=("auth",)).state == CheckState.HELD
    assert found({"services": ["auth"]}, sound, ill, own=("rag",)).state == CheckState.NOT_HELD
    missing = found({"services": ["rag", "nobody"]}, sound)
    assert (missing.state, missing.value) == (CheckState.UNKNOWN, "nobody is unknown (no poll yet)")


def test_where_there_is_no_service_nobody_can_tell():
    assert found({}, own=()).state == CheckState.UNKNOWN


@pytest.mark.parametrize(("seconds", "held"), [(59, False), (60, True)])
def test_a_demo_waits_in_its_own_time(seconds, held):
    result = found({"for": "1h"}, service("rag", minutes=seconds / 60), time_scale=60)
    assert (result.state == CheckState.HELD, result.limit) == (held, "all healthy for 1 min")


def test_without_a_time_healthy_now_is_enough():
    result = found({}, service("rag", minutes=0))
    assert (result.state, result.limit) == (CheckState.HELD, "all healthy")


@pytest.mark.parametrize("parameters", [{"for": "soon"}, {"for": 5}, {"services": "rag"}, {"sevices": ["rag"]}])
def test_parameters_that_make_no_sense_raise_what_the_callers_expect(parameters):
    with pytest.raises(ValidationError):
        found(parameters, service("rag"))


def test_the_shipped_plan_opens_week_1_once_its_services_have_been_healthy_for_a_minute(shipped_plan, shell):
    tick_all(1, shell)
    assert verdicts(weeks=[1])[1].open
    now = HealthState.objects.get(target="rag").polled_at
    HealthState.objects.filter(target="rag").update(since=now - timedelta(seconds=30))
    found = verdicts(weeks=[1], now=now)[1]
    assert [(line.value, line.act) for line in found.blocking] == [("3 healthy for 30 s", "Wait another 30 s.")]
    make_healthy("unhealthy", error="refused")
    assert not verdicts(weeks=[1])[1].open
