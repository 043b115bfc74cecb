"""Uptime of a product area: day by day, that of the side which served it then. docs/history.md has the rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT

from .moves import Move
from .uptime import DAYS, day_of

DAY = timedelta(days=1)
Uptimes = Sequence[int | None]


def uptime_of_area(
    moves: Sequence[Move], weight: int, new: Uptimes, old: Uptimes | None, now: datetime
) -> list[int | None]:
    """Of the last DAYS days, today last: hundredths of a per cent, None where nobody could tell or nobody served it.

    `moves` are those of the flag within these days, oldest first; `weight` is what is asked of it now. `new` and `old`
    are the uptimes of the two sides, of the same days; `old` is None when the old side never had the area.

    A day has the uptime of the side that served it. One on which both did, at the same moment or one after the other,
    has the worse of the two: what callers met is not hidden, however short it was.
    """
    first = day_of(now, DAYS - 1)
    of_day: dict[int, list[Move]] = defaultdict(list)
    for move in moves:
        of_day[(move.at - first) // DAY].append(move)
    asked = moves[0].before if moves else weight  # as the first day begins
    found: list[int | None] = []
    for place in range(DAYS):
        weights = {asked, *(move.after for move in of_day.get(place, ()))}
        if place in of_day:
            if of_day[place][0].at == first + place * DAY:  # moved as the day began
                weights = {move.after for move in of_day[place]}
            asked = of_day[place][-1].after
        served = [new[place]] if max(weights) > MONOLITH_WEIGHT else []
        if old is not None and min(weights) < SERVICE_WEIGHT:
            served.append(old[place])
        found.append(min((uptime for uptime in served if uptime is not None), default=None))
    return found
