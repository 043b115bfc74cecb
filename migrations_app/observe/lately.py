"""What the page of one service reads of the past of its polls: all of it in one question, however long the past is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from migrations_app.models import HealthChange, HealthSample

from .history import Bar
from .uptime import DAYS, day_of

POLLS = 8  # how many of the last polls are told
CHANGES = 12  # how many of the last changes of state
FAILED = 100  # how many of the last polls that failed are looked at, at most: those of so many
HOURS, MINUTES = 3, 20  # of the last hours and minutes that had some
RUNS = 8  # and how many of the times that it failed, as they follow on each other, are told
APART = timedelta(minutes=5)  # failures that lie further apart are told apart, though their reason is the same
UNSUMMED = 2000  # polls after the last minute that is summed up: it takes a worker that is down to have as many


@dataclass(frozen=True, slots=True)
class Run:
    """Polls that failed for one reason, one after the other."""

    reason: str
    times: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Lately:
    """One target. `bars`: the last 90 days, today last; what else there is in many comes newest first.

    Uptimes are hundredths of a per cent, None when nobody could tell. `more`: it failed more often than `runs` tell.
    `maintenance_until`: the end of the planned maintenance that it is in.
    """

    uptime_24h: int | None
    uptime_90d: int | None
    bars: list[Bar]
    changes: list[HealthChange]
    polls: list[HealthSample]
    runs: list[Run]
    more: bool
    maintenance_until: datetime | None = None


# Most targets fail seldom, so no index leads to the polls that failed. Hours and minutes that have some do: a few, or a
# target that fails now and then would be read for days. What is not summed up yet is looked through poll by poll.
# The limit within each LATERAL keeps PostgreSQL from reading all that there is of the target, to join it then.
_LATELY = """
WITH hours AS (
    SELECT bucket FROM migrations_app_healthhour
    WHERE target = %(target)s AND bucket > %(kept)s AND bucket <= %(now)s AND failed > 0
    ORDER BY bucket DESC LIMIT %(hours)s
),
minutes AS (
    SELECT minute.bucket FROM hours CROSS JOIN LATERAL (
        SELECT bucket FROM migrations_app_healthminute
        WHERE target = %(target)s AND bucket >= hours.bucket AND bucket < hours.bucket + interval '1 hour'
            AND bucket > %(kept)s AND bucket <= %(now)s AND failed > 0
        ORDER BY bucket DESC LIMIT 60
    ) AS minute ORDER BY minute.bucket DESC LIMIT %(minutes)s
),
unsummed AS (
    SELECT polled_at, healthy, error FROM migrations_app_healthsample
    WHERE target = %(target)s AND polled_at > %(kept)s AND polled_at < %(soon)s AND polled_at >= coalesce(
        (SELECT done_until FROM migrations_app_rollupmark WHERE source = 'health'), %(kept)s
    )
    ORDER BY polled_at DESC LIMIT %(unsummed)s
),
failed AS (
    SELECT poll.polled_at, poll.error FROM minutes CROSS JOIN LATERAL (
        SELECT polled_at, healthy, error FROM migrations_app_healthsample
        WHERE target = %(target)s AND polled_at >= minutes.bucket AND polled_at < minutes.bucket + interval '1 minute'
            AND polled_at > %(kept)s AND polled_at < %(soon)s
        ORDER BY polled_at DESC LIMIT %(unsummed)s
    ) AS poll WHERE NOT poll.healthy
    UNION SELECT polled_at, error FROM unsummed WHERE NOT healthy
    ORDER BY polled_at DESC LIMIT %(failed)s
)
SELECT
    (SELECT json_build_array(uptime_24h, uptime_90d) FROM migrations_app_healthsummary WHERE target = %(target)s),
    (
        SELECT json_agg(json_build_array(bucket, polls, failed, unknown, maintenance,
            switchyard_uptime(polls, failed, unknown, maintenance)))
        FROM migrations_app_healthday WHERE target = %(target)s AND bucket >= %(first_day)s AND bucket <= %(now)s
    ),
    (
        SELECT json_agg(json_build_array(at, was, state, reason) ORDER BY at DESC) FROM (
            SELECT at, was, state, reason FROM migrations_app_healthchange
            WHERE target = %(target)s ORDER BY at DESC LIMIT %(changes)s
        ) AS change
    ),
    (
        SELECT json_agg(json_build_array(polled_at, healthy, milliseconds, error) ORDER BY polled_at DESC) FROM (
            SELECT polled_at, healthy, milliseconds, error FROM migrations_app_healthsample
            WHERE target = %(target)s AND polled_at > %(kept)s AND polled_at < %(soon)s
            ORDER BY polled_at DESC LIMIT %(polls)s
        ) AS poll
    ),
    (SELECT json_agg(json_build_array(polled_at, error) ORDER BY polled_at DESC) FROM failed),
    (
        SELECT to_json(coalesce(ended_at, ends_at)) FROM migrations_app_maintenancewindow
        WHERE %(target)s = ANY(targets) AND starts_at <= %(now)s AND ends_at > %(now)s
            AND coalesce(ended_at, ends_at) > %(now)s
        ORDER BY coalesce(ended_at, ends_at) DESC LIMIT 1
    ),
    (SELECT count(*) FROM hours) = %(hours)s OR (SELECT count(*) FROM minutes) = %(minutes)s
"""


def lately(target: str, now: datetime) -> Lately:
    """One query. Polls are looked for in the days that they are kept, HEALTH_RAW_DAYS and one more."""
    parameters: dict[str, str | int | datetime] = {
        "target": target,
        "now": now,
        "kept": now - timedelta(days=settings.HEALTH_RAW_DAYS + 1),
        "first_day": day_of(now, DAYS - 1),
        "polls": POLLS,
        "changes": CHANGES,
        "failed": FAILED,
        "hours": HOURS,
        "minutes": MINUTES,
        "soon": now + timedelta(hours=1),  # clocks differ
        "unsummed": UNSUMMED,
    }
    with connection.cursor() as cursor:
        cursor.execute(_LATELY, parameters)
        uptimes, days, changes, polls, failed, planned, cut = (value or [] for value in cursor.fetchone())
    found = {_at(bucket): rest for bucket, *rest in days}
    runs = list(runs_of((_at(at), reason) for at, reason in failed))
    day, quarter = uptimes or (None, None)
    return Lately(
        uptime_24h=day,
        uptime_90d=quarter,
        bars=[Bar(day, *found.get(day, ())) for day in (day_of(now, back) for back in reversed(range(DAYS)))],
        changes=[
            HealthChange(target=target, at=_at(at), was=was, state=state, reason=reason)
            for at, was, state, reason in changes
        ],
        polls=[
            HealthSample(target=target, polled_at=_at(at), healthy=healthy, milliseconds=took, error=error)
            for at, healthy, took, error in polls
        ],
        runs=runs[:RUNS],
        maintenance_until=_at(str(planned)) if planned else None,
        more=bool(failed) and (bool(cut) or len(runs) > RUNS or len(failed) == FAILED),
    )


def runs_of(failed: Iterable[tuple[datetime, str]]) -> Iterable[Run]:
    """Newest first, as `failed` has them: when each poll was, and why it failed."""
    run: Run | None = None
    for at, reason in failed:
        if run is not None and run.reason == reason and run.first - at <= APART:
            run = Run(reason, run.times + 1, at, run.last)
            continue
        if run is not None:
            yield run
        run = Run(reason, 1, at, at)
    if run is not None:
        yield run


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
