"""What pages read of the past. Each function is one query, and costs the same however much history there is."""
# ruff: noqa: S608  # statements are put together from names in this file, never from what somebody sent

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone

from migrations_app.choices import Health
from migrations_app.gates.percentile import percentile
from migrations_app.gateways.base import NO_LATENCY, Side
from migrations_app.models import HealthChange
from migrations_app.models.health import trusted_for

from .uptime import DAYS, day_of

MOST_ROWS = 2200  # of one target that a chart is made of: a day of minutes, three months of hours
_SPANS = (("minute", timedelta(minutes=1)), ("hour", timedelta(hours=1)), ("day", timedelta(days=1)))
_SUMMED = ", ".join(f"sum(latency[{position}])" for position in range(1, len(NO_LATENCY) + 1))

# What a series is of: the rollups, what names one of them, and its parts with what is counted of each.
_POLLS = ("health", "target", "'' AS part, sum(polls), sum(failed)")
_REQUESTS = (
    "traffic",
    "service",
    "side AS part, sum(requests), sum(errors), sum(client_errors), sum(retries), sum(failovers), sum(failed_failovers)",
)


@dataclass(frozen=True, slots=True)
class Point:
    """What came from `at` on, for `step`: polls of a target, or requests to one side of a service.

    `errors` are polls that failed, or answers of 5xx and requests that got none. `p50` and `p95` are milliseconds, by
    gateways.base.LATENCY_BOUNDS, None when nothing was answered. The last four are of requests alone
    (gateways.base.SideTraffic).
    """

    at: datetime
    step: timedelta
    count: int
    errors: int
    p50: float | None
    p95: float | None
    client_errors: int = 0
    retries: int = 0
    failovers: int = 0
    failed_failovers: int = 0


@dataclass(frozen=True, slots=True)
class Bar:
    """One day, in UTC, of one target.

    `uptime` is hundredths of a per cent, rounded down, None when nobody could tell.
    """

    day: datetime
    polls: int = 0
    failed: int = 0
    unknown: int = 0
    maintenance: int = 0
    uptime: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """One target on the overview. The fields after `milliseconds` are models.HealthSummary's; empty before its first.

    A state that no poll has confirmed for HealthState.trusted_for is unknown, as gates.rows.current_health has it.
    """

    target: str
    state: Health
    since: datetime | None
    polled_at: datetime | None
    error: str
    milliseconds: float | None
    refreshed_at: datetime | None
    uptime_24h: int | None
    uptime_90d: int | None
    sparkline: tuple[float | None, ...]
    days: tuple[int | None, ...]


def latency_series(target: str, side: Side | None, since: datetime, until: datetime, points: int = 300) -> list[Point]:
    """In order of time, at most about so many points; where nothing came there is none.

    `target`'s polls, or, with a `side`, what `traffic_series` has of it. Read from the finest rollup that is kept that
    far back and has at most MOST_ROWS rows of the range.
    """
    if side is not None:
        return traffic_series(target, since, until, points)[side]
    return _series(_POLLS, target, since, until, points).get("", [])


def traffic_series(service: str, since: datetime, until: datetime, points: int = 300) -> dict[Side, list[Point]]:
    """As `latency_series`, the requests that each side of the service of that key was sent, in one question.

    The key "" is what no route matches.
    """
    found = _series(_REQUESTS, service, since, until, points)
    return {side: found.get(side.value, []) for side in Side}


def _series(
    of: tuple[str, str, str], target: str, since: datetime, until: datetime, points: int
) -> dict[str, list[Point]]:
    """Part -> its points."""
    noun, key, counted = of
    name, span = _rollup_for(since, until)
    step = max(span, -(-(until - since) // points // span) * span)
    found: dict[str, list[Point]] = defaultdict(list)
    parameters: list[Any] = [step, target, _floor(since, step), until]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT date_bin(%s, bucket, '2000-01-01 00:00+00') AS at, {counted}, ARRAY[{_SUMMED}]
            FROM migrations_app_{noun}{name} WHERE {key} = %s AND bucket >= %s AND bucket < %s
            GROUP BY at, part ORDER BY at
            """,
            parameters,
        )
        for at, part, count, errors, *more, latency in cursor.fetchall():
            found[part].append(
                Point(
                    at.astimezone(UTC),
                    step,
                    int(count),
                    int(errors),
                    *_percentiles(tuple(int(n) for n in latency)),
                    *(int(n) for n in more),
                )
            )
    return found


def bars(target: str, days: int = DAYS, now: datetime | None = None) -> list[Bar]:
    """The last days, today last. A day without polls is in it too."""
    now = now or timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT bucket, polls, failed, unknown, maintenance, switchyard_uptime(polls, failed, unknown, maintenance)
            FROM migrations_app_healthday WHERE target = %s AND bucket >= %s AND bucket <= %s
            """,
            [target, day_of(now, days - 1), now],
        )
        found = {row[0]: row[1:] for row in cursor.fetchall()}
    return [Bar(day, *found.get(day, ())) for day in (day_of(now, back) for back in reversed(range(days)))]


def changes(target: str, limit: int = 20) -> list[HealthChange]:
    """The newest changes of state first, each with its reason."""
    return list(HealthChange.objects.filter(target=target).order_by("-at")[:limit])


def summaries(
    now: datetime | None = None, targets: Collection[str] | None = None, *, days: bool = True
) -> dict[str, Summary]:
    """Target -> what the overview shows of it, in order of their names.

    Of every target that was ever polled, or of these alone: most of the cost is in the 138 numbers of each. 90 of them
    are its `days`, empty when they are not asked for.
    """
    now = now or timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT target, state, since, polled_at, coalesce(error, ''), milliseconds, stale_after,
                refreshed_at, uptime_24h, uptime_90d, sparkline, CASE WHEN %(days)s THEN days END
            FROM migrations_app_healthstate FULL JOIN migrations_app_healthsummary USING (target)
            WHERE %(targets)s::text[] IS NULL OR target = ANY(%(targets)s) ORDER BY target
            """,
            {"targets": None if targets is None else list(targets), "days": days},
        )
        rows = cursor.fetchall()
    found = {}
    for target, state, since, polled_at, error, milliseconds, stale_after, *summary in rows:
        refreshed_at, day, quarter, line, of_days = summary
        known = polled_at is not None and abs(now - polled_at) <= trusted_for(stale_after)
        found[target] = Summary(
            target,
            Health(state) if known else Health.UNKNOWN,
            since,
            polled_at,
            error,
            milliseconds,
            refreshed_at,
            day,
            quarter,
            tuple(line or ()),
            tuple(of_days or ()),
        )
    return found


def _rollup_for(since: datetime, until: datetime) -> tuple[str, timedelta]:
    kept = {"minute": timedelta(days=settings.MINUTE_DAYS), "hour": timedelta(days=settings.HOUR_DAYS)}
    now = timezone.now()
    for name, span in _SPANS[:-1]:
        if (until - since) / span <= MOST_ROWS and since >= now - kept[name]:
            return name, span
    return _SPANS[-1]


def _percentiles(latency: tuple[int, ...]) -> tuple[float | None, float | None]:
    return (percentile(latency, 0.5), percentile(latency, 0.95)) if sum(latency) else (None, None)


def _floor(at: datetime, step: timedelta) -> datetime:
    """As date_bin has it."""
    return at - (at - datetime(2000, 1, 1, tzinfo=UTC)) % step
