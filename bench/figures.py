"""What is printed: percentiles, medians, and the one line of JSON at the end."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil


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


class Machine:
    """What else was going on from its making to `figures`: without that no two runs can be compared."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def figures(self) -> dict[str, object]:
        """`others_busy` is the share (0-1) of all processor time that went to processes other than the benchmark's."""
        cores = os.cpu_count() or 1
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        share = others / (cores * (time.monotonic() - self._begun))
        return {
            "cores": cores,
            "others_busy": rounded(min(1.0, max(0.0, share))),
            "load_average_1m": rounded(os.getloadavg()[0]),
        }


def sync_ms(file: Path) -> float:
    """Milliseconds that the disk takes to keep 8 kB for good, as PostgreSQL's log must before a change is promised."""
    begun = time.monotonic()
    with file.open("wb") as log:
        log.write(b"x" * 8192)
        log.flush()
        os.fdatasync(log.fileno())
    return (time.monotonic() - begun) * 1000


def _busy_seconds() -> float:
    """Processor time of the whole machine since it started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _own_seconds() -> float:
    """Processor time of this process and all below it, those that have ended included."""
    own = psutil.Process()
    whole = 0.0
    for one in [own, *own.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            whole += times.user + times.system + times.children_user + times.children_system
    return whole


def finish(figures: dict[str, Any]) -> None:
    """The last line of standard output."""
    print(json.dumps(figures), flush=True)
