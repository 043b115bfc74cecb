"""What a service's page shows of the past: response times and errors of both sides, 90 days, and what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection

from migrations_app.choices import AuditKind
from migrations_app.gateways.base import MONOLITH_WEIGHT, Side
from migrations_app.models import Flag, HealthChange
from migrations_app.observe import history
from migrations_app.observe.history import Bar, Point
from migrations_app.observe.lately import Lately
from migrations_app.observe.uptime import in_per_cent

from .charts import Chart, Column, Event, Series, draw

RANGES = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}
RANGE_WORDS = {"1h": "hour", "6h": "6 hours", "24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
POINTS = 180  # as many as a phone can tell apart
# The kinds of events that move a flag, and how the page calls them.
MOVES = {
    AuditKind.WEEK_ENABLED: "Enabled with its week",
    AuditKind.WEEK_ROLLED_BACK: "Rolled back with its week",
    AuditKind.EVERYTHING_ROLLED_BACK: "Rolled back with everything",
    AuditKind.FLAG_ENABLED: "Enabled",
    AuditKind.FLAG_WEIGHT_SET: "Weight set",
    AuditKind.ROLLOUT_STARTED: "Rollout started",
    AuditKind.ROLLOUT_STEPPED: "Rollout step",
    AuditKind.FLAG_ROLLED_BACK: "Rolled back",
}
MOST_MOVES = 30  # newest first; a chart with more of them could not be read
NAMES = {Side.SERVICE: "new side", Side.MONOLITH: "old side"}
KEYS = {Side.SERVICE: "new", Side.MONOLITH: "old"}
DAY_GRADES = ((10_000, "whole"), (9_900, "most"), (0, "less"))  # hundredths of a per cent, at least


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if 0 < value < 10 and value % 1 else f"{value:,.0f} ms"


def _per_cent(value: float) -> str:
    return f"{value:.2f} %" if 0 < value < 10 and value % 1 else f"{value:.0f} %"


def _error_share(point: Point) -> float | None:
    return 100 * point.errors / point.count if point.count else None


class _Frame(NamedTuple):
    """What the charts of a page have in common."""

    since: datetime
    until: datetime
    zone: tzinfo
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class _Quantity:
    """What a chart is of: how it is taken from a point, and put in words."""

    key: str
    title: str
    value_of: Callable[[Point], float | None]
    say: Callable[[float], str]


LATENCY = _Quantity("latency", "Response time, p95", lambda point: point.p95, _ms)
ERRORS = _Quantity("errors", "Requests that failed", _error_share, _per_cent)
# Beside the failures in the table, where there are any.
COUNTS: dict[str, Callable[[Point], int]] = {
    "4xx": lambda point: point.client_errors,
    "sent twice": lambda point: point.retries,
    "failed over to the monolith": lambda point: point.failovers,
    "failed on the monolith too": lambda point: point.failed_failovers,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with what is said of it. `key` is unique on the page; `of` follows the names of lines in the table."""

    key: str
    title: str
    summary: str
    chart: Chart
    of: str = ""


@dataclass(frozen=True, slots=True)
class DayBar:
    """One of the 90 days. `x` in units of the drawing, one for each day; `height` of 10."""

    x: int
    grade: str
    height: int
    words: str

    @property
    def y(self) -> int:
        return 10 - self.height


@dataclass(frozen=True, slots=True)
class Moved:
    """One move of the flag. Weights are per cent."""

    event: int
    at: datetime
    words: str
    before: int
    after: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Past:
    """`range` is a key of RANGES. Uptimes are in words: "99.98 %"."""

    range: str
    zone: str
    figures: tuple[Figure, ...]
    moves: tuple[Moved, ...]
    days: tuple[DayBar, ...]
    uptime_24h: str
    uptime_90d: str
    days_summary: str
    bad_days: tuple[DayBar, ...]
    planned_days: tuple[DayBar, ...]  # with planned maintenance
    changes: tuple[HealthChange, ...]

    @property
    def ranges(self) -> list[str]:
        return list(RANGES)

    @property
    def range_words(self) -> str:
        return RANGE_WORDS[self.range]


def past_of(flag: Flag, week: int, chosen: str, *, zone: ZoneInfo, now: datetime, lately: Lately) -> Past:
    """Two queries, however long the past is. An unknown range is the shortest one."""
    chosen = chosen if chosen in RANGES else next(iter(RANGES))
    since, service = now - RANGES[chosen], flag.service
    sides = [Side.SERVICE] if service.new_side_only else list(reversed(Side))
    both = history.traffic_series(service.key, since, now, POINTS)
    points = {side: both[side] for side in sides}
    moves = moves_of(flag, week, since)
    frame = _Frame(since, now, zone, [_event(move) for move in moves])
    bars = lately.bars
    days = tuple(_day(index, bar) for index, bar in enumerate(bars))
    return Past(
        range=chosen,
        zone=str(zone),
        figures=(
            _figure(LATENCY, points, frame),
            _failures(points, frame),
        ),
        moves=tuple(moves),
        days=days,
        uptime_24h=in_per_cent(lately.uptime_24h),
        uptime_90d=in_per_cent(lately.uptime_90d),
        days_summary=_days_summary(bars),
        bad_days=tuple(day for day, bar in zip(days, bars, strict=True) if bar.failed)[::-1],
        planned_days=tuple(day for day, bar in zip(days, bars, strict=True) if bar.maintenance)[::-1],
        changes=tuple(lately.changes),
    )


