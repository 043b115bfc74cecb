"""The table of a service's traffic by prefix, where the gateway counts it so."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from migrations_app.gates.percentile import percentile
from migrations_app.gateways.base import NO_LATENCY, Counted, RouteTraffic, Side
from migrations_app.models.windows import RouteSeen

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


# As JSON, beside something else.
SAMPLES = """coalesce(json_agg(json_build_object(
    'path', sample.path, 'method', sample.method, 'side', sample.side, 'requests', sample.requests,
    'codes', sample.codes, 'retries', sample.retries, 'latency', sample.latency
)), '[]') FROM migrations_app_routesample AS sample"""


def route_rows(counted: Iterable[Mapping[str, str]], samples: Collection[Mapping[str, Any]]) -> tuple[RouteRow, ...]:
    """By path; the sides that were sent anything, or one row that says that neither was. `samples`: see SAMPLES."""
    found = []
    for one in sorted((Counted(**each) for each in counted), key=lambda one: (one.path, one.method)):
        ours = [sample for sample in samples if one.holds(Counted(sample["path"], sample["method"]))]
        rows = [RouteRow(one, side, _sum(sample for sample in ours if sample["side"] == side)) for side in Side]
        found += [row for row in rows if row.seen.requests] or rows[:1]
    return tuple(found)


def _sum(samples: Iterable[Mapping[str, Any]]) -> RouteSeen:
    total = RouteTraffic()
    for one in samples:
        codes = {int(code): answers for code, answers in one["codes"].items()}
        total += RouteTraffic(one["requests"], codes, one["retries"], tuple(one["latency"]) or NO_LATENCY)
    return RouteSeen(total.requests, total.codes, total.retries, total.latency)
