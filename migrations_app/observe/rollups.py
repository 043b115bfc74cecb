"""Sums samples up by minute, hour and day, exactly, however late a sample or a worker comes.

A bucket is always computed anew from all that it is made of, and replaced: running twice changes nothing. A mark in the
database tells how far the samples are summed up; it moves in the transaction that stores the sums, so a worker may die
anywhere. Only whole minutes are summed up; the hour and the day that are running hold what there is of them so far.
"""
# ruff: noqa: S608  # statements are put together from names in this file, never from what somebody sent

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY
from migrations_app.models import RollupDue, RollupMark

from .partitions import Source
from .traffic import MOST
from .uptime import refresh_summaries

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# A sample of the last minute may be written, and be seen by nobody yet, when its minute is summed up. So the minutes
# before the mark are summed up again each time; what comes later than this is noted by a trigger (migration 0009).
LOOKBACK = timedelta(minutes=3)
STEP = timedelta(minutes=10)  # of samples, in one transaction: 300,000 polls with 500 targets polled each second
LONGEST_STEP = timedelta(hours=2)  # where there are few: as much as still ends within the time limit of a statement
QUICK = 0.1  # seconds; after a step that took less the next one is twice as long
DUE_AT_ONCE = 60  # minutes that had late samples, in one transaction
WITHIN = 5.0  # seconds that one call works; the next one goes on
ROLLUP_LOCKS: dict[Source, int] = {"health": 0x5357_5248, "traffic": 0x5357_5254}

_POSITIONS = range(1, len(NO_LATENCY) + 1)
_SUMMED = ", ".join(f"coalesce(sum(latency[{position}]), 0)" for position in _POSITIONS)
# What a minute and an hour of traffic have room for; only what a counter jumped by comes near it (observe.traffic).
_FITTING = ", ".join(f"least(coalesce(sum(latency[{position}]), 0), {MOST})" for position in _POSITIONS)
# width_bucket's ranges have their lower bound in them; the negative ones have their upper bound in them, as ours.
_POSITION = f"{len(LATENCY_BOUNDS)} - width_bucket(-milliseconds, %(bounds)s::float8[]) + 1"
_COUNTED = ", ".join(f"coalesce(sum(polls) FILTER (WHERE position = {position}), 0)" for position in _POSITIONS)
_BOUNDS = [-float(bound) for bound in reversed(LATENCY_BOUNDS)]

_HEALTH_COLUMNS = ("polls", "failed", "unknown", "maintenance", "total_us", "max_us", "latency")
_TRAFFIC_COLUMNS = ("requests", "errors", "client_errors", "retries", "failovers", "failed_failovers", "latency")


def _insert(table: str, keys: tuple[str, ...], columns: tuple[str, ...], rows: str) -> str:
    """An INSERT that replaces the rows that differ. Those that are the same already are not written again."""
    new = ", ".join(f"excluded.{column}" for column in columns)
    return f"""
        INSERT INTO {table} AS kept ({", ".join(keys + columns)}) {rows}
        ON CONFLICT ({", ".join(keys)}) DO UPDATE SET ({", ".join(columns)}) = ROW({new})
        WHERE ({", ".join(f"kept.{column}" for column in columns)}) IS DISTINCT FROM ({new})
    """


