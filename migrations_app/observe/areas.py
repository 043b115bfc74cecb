"""Uptime of a product area: day by day, that of the side which served it then. docs/history.md has the rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT

from .lately import Move
from .uptime import DAYS, day_of

DAY = timedelta(days=1)
Uptimes = Sequence[int | None]


def uptime_of_area(
    moves: Sequence[Move], weight: int, new: Uptimes, old: Uptimes | None, now: datetime
) -> list[int | None]:
    """Of the last DAYS days, today last: hundredths of a per cent, None where nobody could tell or nobody served it.

    `moves` are those of the flag within these days, oldest first; `weight` is what is asked of it now. `new` and `old`
    are the uptimes of the two sides, of the same days; `old` is None when the old side never had the area.

    A day has the uptime of the side that served it for longer. It has the worse of the two when both served as long, or
    at the same moment for any time (a weight between 0 and 100 %). A side of which nobody could tell stands against
    nothing then. Without an old side it is that of the new one, on the days on which that served.
    """
    first = day_of(now, DAYS - 1)
    of_day: dict[int, list[Move]] = defaultdict(list)
    for move in moves:
        of_day[(move.at - first) // DAY].append(move)
    asked = moves[0].before if moves else weight  # as the first day begins
    found: list[int | None] = []
    for place in range(DAYS):
        begun = first + place * DAY
        spans = [(asked, DAY)]
        if place in of_day:
            spans = _spans(of_day[place], asked, begun, min(begun + DAY, now))
            asked = of_day[place][-1].after
        if old is None:
            found.append(new[place] if any(weight > MONOLITH_WEIGHT for weight, _ in spans) else None)
        elif longer := _alone(spans):
            found.append(new[place] if longer > timedelta() else old[place])
        else:
            found.append(_worse(new[place], old[place]))
    return found


def _spans(moves: Sequence[Move], asked: int, begun: datetime, ended: datetime) -> list[tuple[int, timedelta]]:
    """The weights of a day, and how long each was asked for."""
    moments = [begun, *(move.at for move in moves), max(ended, moves[-1].at)]
    weights = [asked, *(move.after for move in moves)]
    lengths = (until - since for since, until in pairwise(moments))
    return [(weight, length) for weight, length in zip(weights, lengths, strict=True) if length]


def _alone(spans: Sequence[tuple[int, timedelta]]) -> timedelta:
    """By how much the new side served for longer than the old one; nothing when both did so at the same moment."""
    if any(MONOLITH_WEIGHT < weight < SERVICE_WEIGHT for weight, _ in spans):
        return timedelta()
    return sum((length if weight == SERVICE_WEIGHT else -length for weight, length in spans), timedelta())


def _worse(*uptimes: int | None) -> int | None:
    return min((uptime for uptime in uptimes if uptime is not None), default=None)
