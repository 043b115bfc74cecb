"""The desired routing table, as the database has it."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from django.conf import settings

from migrations_app.gateways.base import MONOLITH_WEIGHT, Address, Counted, RollbackScript, Route, RoutingTable, Sticky
from migrations_app.models import Flag, Plan
from migrations_app.models import Route as RouteRow

_OF_PLAN = ("plan__key", "plan__generation", "plan__monolith_host", "plan__monolith_port", "plan__sticky")
_OF_SERVICE = ("key", "flag__key", "host", "port", "flag__weight", "strip", "health_path", "timeout")
_FAILS_OVER = ("failover", "new_side_only")
_APART = ("writes_from", "counted")


def desired_table(plan: Plan) -> RoutingTable:
    """All routes and weights at the plan's generation, ordered by prefix.

    Read in one statement: with two, a commit could slip between the generation and the weights. Columns, not objects:
    this is on the way of every click.
    """
    columns = (*_OF_PLAN, "prefix", *(f"service__{name}" for name in (*_OF_SERVICE, *_FAILS_OVER, *_APART)))
    rows = RouteRow.objects.filter(plan=plan).order_by("prefix").values_list(*columns)
    of_plan = [plan.key, plan.generation, plan.monolith_host, plan.monolith_port, plan.sticky]
    routes, apart = [], dict[str, list[dict[str, str]]]()
    for row in rows:
        of_plan, (prefix, service, flag, host, port, weight, *how) = row[:5], row[5:]
        strip, health_path, timeout, failover, new_side_only, writes_from, counted = how
        # Reads move before writes where the plan says so; with the weight that it says, writes move too.
        writes = MONOLITH_WEIGHT if MONOLITH_WEIGHT < weight < writes_from else None
        # What the monolith never had it cannot answer.
        fails_over = failover and not new_side_only
        address, apart[service] = Address(host, port), counted
        routes.append(Route(service, flag, prefix, address, weight, strip, health_path, timeout, fails_over, writes))
    key, generation, monolith_host, monolith_port, sticky = of_plan
    return RoutingTable(
        key,
        generation,
        Address(monolith_host, monolith_port),
        tuple(routes),
        Sticky(**sticky) if sticky else None,
        settings.GATEWAY_TESTER_SECRET,
        tuple(Counted(**one) for counted in apart.values() for one in counted),
    )


def scripts_of(plan: Plan) -> tuple[RollbackScript, ...]:
    """One for each week that moves traffic, and one for everything; what comes later in the plan goes back first.

    Asked of the database once for each loading of the plan.
    """
    return _scripts(plan.pk, plan.revision, plan.loaded_at)


@lru_cache(maxsize=4)
def _scripts(plan: int, _revision: int, _loaded_at: datetime | None) -> tuple[RollbackScript, ...]:
    rows = Flag.objects.filter(plan=plan).order_by("-week__number", "-service__position", "-key")
    titles: dict[int, str] = {}
    flags: dict[int, list[str]] = {}
    for key, number, title in rows.values_list("key", "week__number", "week__title"):
        titles[number] = title
        flags.setdefault(number, []).append(key)
    weeks = [
        RollbackScript(name_of(number), f"Week {number}: {titles[number]}", tuple(flags[number])) for number in flags
    ]
    everything = tuple(flag for week in weeks for flag in week.flags)
    return (*weeks, RollbackScript("everything.sh", "Everything", everything)) if weeks else ()


def name_of(week: int) -> str:
    """Of the week's rollback script."""
    return f"week-{week}.sh"