def _coarser(
    noun: str, spans: tuple[str, str], keys: tuple[str, ...], sums: str, columns: tuple[str, ...], *, summed: str
) -> str:
    """The rows of the coarser span of the two, from those of the finer one."""
    finer, coarser = spans
    keyed = ", ".join(keys)
    return _insert(
        f"migrations_app_{noun}{coarser}",
        (*keys, "bucket"),
        columns,
        f"""
        SELECT {keyed}, date_trunc('{coarser}', bucket, 'UTC') AS at, {sums}, ARRAY[{summed}]
        FROM migrations_app_{noun}{finer} WHERE bucket >= %(since)s AND bucket < %(until)s GROUP BY {keyed}, at
        """,
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """Where samples come from, and the statements that sum them up from %(since)s until %(until)s (not in it).

    `minutes_planned` is `minutes` where maintenance is planned within that time; "" where there is no such thing.
    """

    name: Source
    table: str
    column: str
    minutes: str
    hours: str
    days: str
    minutes_planned: str = ""


# What of the range is planned maintenance. Windows may overlap: each poll is held against the union of its target's.
_PLANNED = """
    migrations_app_maintenancewindow WHERE starts_at < %(until)s AND ends_at > %(since)s
    AND coalesce(ended_at, ends_at) > greatest(starts_at, %(since)s)
"""
_SPANS = f"""
    LEFT JOIN (
        SELECT target, range_agg(tstzrange(starts_at, coalesce(ended_at, ends_at))) AS planned
        FROM (SELECT unnest(targets) AS target, starts_at, ended_at, ends_at FROM {_PLANNED}) AS windows GROUP BY target
    ) AS spans USING (target)
"""


def _minutes_of_health(*, planned: bool) -> str:
    """A poll in planned maintenance is counted in neither `failed` nor `unknown`."""
    spans, maintenance, outside = ("", "0", "")
    if planned:
        spans, maintenance = _SPANS, "count(*) FILTER (WHERE planned @> polled_at)"
        outside = "AND (planned @> polled_at) IS NOT TRUE"
    return _insert(
        "migrations_app_healthminute",
        ("target", "bucket"),
        _HEALTH_COLUMNS,
        f"""
        SELECT target, at, sum(polls), sum(failed), sum(unknown), sum(maintenance), coalesce(sum(total_us), 0),
            max(max_us), ARRAY[{_COUNTED}]
        FROM (
            SELECT target, date_trunc('minute', polled_at, 'UTC') AS at, {_POSITION} AS position, count(*) AS polls,
                count(*) FILTER (WHERE NOT healthy {outside}) AS failed,
                count(*) FILTER (WHERE healthy IS NULL {outside}) AS unknown, {maintenance} AS maintenance,
                sum(round(milliseconds * 1000)::bigint) AS total_us, max(round(milliseconds * 1000)::int) AS max_us
            FROM migrations_app_healthsample {spans} WHERE polled_at >= %(since)s AND polled_at < %(until)s
            GROUP BY target, at, position
        ) AS counted GROUP BY target, at
        """,
    )


_HEALTH_SUMS = "sum(polls), sum(failed), sum(unknown), sum(maintenance), sum(total_us), max(max_us)"
_TRAFFIC_SUMS = "sum(requests), sum(errors), sum(client_errors), sum(retries), sum(failovers), sum(failed_failovers)"

HEALTH = _Source(
    "health",
    "migrations_app_healthsample",
    "polled_at",
    minutes=_minutes_of_health(planned=False),
    minutes_planned=_minutes_of_health(planned=True),
    hours=_coarser("health", ("minute", "hour"), ("target",), _HEALTH_SUMS, _HEALTH_COLUMNS, summed=_SUMMED),
    days=_coarser("health", ("hour", "day"), ("target",), _HEALTH_SUMS, _HEALTH_COLUMNS, summed=_SUMMED),
)
TRAFFIC = _Source(
    "traffic",
    "migrations_app_trafficsample",
    "read_at",
    minutes=_insert(
        "migrations_app_trafficminute",
        ("service", "side", "bucket"),
        _TRAFFIC_COLUMNS,
        f"""
        SELECT key, side, at, {_TRAFFIC_SUMS}, ARRAY[{_FITTING}]
        FROM (
            SELECT coalesce(service.key, '') AS key, side, date_trunc('minute', read_at, 'UTC') AS at,
                requests, errors, client_errors, retries, failovers, failed_failovers,
                CASE cardinality(latency) WHEN {len(NO_LATENCY)} THEN latency END AS latency
            FROM migrations_app_trafficsample LEFT JOIN migrations_app_service AS service ON service.id = service_id
            WHERE read_at >= %(since)s AND read_at < %(until)s
        ) AS sample GROUP BY key, side, at
        """,
    ),
    hours=_coarser(
        "traffic", ("minute", "hour"), ("service", "side"), _TRAFFIC_SUMS, _TRAFFIC_COLUMNS, summed=_FITTING
    ),
    days=_coarser("traffic", ("hour", "day"), ("service", "side"), _TRAFFIC_SUMS, _TRAFFIC_COLUMNS, summed=_SUMMED),
)


def roll_up(source: _Source, now: datetime, within: float = WITHIN) -> bool:
    """Sum up what has come until the last whole minute; False when it is not all done, or somebody else is at it.

    Works for about `within` seconds, in transactions of a second or so; the next call goes on where this one ended.
    """
    ends, length = time.monotonic() + within, STEP
    while True:
        begun = time.monotonic()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [ROLLUP_LOCKS[source.name]])
            if not cursor.fetchone()[0]:
                return False
            done = _step(source, cursor, _floor(now, MINUTE), length)
        if done or time.monotonic() > ends:
            return done
        if time.monotonic() - begun < QUICK:
            length = min(2 * length, LONGEST_STEP)


