"""The table of a service's traffic by prefix, where the gateway counts it so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from migrations_app.gates.checks.no_degradation import percentile
from migrations_app.gateways.base import Counted, Side
from migrations_app.models.windows import RouteSeen, RouteWindow, routes_in
from migrations_app.observe.traffic import SHARE_WINDOW

DENIED = (401, 403)


@dataclass(frozen=True, slots=True)
class RouteRow:
    """Requests to a path and below it in the last minute, on one side, as clients saw them answered."""

    counted: Counted
    side: Side
    seen: RouteSeen

    @property
    def side_word(self) -> str:
        return "old" if self.side is Side.MONOLITH else "new"

    @property
    def failed(self) -> int:
        return self.seen.count(["5xx"])

    @property
    def denied(self) -> int:
        return self.seen.count(DENIED)

    @property
    def p95(self) -> float | None:
        """Milliseconds."""
        return percentile(self.seen.latency, 0.95) if sum(self.seen.latency) else None


def route_rows(service: int, counted: Iterable[Mapping[str, str]], now: datetime) -> tuple[RouteRow, ...]:
    """By path; the sides that were sent anything, or the old one. One query, none where nothing is counted so."""
    since = now - SHARE_WINDOW
    windows = [
        RouteWindow(service, one, side, since, now)
        for one in sorted((Counted(**each) for each in counted), key=lambda one: (one.path, one.method))
        for side in Side
    ]
    found = routes_in(windows)
    busy = {window.counted for window, seen in found.items() if seen.requests}
    return tuple(
        RouteRow(window.counted, window.side, seen)
        for window, seen in found.items()
        if window.side and (seen.requests or (window.counted not in busy and window.side is Side.MONOLITH))
    )
