"""`downtime`: a week's services did not work for those who called them for less time than its target allows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from migrations_app.choices import CheckState
from migrations_app.durations import to_the_second
from migrations_app.gates.parameters import Downtime
from migrations_app.gates.seen import Finding
from migrations_app.models import DowntimeClock, Week

from .probe import Scene


def downtime(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`week: 3` (the line's own unless told), `under: 5m` (the week's own target unless told), `not_known: unknown`.

    Real time: a time scale shortens neither. Held while also what is not known could not take it to the limit.
    """
    asked = Downtime.of(parameters)
    number = asked.week or scene.week
    week = Week.objects.filter(plan=scene.plan, number=number).select_related("downtime_clock").first()
    under = asked.under if asked.under is not None or week is None else week.downtime_under
    limit = words_of(under)
    if week is None:
        return Finding(CheckState.UNKNOWN, f"the plan has no week {number}", limit, "Name another in the plan.")
    if under is None:
        act = f"Give week {number} a 'downtime' in the plan, or the check an 'under'."
        return Finding(CheckState.UNKNOWN, "there is no target", limit, act)
    clock: DowntimeClock | None = getattr(week, "downtime_clock", None)
    if week.started_at is None or clock is None:
        return Finding(CheckState.NOT_HELD, f"week {number} has not begun", limit, f"Start week {number}.")
    return _judge(asked, clock, number, under, scene.now)


def _judge(asked: Downtime, clock: DowntimeClock, number: int, under: timedelta, now: datetime) -> Finding:
    limit, not_known = words_of(under), clock.not_known_at(now)
    value = f"{to_the_second(clock.down)} down" if clock.down else "none"
    value += f", {to_the_second(not_known)} not known" if not_known else ""
    counted = f"of {clock.requests:,} requests {clock.failed:,} failed" if clock.requests else "no request was counted"
    value += f", {counted}"
    if not _within(clock.down, under):
        act = f"What is past stays: have this overridden, or roll week {number} back and mend it."
        return Finding(CheckState.NOT_HELD, value, limit, act)
    if not clock.requests:
        return Finding(CheckState.UNKNOWN, value, limit, "Wait for traffic: without any nothing can fail.")
    if asked.not_known == "unknown" and not _within(clock.down + not_known, under):
        act = "Look at the gateway's own log for that time, and have this overridden if all was well."
        return Finding(CheckState.UNKNOWN, value, limit, act)
    return Finding(CheckState.HELD, value, limit)


def words_of(under: timedelta | None) -> str:
    """`under 5 min`, `none`."""
    if under is None:
        return "no target"
    return f"under {to_the_second(under)}" if under else "none"


def _within(length: timedelta, under: timedelta) -> bool:
    return length < under if under else not length
