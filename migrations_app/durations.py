"""Lengths of time as plan files and commands write them: `30s`, `15m`, `48h`, `3d`. No Django in here."""

from __future__ import annotations

import math
import re
from datetime import timedelta

PATTERN = r"(?P<count>[0-9]{1,7})(?P<unit>[smhd])"
LONGEST = timedelta(days=90)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_duration(value: object) -> timedelta:
    """`48h` -> 48 hours; a length that is one already stays. ValueError says what is wrong."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(PATTERN, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a length of time such as 30s, 15m, 48h or 3d")
    length = int(match["count"]) * _UNITS[match["unit"]]
    if length > LONGEST:
        raise ValueError(f"longer than {LONGEST.days} days")
    return length


def format_duration(length: timedelta) -> str:
    """48 hours -> `48h`: the largest unit that leaves no rest, days excepted, as plans count in hours."""
    seconds = round(length.total_seconds())
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def in_words(length: timedelta) -> str:
    """For people: `2 d 3 h`, `48 h`, `12 min`, `40 s`. Two units at most; negative counts as none."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60 % 60, seconds // 3600 % 24, seconds // 86400
    if seconds < 3600:
        return f"{minutes} min"
    if seconds <= 72 * 3600:
        hours = seconds // 3600
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{days} d {hours} h" if hours else f"{days} d"


def to_the_second(length: timedelta) -> str:
    """For people who hold it against a limit: `0.4 s`, `40 s`, `5 min 40 s`, `1 h 2 min`. Never less than it is."""
    seconds = max(0.0, length.total_seconds())
    if 0 < seconds < 10:
        return f"{math.ceil(seconds * 10 - 1e-6) / 10:g} s"
    whole = math.ceil(seconds - 1e-6)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = -(-whole // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
