"""What a service's page reads of the past: the last polls and failures, found without reading all that there is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.models import HealthChange, HealthDay, HealthHour, HealthMinute, HealthSample, RollupMark
from migrations_app.observe.history import bars, changes
from migrations_app.observe.lately import FAILED, RUNS, UNSUMMED, Run, lately, runs_of
from migrations_app.observe.rollups import HEALTH, roll_up
from migrations_app.observe.uptime import refresh_summaries

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
REFUSED, SLOW = "connection refused", "no answer within 1.5 s"


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


def polls(*found, target="auth"):
    """Each of `found`: when, and the error ("" when healthy, None when nobody could tell)."""
    HealthSample.objects.bulk_create(
        HealthSample(
            target=target, polled_at=at, healthy=None if error is None else not error, milliseconds=3, error=error or ""
        )
        for at, error in found
    )


def test_equal_reasons_in_a_row_are_told_together(now):
    failed = [(now - second * SECOND, REFUSED) for second in range(12)]
    failed += [(now - 20 * SECOND, SLOW), (now - 21 * SECOND, REFUSED), (now - 2 * HOUR, REFUSED)]
    assert list(runs_of(failed)) == [
        Run(REFUSED, 12, now - 11 * SECOND, now),
        Run(SLOW, 1, now - 20 * SECOND, now - 20 * SECOND),
        Run(REFUSED, 1, now - 21 * SECOND, now - 21 * SECOND),
        Run(REFUSED, 1, now - 2 * HOUR, now - 2 * HOUR),
    ]
    assert list(runs_of([])) == []


def test_failures_are_found_in_minutes_long_summed_up_and_in_those_that_are_not(db, now):
    long_ago = now - 26 * HOUR
    polls(*((long_ago - second * SECOND, REFUSED if second < 3 else "") for second in range(120)))
    polls((now - 5 * HOUR, ""), (now - HOUR, None))
    roll_up(HEALTH, now, within=60)
    assert HealthHour.objects.filter(failed__gt=0).exists()
    polls((now - 2 * SECOND, SLOW), (now - SECOND, ""), (now, SLOW))
    found = lately("auth", now)
    assert found.runs == [
        Run(SLOW, 2, now - 2 * SECOND, now),
        Run(REFUSED, 3, long_ago - 2 * SECOND, long_ago),
    ]
    assert not found.more
    assert [(poll.polled_at, poll.healthy, poll.error) for poll in found.polls[:4]] == [
        (now, False, SLOW),
        (now - SECOND, True, ""),
        (now - 2 * SECOND, False, SLOW),
        (now - HOUR, None, ""),
    ]
    assert lately("rag", now).runs == []


def test_without_any_sums_the_polls_themselves_are_looked_through(db, now):
    polls((now - 30 * MINUTE, REFUSED), (now, ""))
    assert [run.reason for run in lately("auth", now).runs] == [REFUSED]


def test_a_long_outage_is_told_as_far_as_it_is_read_and_that_there_was_more(db, now):
    minute = now.replace(second=0)
    polls(*((minute - second * SECOND, REFUSED) for second in range(1, 1801)))
    roll_up(HEALTH, now, within=60)
    found = lately("auth", now)
    assert [(run.times, run.last) for run in found.runs] == [(FAILED, minute - SECOND)]
    assert found.more


def test_many_reasons_are_cut_to_the_last(db, now):
    polls(*((now - second * SECOND, f"fault {second}") for second in range(RUNS + 5)))
    found = lately("auth", now)
    assert [run.reason for run in found.runs] == [f"fault {second}" for second in range(RUNS)]
    assert found.more


def test_what_it_tells_of_days_and_changes_is_what_the_history_tells(db, now):
    for back in (0, 1, 45):
        day = now.replace(hour=0, minute=0, second=0) - back * timedelta(days=1)
        HealthDay.objects.create(
            target="auth", bucket=day, polls=1000, failed=back, unknown=1, total_us=1, latency=[0] * 23
        )
    for back in range(20):
        HealthChange.objects.create(
            target="auth", at=now - back * MINUTE, was="healthy", state="unhealthy", reason=f"reason {back}"
        )
    refresh_summaries(now)
    found = lately("auth", now)
    assert found.bars == bars("auth", now=now)
    expected = [(one.at, one.was, one.state, one.reason) for one in changes("auth", 12)]
    assert [(one.at, one.was, one.state, one.reason) for one in found.changes] == expected
    assert found.uptime_90d == 9846
    never = lately("rag", now)
    assert (never.uptime_24h, never.uptime_90d, never.changes, never.polls) == (None, None, [], [])


def test_it_is_one_query_that_does_not_read_what_is_healthy(db, now, django_assert_num_queries):
    """A worker that sums up and is down for long leaves at most so many polls to look through."""
    RollupMark.objects.create(source="health", done_until=now - timedelta(days=2))
    polls((now - (UNSUMMED + 10) * SECOND, REFUSED))
    polls(*((now - second * SECOND, "") for second in range(UNSUMMED)))
    with django_assert_num_queries(1):
        assert lately("auth", now).runs == []
    minute = (now - (UNSUMMED + 10) * SECOND).replace(second=0)
    for model, bucket in ((HealthMinute, minute), (HealthHour, minute.replace(minute=0))):
        model.objects.create(target="auth", bucket=bucket, polls=60, failed=1, unknown=0, total_us=1, latency=[0] * 23)
    assert [run.reason for run in lately("auth", now).runs] == [REFUSED]
