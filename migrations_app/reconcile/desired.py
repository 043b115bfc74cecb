"""The desired routing table, as the database has it."""

from __future__ import annotations

from migrations_app.gateways.base import Address, Route, RoutingTable
from migrations_app.models import Plan
from migrations_app.models import Route as RouteRow

_OF_PLAN = ("plan__key", "plan__generation", "plan__monolith_host", "plan__monolith_port")
_OF_SERVICE = ("key", "flag__key", "host", "port", "flag__weight", "strip", "health_path", "timeout")


def desired_table(plan: Plan) -> RoutingTable:
    """All routes and weights at the plan's generation, ordered by prefix.

    Read in one statement: with two, a commit could slip between the generation and the weights. Columns, not objects:
    this is on the way of every click.
    """
    columns = (*_OF_PLAN, "prefix", *(f"service__{name}" for name in _OF_SERVICE))
    rows = RouteRow.objects.filter(plan=plan).order_by("prefix").values_list(*columns)
    of_plan = (plan.key, plan.generation, plan.monolith_host, plan.monolith_port)
    routes = []
    for *of_plan_now, prefix, service, flag, host, port, weight, strip, health_path, timeout in rows:
        of_plan = tuple(of_plan_now)
        routes.append(Route(service, flag, prefix, Address(host, port), weight, strip, health_path, timeout))
    key, generation, monolith_host, monolith_port = of_plan
    return RoutingTable(key, generation, Address(monolith_host, monolith_port), tuple(routes))
