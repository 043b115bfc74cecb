"""The desired routing table, as the database has it."""

from __future__ import annotations

from migrations_app.gateways.base import Route, RoutingTable
from migrations_app.models import Plan
from migrations_app.models import Route as RouteRow


def desired_table(plan: Plan) -> RoutingTable:
    """All routes and weights at the plan's generation, ordered by prefix.

    Read in one statement: with two, a commit could slip between the generation and the weights.
    """
    wanted = RouteRow.objects.filter(plan=plan).select_related("plan", "service__flag").order_by("prefix")
    # Without the plan's document, which would be parsed again for every route, on the way of every click.
    rows = list(wanted.defer("plan__document"))
    current = rows[0].plan if rows else plan
    return RoutingTable(
        plan=current.key,
        generation=current.generation,
        monolith=current.monolith,
        routes=tuple(
            Route(
                service=row.service.key,
                flag=row.service.flag.key,
                prefix=row.prefix,
                upstream=row.service.upstream,
                weight=row.service.flag.weight,
                strip=row.service.strip,
                health_path=row.service.health_path,
                timeout=row.service.timeout,
            )
            for row in rows
        ),
    )
