"""The small charts of the overview: 48 hours of one target as an SVG, with what changed drawn in. No database in here.

Written in Python and not in a template: a hundred of them are on a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from html import escape

from django.utils.safestring import SafeString

from migrations_app.observe.uptime import HOURS

from .charts import nice_top

HOUR = 4  # units of the drawing
WIDTH, HEIGHT = HOURS * HOUR, 40
TOP, BOTTOM = 11, 31  # of the line; moves stand above it, changes of health below
# What a mark looks like, around its place: what moved up points up, what came back points down.
SHAPES = {
    "up": "M{x:g} 10V32M{left:g} 8h7l-3.5-7z",
    "back": "M{x:g} 10V32M{left:g} 1h7l-3.5 7z",
    "ill": "M{left:g} 33l6 6m0-6l-6 6",
    "well": "M{left:g} 36a3 3 0 106 0a3 3 0 10-6 0z",
    "unknown": "M{left:g} 36h6",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened: `shape` is a key of SHAPES."""

    at: datetime
    shape: str
    text: str


def sparkline(
    values: tuple[float | None, ...], begun: datetime, marks: Sequence[Mark], label: str, texts: Sequence[str]
) -> SafeString:
    """`values` are milliseconds, one for each hour from `begun` on, None is a gap; `label` tells all of it in words.

    `texts` are those of the marks, with their moments, in the same order. Marks outside of the hours are left out.
    """
    span = timedelta(hours=HOURS)
    drawn = [
        f'<path class="{mark.shape}" d="{_shape(mark, WIDTH * ((mark.at - begun) / span))}">'
        f"<title>{escape(text)}</title></path>"
        for mark, text in zip(marks, texts, strict=True)
        if begun <= mark.at < begun + span
    ]
    return SafeString(
        f'<svg class="sparkline" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'<path class="ground" d="M0 {BOTTOM}H{WIDTH}"></path><path class="line" d="{line_of(values)}"></path>'
        f"{''.join(drawn)}</svg>"
    )


@lru_cache(maxsize=2000)  # it changes once a minute, and is looked at each second
def line_of(values: tuple[float | None, ...]) -> str:
    """An SVG path through the middle of each hour, broken where a value is missing; one on its own is a dash."""
    top = nice_top(max((value for value in values if value is not None), default=0.0))
    parts: list[list[str]] = []
    gap = True
    for place, value in enumerate(values):
        if value is not None:
            if gap:
                parts.append([])
            parts[-1].append(f"{place * HOUR + HOUR / 2:g} {BOTTOM - (BOTTOM - TOP) * value / top:.1f}")
        gap = value is None
    return "".join(f"M{part[0]}m-2 0h{HOUR}" if len(part) == 1 else f"M{'L'.join(part)}" for part in parts)


def _shape(mark: Mark, x: float) -> str:
    x = round(x, 1)
    return SHAPES[mark.shape].format(x=x, left=x - (3.5 if mark.shape in {"up", "back"} else 3))
