"""When a freeze is on. Pure, apart from the row that it reads."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from migrations_app.models import Freeze

Span = tuple[datetime, datetime]


def span_at(freeze: Freeze, now: datetime) -> Span | None:
    """Begin and end, in UTC, of the freeze that is on at `now`, or None. A lifted one never is.

    A recurring one is told by the clock on the wall of its time zone: it begins when that clock first shows `from_time`
    and ends once it shows less than `until_time` no more, so on the nights when the clock is put forward or back it is
    shorter or longer. A time that is leapt over counts as the moment of the leap. Whole days that follow on each other
    are one span, by six days to either side at most.
    """
    if freeze.lifted_at is not None:
        return None
    if freeze.starts_at is not None and freeze.ends_at is not None:
        return (freeze.starts_at, freeze.ends_at) if freeze.starts_at <= now < freeze.ends_at else None
    if freeze.from_time is None or freeze.until_time is None:
        return None
    now, today = now.astimezone(UTC), now.astimezone(ZoneInfo(freeze.timezone)).date()
    # Tomorrow too: a clock that is put back just after midnight shows the day before once more.
    for day in (today + timedelta(days=step) for step in (-1, 0, 1)):
        span = _span(freeze, day)
        if span is not None and span[0] <= now < span[1]:
            return _with_days_beside(freeze, day, span)
    return None


def _span(freeze: Freeze, day: date) -> Span | None:
    """That of a recurring freeze which begins on this day."""
    begin, until = freeze.from_time, freeze.until_time
    if begin is None or until is None or str(day.isoweekday()) not in freeze.weekdays:
        return None
    zone = ZoneInfo(freeze.timezone)
    last = day if until > begin else day + timedelta(days=1)
    return _instant(day, begin, zone, last=False), _instant(last, until, zone, last=True)


def _with_days_beside(freeze: Freeze, day: date, span: Span) -> Span:
    """A freeze of whole days goes on for as long as the next day is one too."""
    begin, end = span
    if freeze.from_time != freeze.until_time:
        return span
    for step in (-1, 1):
        for distance in range(1, 7):
            beside = _span(freeze, day + timedelta(days=step * distance))
            if beside is None:
                break
            begin, end = min(begin, beside[0]), max(end, beside[1])
    return begin, end


def _instant(day: date, at: time, zone: ZoneInfo, *, last: bool) -> datetime:
    """When the zone's clock first shows this, in UTC, or when it shows less no more; the leap, if it leaps over it."""
    shown = datetime.combine(day, at, zone)
    by_offset_before, by_offset_after = (shown.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if by_offset_before <= by_offset_after:
        # A clock that is put back to this very time showed nothing earlier since it showed it first.
        just_before = shown - timedelta(seconds=1)
        twice = just_before.utcoffset() != just_before.replace(fold=1).utcoffset()
        return by_offset_after if last and twice else by_offset_before
    # The leap is between the two, on a full second: the first one that has the new offset.
    offset = by_offset_before.astimezone(zone).utcoffset()
    low, high = math.floor(by_offset_after.timestamp()), math.ceil(by_offset_before.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        leapt = datetime.fromtimestamp(middle, zone).utcoffset() == offset
        low, high = (low, middle) if leapt else (middle, high)
    return datetime.fromtimestamp(high, UTC)
