"""`downtime` on clocks as observe.downtime writes them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from migrations_app.choices import CheckState
from migrations_app.gates.checks.downtime import downtime
from migrations_app.models import DowntimeClock, Week
from tests.factories import put_behind
from tests.gates.checks.scene import scene


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def clock(plan, now):
    """Week 3 has begun, and may have five minutes of downtime."""
    put_behind(3)

    def make(**values):
        told = {"requests": 12_034, "failed": 60, "since": now - timedelta(hours=1), "counted_until": now}
        DowntimeClock.objects.create(week=Week.objects.get(number=3), **told | values)

    return make


def check(now, parameters=None, week=3):
    return downtime(parameters or {}, scene(week, now))


@pytest.mark.parametrize(
    ("down", "state"),
    [(0, CheckState.HELD), (299.9, CheckState.HELD), (300, CheckState.NOT_HELD), (4000, CheckState.NOT_HELD)],
)
def test_it_holds_while_the_week_was_down_for_less_than_its_target(clock, now, down, state):
    clock(down=timedelta(seconds=down))
    found = check(now)
    assert (found.state, found.limit) == (state, "under 5 min")


def test_the_value_tells_how_long_and_of_how_many(clock, now):
    clock(down=timedelta(seconds=40), not_known=timedelta(seconds=12))
    assert check(now).value == "40 s down, 12 s not known, of 12,034 requests 60 failed"


def test_none_at_all_is_a_target(clock, now):
    clock(down=timedelta(milliseconds=1))
    found = check(now, {"under": "0s"})
    assert (found.state, found.limit) == (CheckState.NOT_HELD, "none")
    DowntimeClock.objects.update(down=timedelta(0))
    assert check(now, {"under": "0s"}).state == CheckState.HELD


def test_what_is_not_known_is_unknown_only_where_it_would_decide(clock, now):
    clock(down=timedelta(seconds=200), not_known=timedelta(seconds=99))
    assert check(now).state == CheckState.HELD
    DowntimeClock.objects.update(not_known=timedelta(seconds=100))
    found = check(now)
    assert found.state == CheckState.UNKNOWN
    assert "the gateway's own log" in found.act
    assert check(now, {"not_known": "held"}).state == CheckState.HELD


def test_time_that_no_reading_has_come_for_counts_as_not_known(clock, now):
    clock(counted_until=now - timedelta(minutes=6))
    assert check(now).state == CheckState.UNKNOWN
    DowntimeClock.objects.update(running=False)
    assert check(now).state == CheckState.HELD


def test_without_a_request_nobody_can_tell(clock, now):
    clock(requests=0, failed=0)
    found = check(now)
    assert (found.state, found.value) == (CheckState.UNKNOWN, "none, no request was counted")


def test_a_week_that_has_not_begun_does_not_hold(plan, now):
    assert check(now).value == "week 3 has not begun"


def test_another_week_or_limit_may_be_asked_about(clock, now):
    clock(down=timedelta(seconds=40))
    assert check(now, {"week": 3, "under": "30s"}, week=6).state == CheckState.NOT_HELD
    assert check(now, {}, week=6).value == "there is no target"
    assert check(now, {"week": 99}).value == "the plan has no week 99"
