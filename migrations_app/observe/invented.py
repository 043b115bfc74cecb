"""An invented past, as if every target had been polled each second: for measuring pages, and for demonstrations.

Minutes, hours and days agree with each other. Nothing of it is computed anew later: `complete_from` is now.
"""
# ruff: noqa: S608  # statements are put together from names in this file, never from what somebody sent

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from migrations_app.models import HealthDay, RollupMark

from .partitions import drop_old, make_ahead
from .rollups import DAY, HEALTH, MINUTE, TRAFFIC
from .uptime import refresh_summaries

SHAPES = 64  # different minutes of a target; which one a minute has is a hash of the two
RAW_MINUTES = 10  # of single polls and readings, up to now

# What a minute of a target looks like: sixty polls, most of them about a time of its own; the first shape has failures,
# and another a poll that nobody could tell of. Requests are twice as many, a little slower; some shapes have answers of
# 4xx and requests that were sent again, and where the new side fails, half of it is answered by the monolith.
_SHAPES = f"""
CREATE TEMPORARY TABLE invented AS
SELECT target, number, shape, base,
    CASE shape WHEN 0 THEN 2 ELSE 0 END AS failed, CASE shape WHEN 1 THEN 1 ELSE 0 END AS unknown,
    ARRAY(SELECT CASE position WHEN base THEN 40 - shape %% 7 WHEN base + 1 THEN 15 + shape %% 7 WHEN base + 3 THEN 5
        ELSE 0 END FROM generate_series(1, 23) AS position) AS latency,
    (900 + 2000 * base + 300 * (shape %% 7)) AS mean_us
FROM (
    SELECT target, number, 2 + number %% 12 AS base
    FROM unnest(%(targets)s::text[]) WITH ORDINALITY AS one (target, number)
) AS targets CROSS JOIN generate_series(0, {SHAPES - 1}) AS shape
"""
# Joined by what can be hashed: to look through all the shapes for each minute would take as many times as long.
_PICKED = f"""
CROSS JOIN (SELECT DISTINCT number FROM invented) AS one
JOIN invented ON invented.number = one.number
    AND shape = abs(hashint4((extract(epoch FROM at) / 60)::int + one.number::int * 7919)::bigint) %% {SHAPES}
"""


# The monolith has no sides; what no route matches goes there.
_SERVED = "(target <> 'monolith' OR side = 'monolith')"


def _health(table: str, step: str, times: int) -> str:
    return f"""
        INSERT INTO {table} (target, bucket, polls, failed, unknown, maintenance, total_us, max_us, latency)
        SELECT target, at, {60 * times}, failed * {times}, unknown * {times}, 0, mean_us * {60 * times}, mean_us * 4,
            {_times(times)}
        FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz - interval '{step}', '{step}') AS at
        {_PICKED} ORDER BY at, target
    """


def _traffic(table: str, step: str, times: int) -> str:
    return f"""
        INSERT INTO {table} (service, side, bucket, requests, errors, client_errors, retries, failovers, latency)
        SELECT CASE target WHEN 'monolith' THEN '' ELSE target END, side, at,
            {120 * times}, failed * {times}, shape %% 3 * {times}, failed * {times},
            CASE side WHEN 'service' THEN failed / 2 * {times} ELSE 0 END, {_times(2 * times)}
        FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz - interval '{step}', '{step}') AS at
        {_PICKED} CROSS JOIN (VALUES ('monolith'), ('service')) AS sides (side)
        WHERE {_SERVED} ORDER BY at, target, side
    """


def _times(factor: int) -> str:
    """The answers of so many minutes."""
    return "latency" if factor == 1 else "ARRAY[" + ", ".join(f"latency[{n}] * {factor}" for n in range(1, 24)) + "]"


