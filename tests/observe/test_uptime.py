"""The formula of uptime, and the row of each target that the overview reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from migrations_app.models import HealthDay, HealthHour, HealthSample, HealthSummary
from migrations_app.observe.rollups import HEALTH, roll_up
from migrations_app.observe.uptime import DAYS, HOURS, in_per_cent, refresh_summaries

NOON = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
TODAY, HOUR, DAY = datetime(2026, 11, 24, tzinfo=UTC), timedelta(hours=1), timedelta(days=1)
LATENCY = [0] * 22


def uptime(polls: int, failed: int = 0, unknown: int = 0, maintenance: int = 0) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT switchyard_uptime(%s, %s, %s, %s)", [polls, failed, unknown, maintenance])
        return cursor.fetchone()[0]


@pytest.mark.parametrize(
    ("counted", "hundredths"),
    [
        ((100, 0, 0, 0), 10_000),
        ((100, 1, 0, 0), 9_900),
        ((100, 100, 0, 0), 0),
        ((100, 10, 50, 0), 8_000),
        ((100, 10, 20, 30), 8_000),
        ((100, 0, 99, 0), 10_000),
        ((100, 0, 100, 0), None),
        ((100, 0, 0, 100), None),
        ((0, 0, 0, 0), None),
        ((7_776_000, 1, 0, 0), 9_999),  # one poll of 90 days of one a second
        ((3_888_000_000, 1, 0, 0), 9_999),
        ((3, 1, 0, 0), 6_666),
    ],
)
def test_uptime_is_what_was_healthy_of_what_could_tell(db, counted, hundredths):
    """`counted`: polls, and of these failed, unknown, and in maintenance."""
    assert uptime(*counted) == hundredths


@pytest.mark.django_db
def test_uptime_is_never_rounded_up():
    @given(st.tuples(*[st.integers(0, 10**7)] * 4))
    def never(parts: tuple[int, int, int, int]) -> None:
        healthy, failed, unknown, maintenance = parts
        found = uptime(sum(parts), failed, unknown, maintenance)
        if not healthy + failed:
            assert found is None
        else:
            assert found is not None
            assert found * (healthy + failed) <= 10_000 * healthy < (found + 1) * (healthy + failed)
            assert (found == 10_000) == (failed == 0)

    never()


@pytest.mark.parametrize(
    ("hundredths", "words"),
    [(None, "-"), (10_000, "100 %"), (9_999, "99.99 %"), (9_900, "99.00 %"), (5, "0.05 %"), (0, "0.00 %")],
)
def test_uptime_in_words(hundredths, words):
    assert in_per_cent(hundredths) == words


def row(model, at: datetime, polls: int, failed: int = 0, *, target: str = "auth", mean: float | None = 5.0, **more):
    answered = 0 if mean is None else polls
    return model.objects.create(
        target=target,
        bucket=at,
        polls=polls,
        failed=failed,
        unknown=more.pop("unknown", 0),
        total_us=round((mean or 0) * 1000 * answered),
        max_us=None,
        latency=[*LATENCY, answered],
        **more,
    )


def test_a_summary_has_its_hours_and_days_in_their_places(db):
    row(HealthHour, TODAY + 12 * HOUR, 30, 3, mean=2.5)
    row(HealthHour, TODAY + 11 * HOUR, 70, mean=10)
    row(HealthHour, TODAY + 12 * HOUR - 24 * HOUR, 100, 7)
    row(HealthHour, TODAY + 12 * HOUR - 25 * HOUR, 1000, 1000, mean=None)  # out of the last day, in the sparkline
    row(HealthHour, TODAY + 12 * HOUR - 47 * HOUR, 10, mean=99)
    row(HealthHour, TODAY + 12 * HOUR - 48 * HOUR, 10, mean=77)  # out of the sparkline
    row(HealthDay, TODAY, 100, 3)
    row(HealthDay, TODAY - DAY, 100, unknown=100)
    row(HealthDay, TODAY - 89 * DAY, 300, 1)
    row(HealthDay, TODAY - 90 * DAY, 1000, 1000)
    refresh_summaries(NOON)
    found = HealthSummary.objects.get()
    assert found.refreshed_at == NOON
    assert found.uptime_24h == 10_000 * 190 // 200
    assert found.uptime_90d == 10_000 * 396 // 400
    assert (len(found.sparkline), len(found.days)) == (HOURS, DAYS)
    assert (found.sparkline[-1], found.sparkline[-2], found.sparkline[0]) == (2.5, 10.0, 99.0)
    assert found.sparkline[-26] is None
    assert sum(value is not None for value in found.sparkline) == 4
    assert (found.days[-1], found.days[-2], found.days[0]) == (9_700, None, 9_966)
    assert sum(value is not None for value in found.days) == 2


def test_planned_maintenance_is_counted_apart(db):
    row(HealthDay, TODAY, 100, 5, maintenance=50)
    row(HealthHour, TODAY + 12 * HOUR, 100, 5, maintenance=50)
    refresh_summaries(NOON)
    found = HealthSummary.objects.get()
    assert (found.uptime_24h, found.uptime_90d, found.days[-1]) == (9_000, 9_000, 9_000)


def test_a_target_that_is_polled_no_more_is_forgotten_after_its_last_day_is_out_of_sight(db):
    row(HealthDay, TODAY, 100, target="gone")
    row(HealthDay, TODAY + 89 * DAY, 100, target="auth")
    refresh_summaries(NOON)
    refresh_summaries(NOON + 89 * DAY)
    assert set(HealthSummary.objects.values_list("target", flat=True)) == {"auth", "gone"}
    refresh_summaries(NOON + 90 * DAY)
    assert set(HealthSummary.objects.values_list("target", flat=True)) == {"auth"}


def test_summaries_follow_from_the_polls_themselves(db):
    HealthSample.objects.bulk_create(
        HealthSample(
            target="auth",
            polled_at=NOON - HOUR + number * timedelta(seconds=30),
            healthy={0: False, 1: None}.get(number, True),
            milliseconds=4.0,
        )
        for number in range(100)
    )
    roll_up(HEALTH, NOON)
    refresh_summaries(NOON)
    found = HealthSummary.objects.get()
    assert (found.uptime_24h, found.uptime_90d, found.days[-1]) == (9_898, 9_898, 9_898)
    assert found.sparkline[-2:] == [4.0, 4.0]
