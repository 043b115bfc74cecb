"""Where dates lie on the timeline's axis, in per cent of the plan's length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from .board import WeekRow


@dataclass(frozen=True, slots=True)
class Bar:
    """A week on the axis. `actual` is where it has really run, from the first enable until now, if it has."""

    x: float
    width: float
    actual: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    first: date
    last: date
    today: float | None  # None when today lies outside of the plan
    note: str
    bars: dict[int, Bar]


def axis_of(weeks: Sequence[WeekRow], now: datetime, zone: ZoneInfo) -> Axis | None:
    """The axis over all weeks. None for a plan without weeks."""
    if not weeks:
        return None
    first = min(row.week.planned_start for row in weeks)
    last = max(row.week.planned_end for row in weeks)
    days = (last - first).days + 1
    today = now.astimezone(zone).date()

    def at(moment: datetime) -> float:
        start = datetime(first.year, first.month, first.day, tzinfo=zone)
        return _clip((moment - start) / timedelta(days=days) * 100)

    bars = {}
    for row in weeks:
        x = (row.week.planned_start - first).days / days * 100
        width = ((row.week.planned_end - row.week.planned_start).days + 1) / days * 100
        actual = None
        if row.any_on and row.week.started_at and row.week.started_at.astimezone(zone).date() >= first:
            begun = at(row.week.started_at)
            actual = (begun, max(round(at(now) - begun, 2), 1.0))
        bars[row.week.number] = Bar(round(x, 2), round(width, 2), actual)
    inside = first <= today <= last
    return Axis(first, last, at(now) if inside else None, _note(today, first, last), bars)


def _note(today: date, first: date, last: date) -> str:
    if today < first:
        return f"starts in {_days((first - today).days)}"
    return f"planned end was {_days((today - last).days)} ago" if today > last else ""


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _clip(value: float) -> float:
    return round(min(100.0, max(0.0, value)), 2)
