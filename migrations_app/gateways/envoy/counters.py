"""Envoy's statistics as traffic by service and side. Pure.

A side without failover is counted by its route. One with failover is counted by who answered: Envoy keeps statistics
for each zone, and the two members of a failover are in zones of their own. Every number is a counter of Envoy's or a
sum of several, never a difference of two: those are read one after the other, and a difference could go down.
"""

from __future__ import annotations

import re
from collections import defaultdict

from migrations_app.gateways.base import NO_LATENCY, Side, SideTraffic
from migrations_app.gateways.envoy.admin import Statistics
from migrations_app.gateways.envoy.bootstrap import FAILOVER, ROUTE_STATS, ZONE_STATS
from migrations_app.gateways.envoy.render import REST

REST_KEY = ("", Side.MONOLITH)  # of what no route matches

# `total` is there, at 0, for every side that has a route; the others only come with the first answer.
_ROUTES = rf"{re.escape(ROUTE_STATS)}(?:([^.]+)\.(monolith|service|{FAILOVER})|{REST})\."
_ZONES = rf"cluster\.([^.]+){re.escape(ZONE_STATS)}(service|{FAILOVER})\."
PATTERN = rf"^(?:{_ROUTES}|{_ZONES})upstream_rq_(completed|4xx|5xx|retry|time|total)$"


def traffic(found: Statistics) -> dict[tuple[str, Side], SideTraffic]:
    """By (service key, side), and by REST_KEY."""
    sides: dict[tuple[str, Side], SideTraffic] = defaultdict(lambda: SideTraffic(0, 0))
    for name, value in found.counters.items():
        if part := re.match(PATTERN, name):
            key, kind, zone = _whose(part)
            sides[key] += _counted(kind, zone, part[5], value)
    for name, counts in found.histograms.items():
        if part := re.match(PATTERN, name):
            key, kind, zone = _whose(part)
            if kind != FAILOVER or zone == Side.SERVICE:
                sides[key] += SideTraffic(0, 0, counts)
    return dict(sorted(sides.items()))


def _whose(part: re.Match[str]) -> tuple[tuple[str, Side], str, str]:
    """The side that the request was meant for, the kind of its route, and the zone that it was answered from."""
    if part[3]:
        return (part[3], Side.SERVICE), FAILOVER, part[4]
    if not part[1]:
        return REST_KEY, REST, ""
    return (part[1], Side.MONOLITH if part[2] == Side.MONOLITH else Side.SERVICE), part[2], ""


def _counted(kind: str, zone: str, name: str, value: int) -> SideTraffic:
    if name == "retry":
        return SideTraffic(0, 0, NO_LATENCY, retries=value)
    if kind == FAILOVER and zone == FAILOVER and name == "completed":
        return SideTraffic(value, value, NO_LATENCY, failovers=value)
    if kind == FAILOVER and zone != Side.SERVICE:
        return SideTraffic(0, 0)  # of the route: who answered is not told apart
    return SideTraffic(
        requests=value if name == "completed" else 0,
        errors=value if name == "5xx" else 0,
        client_errors=value if name == "4xx" else 0,
    )
