"""Charts as templates draw them: numbers in, SVG paths, labels and readings out. Nothing here asks the database.

The drawing is WIDTH by HEIGHT units and is stretched to its box; labels stand outside of it, evenly spaced, so that no
text is stretched with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

WIDTH, HEIGHT = 1000, 100
LABELS = 5  # under the drawing, its two ends included


@dataclass(frozen=True, slots=True)
class Series:
    """One line. `points`: the beginning of each step, and its value; None or a missing step is a gap."""

    key: str  # how the style sheet calls it: new, old
    name: str
    points: Sequence[tuple[datetime, float | None]]


@dataclass(frozen=True, slots=True)
class Column:
    """What is told in the table alone, beside the lines. `points`: the beginning of a step, and its text."""

    name: str
    points: Sequence[tuple[datetime, str]]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a moment. `key`: up or back, for the style sheet."""

    at: datetime
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    key: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Mark:
    """An event where it is drawn. `x` in units of the drawing."""

    x: float
    key: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """All values of one step: `x` is the middle of it; `texts` are in the order of the lines, "" for a gap.

    `more` are in the order of the chart's columns.
    """

    x: float
    at: datetime
    when: str
    texts: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return f"{self.when}: {', '.join(text for text in self.texts if text)}"


@dataclass(frozen=True, slots=True)
class Chart:
    """`ups` are the labels beside the drawing, from the top down; `unders` those under it, from the left.

    `columns` are the names of those that the table has beside the lines.
    """

    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    readings: tuple[Reading, ...]
    ups: tuple[str, ...]
    unders: tuple[str, ...]
    columns: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.readings


def draw(
    series: Sequence[Series],
    *,
    since: datetime,
    until: datetime,
    step: timedelta,
    say: Callable[[float], str],
    zone: tzinfo,
    events: Sequence[Event] = (),
    columns: Sequence[Column] = (),
) -> Chart:
    """`say` puts a value in words, with its unit. Points outside of the range are left out."""
    within = [
        Series(one.key, one.name, [(at, value) for at, value in one.points if since - step < at < until])
        for one in series
    ]
    top = nice_top(max((value for one in within for _, value in one.points if value is not None), default=0.0))

    def across(at: datetime) -> float:
        return round(min(max((at - since) / (until - since), 0.0), 1.0) * WIDTH, 2)

    def down(value: float) -> float:
        return round(HEIGHT * (1 - value / top), 2)

    found: dict[datetime, list[str]] = {}
    for index, one in enumerate(within):
        for at, value in one.points:
            if value is not None:
                texts = found.setdefault(at, [""] * len(within))
                texts[index] = f"{one.name} {say(value)}"
    beside = [dict(column.points) for column in columns]
    day = until - since > timedelta(days=1)
    return Chart(
        lines=tuple(
            Line(one.key, one.name, path_of([(at + step / 2, value) for at, value in one.points], step, across, down))
            for one in within
        ),
        marks=tuple(
            Mark(across(event.at), event.key, event.text, event.at)
            for event in sorted(events, key=lambda event: event.at)
            if since <= event.at <= until
        ),
        readings=tuple(
            Reading(
                across(at + step / 2),
                at,
                _when(at.astimezone(zone), with_day=day),
                tuple(texts),
                tuple(texts_at.get(at, "") for texts_at in beside),
            )
            for at, texts in sorted(found.items())
        ),
        ups=(say(top), say(top / 2), say(0.0)),
        unders=tuple(
            _when((since + (until - since) * part / (LABELS - 1)).astimezone(zone), with_day=day)
            for part in range(LABELS)
        ),
        columns=tuple(column.name for column in columns),
    )


def path_of(
    points: Sequence[tuple[datetime, float | None]],
    step: timedelta,
    across: Callable[[datetime], float],
    down: Callable[[float], float],
) -> str:
    """An SVG path: a line from point to point, broken where a step is missing; a point on its own is a short dash."""
    parts: list[list[str]] = []
    last: datetime | None = None
    for at, value in points:
        if value is None:
            last = None
            continue
        if last is None or at - last > step * 1.5:
            parts.append([])
        parts[-1].append(f"{across(at):g} {down(value):g}")
        last = at
    return " ".join(f"M{part[0]}h1" if len(part) == 1 else f"M{'L'.join(part)}" for part in parts)


def nice_top(value: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 ... that is not below it; for nothing and for less than 1, it is 1."""
    size = 1.0
    while True:
        for factor in (1, 2, 5):
            if value <= size * factor:
                return size * factor
        size *= 10


def _when(at: datetime, *, with_day: bool) -> str:
    return f"{at.day} {at:%b %H:%M}" if with_day else f"{at:%H:%M}"
