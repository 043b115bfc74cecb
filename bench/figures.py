"""What is printed: percentiles, medians, and the one line of JSON at the end."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def say(text: str) -> None:
    """A line of progress, on standard error: standard output has the figures alone."""
    print(text, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0-1) of the values do not exceed (nearest rank). NaN without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Median, 99th percentile and maximum; each None without values, which JSON cannot tell otherwise."""
    return {
        "p50": rounded(percentile(values, 0.5)),
        "p99": rounded(percentile(values, 0.99)),
        "max": rounded(max(values, default=math.nan)),
    }


def median(values: Iterable[float]) -> float:
    """NaN without values."""
    known = list(values)
    return statistics.median(known) if known else math.nan


def ratio(above: float, below: float) -> float | None:
    """None where there is nothing to compare with."""
    return rounded(above / below) if below and math.isfinite(above) and math.isfinite(below) else None


def rounded(value: float) -> float | None:
    """Two digits after the point are more than a shared machine can tell apart."""
    return round(value, 2) if math.isfinite(value) else None


def machine() -> dict[str, Any]:
    """What else was going on: without it no two runs can be compared."""
    return {"cores": os.cpu_count(), "load_average_1m": round(os.getloadavg()[0], 2)}


def finish(figures: dict[str, Any]) -> None:
    """The last line of standard output."""
    print(json.dumps(figures), flush=True)
