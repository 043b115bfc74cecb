"""What pages read: the right numbers, one query each, whatever the length of the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from migrations_app.choices import Health
from migrations_app.gateways.base import Side
from migrations_app.models import (
    HealthChange,
    HealthDay,
    HealthHour,
    HealthMinute,
    HealthState,
    HealthSummary,
    TrafficHour,
    TrafficMinute,
)
from migrations_app.observe.history import MOST_ROWS, bars, changes, latency_series, summaries

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ZEROS = [0] * 23


@pytest.fixture
def now() -> datetime:
    return timezone.now().replace(minute=30, second=0, microsecond=0)


def spread(**counts: int) -> list[int]:
    return [counts.get(f"r{position}", 0) for position in range(23)]


def polled(model, at: datetime, polls: int, failed: int = 0, latency=None, *, target: str = "auth") -> None:
    model.objects.create(
        target=target,
        bucket=at,
        polls=polls,
        failed=failed,
        unknown=0,
        total_us=0,
        max_us=None,
        latency=latency or spread(r5=polls),
    )


def test_an_hour_is_read_by_the_minute(db, now):
    for back in range(90):
        polled(HealthMinute, now - back * MINUTE, 60, back % 2, spread(r0=30, r7=30))
    polled(HealthMinute, now - MINUTE, 60, target="rag")
    found = latency_series("auth", None, now - HOUR, now)
    assert [point.at for point in found] == [now - back * MINUTE for back in range(60, 0, -1)]
    assert {(point.step, point.count) for point in found} == {(MINUTE, 60)}
    assert [point.errors for point in found[-3:]] == [1, 0, 1]
    assert (found[0].p50, found[0].p95) == (1.0, 19.5)


def test_a_day_is_put_together_to_as_many_points_as_are_asked_for(db, now):
    since = now - DAY
    for minute in range(24 * 60):
        slow = minute % 5 == 4
        polled(HealthMinute, since + minute * MINUTE, 10, 0, spread(r0=0 if slow else 10, r15=10 if slow else 0))
    found = latency_series("auth", None, since, now, points=288)
    assert len(found) == 288
    assert {(point.step, point.count) for point in found} == {(5 * MINUTE, 50)}
    # A fifth of the 50 answers took 300 to 500 ms; no average of five percentiles gives this.
    assert {round(point.p95 or 0) for point in found} == {450}
    assert {point.p50 for point in found} == {0.625}


@pytest.mark.parametrize(
    ("span", "model", "bucket"),
    [(36 * HOUR, HealthMinute, MINUTE), (90 * DAY, HealthHour, HOUR), (365 * DAY, HealthDay, DAY)],
)
def test_no_range_reads_more_than_so_many_rows(db, now, span, model, bucket):
    assert span / bucket <= MOST_ROWS
    at = (now - span / 2).replace(**{MINUTE: {}, HOUR: {"minute": 0}, DAY: {"hour": 0, "minute": 0}}[bucket])
    polled(model, at, 7)
    found = latency_series("auth", None, now - span, now)
    assert [point.count for point in found] == [7]
    assert found[0].at <= at < found[0].at + found[0].step


def test_a_range_that_minutes_are_not_kept_of_is_read_by_the_hour(db, now, settings):
    at = now.replace(minute=0) - (settings.MINUTE_DAYS + 5) * DAY
    polled(HealthHour, at, 7)
    found = latency_series("auth", None, at, at + 6 * HOUR)
    assert [(point.at, point.step) for point in found] == [(at, HOUR)]


def test_both_sides_of_a_service_are_read_alike(db, now):
    for side, place, count in ((Side.MONOLITH, "r9", 100), (Side.SERVICE, "r3", 20)):
        for model, at in ((TrafficMinute, now - 5 * MINUTE), (TrafficHour, now.replace(minute=0) - 5 * DAY)):
            model.objects.create(
                service="auth", side=side.value, bucket=at, requests=count, errors=2, latency=spread(**{place: count})
            )
    old, new = (latency_series("auth", side, now - HOUR, now) for side in (Side.MONOLITH, Side.SERVICE))
    assert [(point.count, point.errors, point.p95) for point in old] == [(100, 2, 49.0)]
    assert [(point.count, point.errors, point.p95) for point in new] == [(20, 2, 4.9)]
    assert [point.count for point in latency_series("auth", Side.SERVICE, now - 7 * DAY, now)] == [20]
    assert latency_series("rag", Side.SERVICE, now - HOUR, now) == []


@pytest.mark.parametrize(
    ("model", "ago", "span"), [(TrafficMinute, 5 * MINUTE, HOUR), (TrafficHour, 5 * DAY, 30 * DAY)]
)
def test_client_errors_retries_and_failovers_are_read_too(db, now, model, ago, span):
    for service, factor in (("auth", 1), ("", 10)):
        for place in (0, 1):
            model.objects.create(
                service=service,
                side="monolith",
                bucket=now.replace(minute=0) - ago - place * HOUR
                if model is TrafficHour
                else now - ago - place * MINUTE,
                requests=factor * 20,
                errors=factor,
                client_errors=factor * 2,
                retries=factor * 3,
                failovers=factor * 4,
                failed_failovers=factor * 5,
                latency=ZEROS,
            )
    for service, factor in (("auth", 1), ("", 10)):
        (point,) = latency_series(service, Side.MONOLITH, now - span, now, points=1)
        assert (point.count, point.errors) == (factor * 40, factor * 2)
        assert (point.client_errors, point.retries, point.failovers) == (factor * 4, factor * 6, factor * 8)
        assert point.failed_failovers == factor * 10
    polled(HealthMinute, now - MINUTE, 60)
    (poll,) = latency_series("auth", None, now - HOUR, now)
    assert (poll.client_errors, poll.retries, poll.failovers) == (0, 0, 0)


def test_what_nobody_answered_has_no_times(db, now):
    polled(HealthMinute, now - MINUTE, 60, 60, ZEROS)
    (point,) = latency_series("auth", None, now - HOUR, now)
    assert (point.count, point.errors, point.p50, point.p95) == (60, 60, None, None)


def test_bars_have_every_day_of_the_last_ninety(db, now):
    today = now.astimezone(UTC).replace(hour=0, minute=0)
    polled(HealthDay, today, 100, 1)
    polled(HealthDay, today - 89 * DAY, 100)
    polled(HealthDay, today - 90 * DAY, 100, 100)
    found = bars("auth", now=now)
    assert [bar.day for bar in found] == [today - back * DAY for back in reversed(range(90))]
    assert (found[-1].polls, found[-1].failed, found[-1].uptime) == (100, 1, 9_900)
    assert (found[0].uptime, found[1].uptime, found[1].polls) == (10_000, None, 0)


def test_the_newest_changes_come_first(db, now):
    for back in range(5):
        HealthChange.objects.create(
            target="auth", at=now - back * HOUR, was=Health.HEALTHY, state=Health.UNHEALTHY, reason=f"reason {back}"
        )
    HealthChange.objects.create(target="rag", at=now, was=Health.UNKNOWN, state=Health.HEALTHY)
    assert [row.reason for row in changes("auth", 3)] == ["reason 0", "reason 1", "reason 2"]


def test_the_overview_has_every_target_that_was_ever_polled(db, now, settings):
    HealthState.objects.create(
        target="auth", state=Health.UNHEALTHY, since=now - HOUR, polled_at=now, milliseconds=3.5, error="refused"
    )
    stale = now - timedelta(seconds=settings.HEALTH_STALE_AFTER + 1)
    HealthState.objects.create(target="new", state=Health.HEALTHY, since=stale, polled_at=stale)
    for target in ("auth", "left"):
        HealthSummary.objects.create(
            target=target,
            refreshed_at=now,
            uptime_24h=9_000,
            uptime_90d=None,
            sparkline=[1.5, None],
            days=[10_000, None],
        )
    found = summaries(now)
    assert list(found) == ["auth", "left", "new"]
    auth = found["auth"]
    assert (auth.state, auth.since, auth.error, auth.milliseconds) == (Health.UNHEALTHY, now - HOUR, "refused", 3.5)
    assert (auth.uptime_24h, auth.uptime_90d, auth.sparkline, auth.days) == (9_000, None, (1.5, None), (10_000, None))
    assert (found["new"].state, found["new"].days) == (Health.UNKNOWN, ())
    assert (found["left"].state, found["left"].polled_at, found["left"].uptime_24h) == (Health.UNKNOWN, None, 9_000)


def test_each_is_one_query(db, now, django_assert_num_queries):
    for number in range(30):
        polled(HealthMinute, now - number * MINUTE, 60, target=f"s{number % 3}")
        HealthSummary.objects.create(target=f"t{number}", refreshed_at=now, sparkline=[], days=[])
    for read in (
        lambda: latency_series("s1", None, now - HOUR, now),
        lambda: latency_series("s1", Side.SERVICE, now - 90 * DAY, now),
        lambda: bars("s1"),
        lambda: changes("s1"),
        lambda: summaries(now),
    ):
        with django_assert_num_queries(1):
            read()