_RAW = f"""
INSERT INTO migrations_app_healthsample
    (target, polled_at, healthy, status_code, connect_ms, first_byte_ms, milliseconds, error)
SELECT target, at + one.number * interval '1.9 milliseconds', true, 200, 0, mean_us / 1100.0, mean_us / 1000.0, ''
FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz - interval '1 second', '1 second') AS at
{_PICKED} ORDER BY at, target
"""
_RAW_TRAFFIC = f"""
INSERT INTO migrations_app_trafficsample (service_id, side, read_at, requests, errors, client_errors, latency)
SELECT service.id, side, at, 2, 0, (extract(second FROM at) = 0)::int, ARRAY[0, 1, 1] || array_fill(0, ARRAY[20])
FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz - interval '1 second', '1 second') AS at
{_PICKED} LEFT JOIN migrations_app_service AS service ON service.key = target
CROSS JOIN (VALUES ('monolith'), ('service')) AS sides (side)
WHERE {_SERVED} AND (service.id IS NOT NULL OR target = 'monolith') ORDER BY at
"""
_NO_READINGS = "DELETE FROM migrations_app_trafficreading"
_READINGS = """
INSERT INTO migrations_app_trafficreading (read_at, services, sides, requests, errors, failovers)
SELECT read_at, array_agg(service_id ORDER BY service_id, side), array_agg(side ORDER BY service_id, side),
    array_agg(requests ORDER BY service_id, side), array_agg(errors ORDER BY service_id, side),
    array_agg(failovers ORDER BY service_id, side)
FROM (
    SELECT read_at, service_id, side, sum(requests) OVER so_far AS requests, sum(errors) OVER so_far AS errors,
        sum(failovers) OVER so_far AS failovers
    FROM migrations_app_trafficsample
    WHERE read_at >= greatest(%(since)s, %(until)s - interval '2 minutes') AND read_at < %(until)s
    WINDOW so_far AS (PARTITION BY service_id, side ORDER BY read_at)
) AS sums GROUP BY read_at
"""
_CHANGES = """
INSERT INTO migrations_app_healthchange (target, at, was, state, reason)
SELECT target, at + number * interval '7 minutes' + seconds * interval '1 second', was, state, reason
FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz - interval '6 days', '5 days') AS at
CROSS JOIN (SELECT DISTINCT target, number %% 100 AS number FROM invented) AS targets
CROSS JOIN (VALUES (0, 'healthy', 'unhealthy', 'no connection: refused'), (90, 'unhealthy', 'healthy', ''))
    AS changes (seconds, was, state, reason)
ORDER BY 2
"""
_STATES = """
INSERT INTO migrations_app_healthstate (target, state, since, against, polled_at, milliseconds, error)
SELECT DISTINCT target, 'healthy', %(since)s, 0, %(until)s, 5.0, '' FROM invented ON CONFLICT (target) DO NOTHING
"""


class HasHistory(Exception):
    """The database has a history already; invented rows would lie among true ones."""


def invent(
    targets: Sequence[str], days: int, minute_days: int, now: datetime, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Write `days` of history up to the minute of `now`, by the minute for the last `minute_days`. Raises HasHistory.

    `targets` are the monolith and keys of services. One transaction a day; `tell` is called with what is done.
    """
    if RollupMark.objects.exists() or HealthDay.objects.exists():
        raise HasHistory
    until = now.astimezone(UTC).replace(second=0, microsecond=0)
    first = (until - timedelta(days=days)).replace(hour=0, minute=0)
    by_minute = max(first, (until - timedelta(days=min(minute_days, settings.MINUTE_DAYS))).replace(hour=0, minute=0))
    day = first
    while day < until:
        make_ahead(day)
        _day(targets, day, min(day + DAY, until), by_minute=day >= by_minute)
        day += DAY
        tell(f"{(day - first) // DAY} of {(until - first) // DAY + 1} days")
    since = max(first, until - RAW_MINUTES * MINUTE)
    add_samples(targets, since, until)
    _run(targets, [_CHANGES, _STATES], first, until)
    for source in (HEALTH, TRAFFIC):
        RollupMark.objects.create(source=source.name, done_until=until, complete_from=until)
    drop_old(until)  # the partitions of days of which there are no minutes: each takes its time when a query is planned
    refresh_summaries(until)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET LOCAL lock_timeout = '30s'")  # PostgreSQL may be at a table by itself after so many rows
        cursor.execute("ANALYZE")


def add_samples(targets: Sequence[str], since: datetime, until: datetime) -> None:
    """Single polls and readings of each second, for the rollups to sum up, and the running sums of the readings."""
    _run(targets, [_RAW, _RAW_TRAFFIC, _NO_READINGS, _READINGS], since, until)


def _day(targets: Sequence[str], since: datetime, until: datetime, *, by_minute: bool) -> None:
    """A day that has not ended is by the minute in any case, for its last hour has not either."""
    if by_minute or until - since < DAY:
        finest = [
            _health("migrations_app_healthminute", "1 minute", 1),
            _traffic("migrations_app_trafficminute", "1 minute", 1),
            HEALTH.hours,
            TRAFFIC.hours,
        ]
    else:
        finest = [
            _health("migrations_app_healthhour", "1 hour", 60),
            _traffic("migrations_app_traffichour", "1 hour", 60),
        ]
    _run(targets, [*finest, HEALTH.days, TRAFFIC.days], since, until)


def _run(targets: Sequence[str], statements: Sequence[str], since: datetime, until: datetime) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(_SHAPES, {"targets": list(targets)})
        for statement in statements:
            cursor.execute(statement, {"since": since, "until": until})
        cursor.execute("DROP TABLE invented")
