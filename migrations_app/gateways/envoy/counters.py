"""Envoy's statistics as traffic by service and side. Pure.

A side without failover is counted by its route. One with failover is counted by who answered: Envoy keeps statistics
for each zone, and the two members of a failover are in zones of their own. Every number is a counter of Envoy's or a
sum of several, never a difference of two: those are read one after the other, and a difference could go down.
"""

from __future__ import annotations

import re
from collections import defaultdict

from migrations_app.gateways.base import Counted, RouteTraffic, Side, SideTraffic
from migrations_app.gateways.envoy.admin import Statistics
from migrations_app.gateways.envoy.bootstrap import FAILOVER, ROUTE_STATS, ZONE_STATS
from migrations_app.gateways.envoy.render import REST, counted_of

REST_KEY = ("", Side.MONOLITH)  # of what no route matches

# `total` is there, at 0, for every side that has a route; the others only come with the first answer.
_SIDES = rf"([^.]+)\.(monolith|service|{FAILOVER})"
# With the name of what is counted by itself after it, if that is more than the whole side.
_ROUTES = rf"{re.escape(ROUTE_STATS)}(?:{_SIDES}(?:\.[A-Za-z0-9_-]+)?|{REST})\."
_ZONES = rf"cluster\.([^.]+){re.escape(ZONE_STATS)}(service|{FAILOVER})\."
PATTERN = rf"^(?:{_ROUTES}|{_ZONES})upstream_rq_(completed|4xx|5xx|retry|time|total)$"
_APART = rf"{re.escape(ROUTE_STATS)}{_SIDES}\.([A-Za-z0-9_-]+)\."
PATTERN_APART = rf"^{_APART}upstream_rq_(completed|[45][0-9][0-9]|retry|time|total)$"


def traffic(found: Statistics) -> dict[tuple[str, Side], SideTraffic]:
    """By (service key, side), and by REST_KEY."""
    sides: dict[tuple[str, Side], SideTraffic] = defaultdict(lambda: SideTraffic(0, 0))
    by_route: dict[tuple[str, Side], SideTraffic] = defaultdict(lambda: SideTraffic(0, 0))
    zoned = set()
    for name, value in found.counters.items():
        if part := re.match(PATTERN, name):
            key, kind, zone = _whose(part)
            (by_route if kind == FAILOVER and not zone else sides)[key] += _counted(zone, part[5], value)
            if zone:
                zoned.add(key)
    for name, counts in found.histograms.items():
        if part := re.match(PATTERN, name):
            key, kind, zone = _whose(part)
            if zone != FAILOVER:
                (by_route if kind == FAILOVER and not zone else sides)[key] += SideTraffic(0, 0, counts)
    for key, counted in by_route.items():
        # An Envoy that still runs an older bootstrap has no zones. It cannot fail over either: its routes tell all.
        sides[key] += SideTraffic(0, 0, retries=counted.retries) if key in zoned else counted
    return dict(sorted(sides.items()))


def traffic_of_routes(found: Statistics) -> dict[tuple[str, Counted, Side], RouteTraffic]:
    """By service key, what is counted by itself, and side. A route is of one side, whoever answered in the end."""
    counted: dict[tuple[str, Counted, Side], RouteTraffic] = defaultdict(RouteTraffic)
    for name, value in found.counters.items():
        if part := re.match(PATTERN_APART, name):
            code = int(part[4]) if part[4].isdigit() else None
            counted[_apart(part)] += RouteTraffic(
                requests=value if part[4] == "completed" else 0,
                codes={code: value} if code and value else {},
                retries=value if part[4] == "retry" else 0,
            )
    for name, latency in found.histograms.items():
        if part := re.match(PATTERN_APART, name):
            counted[_apart(part)] += RouteTraffic(latency=latency)
    return dict(counted)


def _apart(part: re.Match[str]) -> tuple[str, Counted, Side]:
    return part[1], counted_of(part[3]), Side.MONOLITH if part[2] == Side.MONOLITH else Side.SERVICE


def _whose(part: re.Match[str]) -> tuple[tuple[str, Side], str, str]:
    """The side that the request was meant for, the kind of its route, and the zone that it was answered from."""
    if part[3]:
        return (part[3], Side.SERVICE), FAILOVER, part[4]
    if not part[1]:
        return REST_KEY, REST, ""
    return (part[1], Side.MONOLITH if part[2] == Side.MONOLITH else Side.SERVICE), part[2], ""


def _counted(zone: str, name: str, value: int) -> SideTraffic:
    if zone == FAILOVER:
        over = value if name == "completed" else 0
        return SideTraffic(over, over, failovers=over, failed_failovers=value if name == "5xx" else 0)
    return SideTraffic(
        requests=value if name == "completed" else 0,
        errors=value if name == "5xx" else 0,
        client_errors=value if name == "4xx" else 0,
        retries=value if name == "retry" else 0,
    )
