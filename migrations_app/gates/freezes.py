"""When a freeze is on. Pure, apart from the row that it reads."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from migrations_app.models import Freeze


def span_at(freeze: Freeze, now: datetime) -> tuple[datetime, datetime] | None:
    """Begin and end of the freeze that is on at `now`, or None. A lifted one never is.

    A recurring one is told by the clock on the wall of its time zone: on the days when that clock is put forward or
    back it is an hour shorter or longer.
    """
    if freeze.lifted_at is not None:
        return None
    if freeze.starts_at is not None and freeze.ends_at is not None:
        return (freeze.starts_at, freeze.ends_at) if freeze.starts_at <= now < freeze.ends_at else None
    if freeze.from_time is None or freeze.until_time is None:
        return None
    zone = ZoneInfo(freeze.timezone)
    today = now.astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        if str(day.isoweekday()) not in freeze.weekdays:
            continue
        begin = datetime.combine(day, freeze.from_time, zone)
        last = day if freeze.until_time > freeze.from_time else day + timedelta(days=1)
        end = datetime.combine(last, freeze.until_time, zone)
        # Compared as instants: two times of one zone would be compared by the wall clock.
        if begin.timestamp() <= now.timestamp() < end.timestamp():
            return begin, end
    return None