# As expressions of the ORM it takes longer to put in words than to answer.
_MOVES = """
    SELECT id, at, kind, (before -> %(flag)s)::int, (after -> %(flag)s)::int, actor, reason
    FROM migrations_app_auditevent
    WHERE week_number = %(week)s AND kind = ANY(%(kinds)s) AND at >= %(since)s AND after ? %(flag)s
    ORDER BY id DESC LIMIT %(most)s
"""


def moves_of(flag: Flag, week: int, since: datetime) -> list[Moved]:
    """What moved this flag, newest first."""
    kinds = [kind.value for kind in MOVES]
    with connection.cursor() as cursor:
        cursor.execute(_MOVES, {"week": week, "kinds": kinds, "flag": flag.key, "since": since, "most": MOST_MOVES})
        return [
            Moved(event, at, MOVES[AuditKind(kind)], before or MONOLITH_WEIGHT, after, actor, reason)
            for event, at, kind, before, after, actor, reason in cursor.fetchall()
        ]


def _event(move: Moved) -> Event:
    key = "up" if move.after > move.before else "back"
    return Event(move.at, key, f"{move.before} % to {move.after} % by {move.actor}")


def _figure(
    quantity: _Quantity, points: Mapping[Side, Sequence[Point]], frame: _Frame, columns: Sequence[Column] = ()
) -> Figure:
    series = [
        Series(KEYS[side], NAMES[side], [(point.at, quantity.value_of(point)) for point in found])
        for side, found in points.items()
    ]
    step = max((point.step for found in points.values() for point in found), default=timedelta(minutes=1))
    since, until, zone, events = frame
    chart = draw(
        series, since=since, until=until, step=step, say=quantity.say, zone=zone, events=events, columns=columns
    )
    return Figure(quantity.key, quantity.title, summary_of(series, quantity.say), chart)


def _failures(points: Mapping[Side, Sequence[Point]], frame: _Frame) -> Figure:
    """What failed, and what else went other than it should, in numbers."""
    columns = [
        Column(f"{NAMES[side]}, {name}", [(point.at, f"{count_of(point):,}") for point in found])
        for side, found in points.items()
        for name, count_of in COUNTS.items()
        if any(count_of(point) for point in found)
    ]
    figure = _figure(ERRORS, points, frame, columns)
    told = [figure.summary, *filter(None, (outcome_of(side, found) for side, found in points.items()))]
    return replace(figure, summary=" ".join(told), of=", 5xx or no answer")


def outcome_of(side: Side, points: Sequence[Point]) -> str:
    """What came of the requests to one side, in a sentence; "" when all went as it should, or there were none."""
    requests, failed, *others = (
        sum(count_of(point) for point in points)
        for count_of in (lambda point: point.count, lambda point: point.errors, *COUNTS.values())
    )
    if not any((failed, *others)):
        return ""
    refused, again, over, over_failed = others
    sentence = f"Of {_requests(requests)} to the {NAMES[side]} {failed:,} got 5xx or no answer"
    if over:
        sentence += f", of which the monolith answered {over:,} while failing over"
        sentence += f" ({over_failed:,} of them no better)" if over_failed else ""
    sentence += f"; {refused:,} got 4xx"
    if again:
        sentence += f"; {again:,} {'was' if again == 1 else 'were'} sent twice"
    return f"{sentence}."


def _requests(number: int) -> str:
    return f"{number:,} request{'s' if number != 1 else ''}"


def summary_of(series: Sequence[Series], say: Callable[[float], str]) -> str:
    """What the lines show, in words: the last value and the highest of each."""
    told = []
    for one in series:
        values = [value for _, value in one.points if value is not None]
        if values:
            told.append(f"{one.name}: {say(values[-1])} last, {say(max(values))} at most")
        else:
            told.append(f"{one.name}: nothing summed up")
    return "; ".join(told).capitalize() + "."


def _day(index: int, bar: Bar) -> DayBar:
    named = f"{bar.day.day} {bar.day:%b}"
    if bar.polls and bar.maintenance == bar.polls:
        return DayBar(index, "planned", 10, f"{named}: all {bar.polls:,} polls in planned maintenance")
    parts = [(bar.failed, "failed"), (bar.maintenance, "in planned maintenance")]
    counted = ", ".join(f"{count:,} of {bar.polls:,} polls {what}" for count, what in parts if count)
    counted = f", {counted}" if counted else ""
    if bar.uptime is None:
        return DayBar(index, "none", 1, f"{named}: {'nobody could tell' if bar.polls else 'not polled'}{counted}")
    uptime = bar.uptime
    grade = next(name for least, name in DAY_GRADES if uptime >= least)
    return DayBar(index, grade, {"whole": 10, "most": 7, "less": 4}[grade], f"{named}: {in_per_cent(uptime)}{counted}")


def _days_summary(bars: Sequence[Bar]) -> str:
    polled = [bar for bar in bars if bar.polls]
    if not polled:
        return "Nothing is summed up yet; a minute is, once it is over."
    bad = sum(bool(bar.failed) for bar in polled)
    days = f"{len(polled)} day{'s' if len(polled) != 1 else ''}"
    planned = sum(bool(bar.maintenance) for bar in polled)
    return f"Polled on {days}, with failures on {bad}{f' and planned maintenance on {planned}' if planned else ''}."
