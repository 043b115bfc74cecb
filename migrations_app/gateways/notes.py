"""A routing table as plain values, to be kept as JSON beside what was made of it. Pure."""

from __future__ import annotations

from typing import Any

from migrations_app.gateways.base import Address, Counted, Route, RoutingTable, Sticky

Json = dict[str, Any]


def as_values(table: RoutingTable) -> Json:
    """Everything that is in the table, the secret of testers as well. Written out: each click waits for it."""
    return {
        "plan": table.plan,
        "generation": table.generation,
        "monolith": [table.monolith.host, table.monolith.port],
        "sticky": [table.sticky.header, table.sticky.cookie, table.sticky.jwt_claim] if table.sticky else None,
        "tester_secret": table.tester_secret,
        "routes": [
            {
                "service": route.service,
                "flag": route.flag,
                "prefix": route.prefix,
                "upstream": [route.upstream.host, route.upstream.port],
                "weight": route.weight,
                "strip": route.strip,
                "health_path": route.health_path,
                "timeout": route.timeout,
                "failover": route.failover,
                "write_weight": route.write_weight,
            }
            for route in table.routes
        ],
        "counted": [[one.path, one.method] for one in table.counted],
    }


def from_values(values: Json) -> RoutingTable:
    """Raises ValueError for what `as_values` has not made."""
    try:
        routes = tuple(Route(**(route | {"upstream": Address(*route["upstream"])})) for route in values["routes"])
        return RoutingTable(
            plan=values["plan"],
            generation=values["generation"],
            monolith=Address(*values["monolith"]),
            routes=routes,
            sticky=Sticky(*values["sticky"]) if values["sticky"] else None,
            tester_secret=values["tester_secret"],
            counted=tuple(Counted(*one) for one in values["counted"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no routing table: {error!r}") from error
