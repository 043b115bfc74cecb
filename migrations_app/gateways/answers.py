"""The bodies that a gateway answers by itself: `/health`, `/routing-status` and `/services/discovery`. Pure.

Compact JSON with sorted keys, because operators' scripts grep it for `"USE_AUTH_SERVICE":true`.
"""

from __future__ import annotations

import json
from typing import Any

from migrations_app.gateways.base import Route, RoutingTable, Side
from migrations_app.gateways.tables import longest_first


def compact(value: object) -> str:
    """JSON without spaces, keys sorted: the same value always gives the same text."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def health(table: RoutingTable | None) -> str:
    """`/health`: the gateway itself is up. It says nothing about the services behind it."""
    return compact({"status": "healthy", "service": "gateway", **_identity(table)})


def routing_status(table: RoutingTable | None) -> str:
    """`/routing-status`: who serves what.

    A flag is true as soon as any of its traffic goes to the service (weight above 0); `weights` has the share in per
    cent, and `write_weights` that of writes, only for flags where it is another one. `sticky` names what tells users
    apart, when anything does, and `testers` is true when they can choose their side. A route's `side` is `monolith`,
    `service` or `split`; a split route names both addresses. A route too has `write_weight` only where it is another.
    """
    routes = longest_first(table.routes) if table else []
    writes = {route.flag: route.writes for route in routes if route.writes != route.weight}
    return compact(
        {
            **_identity(table),
            "flags": {route.flag: route.on for route in routes},
            "weights": {route.flag: route.weight for route in routes},
            **({"write_weights": writes} if writes else {}),
            **({"sticky": str(table.sticky)} if table and table.sticky else {}),
            **({"testers": True} if table and table.tester_secret else {}),
            "routes": {route.prefix: route_status(table, route) for route in routes if table},
        }
    )


def discovery(table: RoutingTable | None) -> str:
    """`/services/discovery`: the addresses of the monolith and of each service, whoever serves now."""
    if table is None:
        return compact({**_identity(table), "monolith": None, "services": {}})
    services: dict[str, dict[str, Any]] = {}
    for route in longest_first(table.routes):
        service = services.setdefault(
            route.service,
            {
                "address": str(route.upstream),
                "flag": route.flag,
                "health": f"http://{route.upstream}{route.health_path}",
                "health_path": route.health_path,
                "prefixes": [],
            },
        )
        service["prefixes"] = sorted([*service["prefixes"], route.prefix])
    monolith = {"address": str(table.monolith), "health": f"http://{table.monolith}/health", "health_path": "/health"}
    return compact({**_identity(table), "monolith": monolith, "services": services})


def _identity(table: RoutingTable | None) -> dict[str, Any]:
    return {"plan": table.plan, "generation": table.generation} if table else {"plan": None, "generation": 0}


def route_status(table: RoutingTable, route: Route) -> dict[str, Any]:
    """What `/routing-status` tells of one route."""
    old, new = str(table.monolith), str(route.upstream)
    side = route.side()
    address: str | dict[str, str] = {Side.MONOLITH: old, Side.SERVICE: new} if side is None else ""
    if side is not None:
        address = new if side is Side.SERVICE else old
    return {
        "address": address,
        "flag": route.flag,
        "service": route.service,
        "side": side or "split",
        "weight": route.weight,
        **({"write_weight": route.writes} if route.writes != route.weight else {}),
    }