def keep_history(now: datetime) -> None:
    """Sum up what has come, and write what the overview shows anew when a minute more of health is known."""
    before = _done(HEALTH)
    roll_up(HEALTH, now)
    roll_up(TRAFFIC, now)
    if _done(HEALTH) != before:
        refresh_summaries(now)


def _step(source: _Source, cursor: CursorWrapper, until: datetime, length: timedelta) -> bool:
    """One transaction's worth: samples of this length. Whether that was all."""
    mark = RollupMark.objects.filter(source=source.name).first() or _first_mark(source, cursor)
    if mark is None:
        return True
    begin = mark.done_until
    if begin < until:
        end = min(until, begin + length)
        if begin + DAY <= until and not _any(source, cursor, begin, begin + DAY):
            end = begin + DAY
        else:
            _sum_up(source, cursor, max(begin - LOOKBACK, mark.complete_from or begin - LOOKBACK), end)
        mark.done_until = end
        mark.save()
        if end < until:
            return False
    return source is not HEALTH or _late_ones(source, cursor, mark)


def _done(source: _Source) -> datetime | None:
    return RollupMark.objects.filter(source=source.name).values_list("done_until", flat=True).first()


def _first_mark(source: _Source, cursor: CursorWrapper) -> RollupMark | None:
    cursor.execute(f"SELECT min({source.column}) FROM {source.table}")
    (oldest,) = cursor.fetchone()
    return RollupMark(source=source.name, done_until=_floor(oldest, MINUTE)) if oldest else None


def _any(source: _Source, cursor: CursorWrapper, since: datetime, until: datetime) -> bool:
    where = f"{source.column} >= %s AND {source.column} < %s"
    cursor.execute(f"SELECT EXISTS (SELECT FROM {source.table} WHERE {where})", [since, until])
    return bool(cursor.fetchone()[0])


def _late_ones(source: _Source, cursor: CursorWrapper, mark: RollupMark) -> bool:
    """Sum up again the minutes that samples came late for; whether none is left.

    Of those after the mark nothing has to be done now, and of those before `complete_from` nothing can be.
    """
    buckets = sorted(
        RollupDue.objects.order_by("bucket").values_list("bucket", flat=True).distinct()[:DUE_AT_ONCE],
    )
    RollupDue.objects.filter(bucket__in=buckets).delete()
    complete = [at for at in buckets if at < mark.done_until and (not mark.complete_from or at >= mark.complete_from)]
    for since, until in _together(complete):
        _sum_up(source, cursor, since, until)
    return len(buckets) < DUE_AT_ONCE


def _together(minutes: Iterable[datetime]) -> list[tuple[datetime, datetime]]:
    """Minutes in order, as few ranges as will do."""
    ranges: list[tuple[datetime, datetime]] = []
    for minute in minutes:
        if ranges and ranges[-1][1] == minute:
            ranges[-1] = (ranges[-1][0], minute + MINUTE)
        else:
            ranges.append((minute, minute + MINUTE))
    return ranges


def _sum_up(source: _Source, cursor: CursorWrapper, since: datetime, until: datetime) -> None:
    """The minutes of this range, and the hours and days that they are part of."""
    if since >= until:
        return
    last = until - timedelta(microseconds=1)
    minutes = source.minutes_planned if _maintained(source, cursor, since, until) else source.minutes
    cursor.execute(minutes, {"since": since, "until": until, "bounds": _BOUNDS})
    for statement, span in ((source.hours, HOUR), (source.days, DAY)):
        cursor.execute(statement, {"since": _floor(since, span), "until": _floor(last, span) + span})


def _maintained(source: _Source, cursor: CursorWrapper, since: datetime, until: datetime) -> bool:
    """Whether maintenance is planned within the range. As a rule none is: then no poll is held against any window.

    A window that is planned between this question and the next has not begun more than a moment ago: LOOKBACK has it.
    """
    if not source.minutes_planned:
        return False
    cursor.execute(f"SELECT EXISTS (SELECT FROM {_PLANNED})", {"since": since, "until": until})
    return bool(cursor.fetchone()[0])


def _floor(at: datetime, span: timedelta) -> datetime:
    return at - (at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) % span
