"""Rehearse a rollback: go its whole way, up to the gateway's own word, without moving any traffic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Health
from migrations_app.errors import Invalid, Stale
from migrations_app.gates.rows import current_health
from migrations_app.gates.target import targets
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.gateways.errors import GatewayError
from migrations_app.models import Flag, Gateway, Plan, Week
from migrations_app.models.gateways import next_generation
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.desired import desired_table
from migrations_app.roles import Permission

from .change import Change, event_of_click, grow_version, lock_plan, no_change, refuse_spent, refuse_stale
from .hints import ask_to_reconcile
from .refusals import refusals_recorded
from .weeks import find_week


def rehearse_rollback(
    *, number: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Go the way of a rollback of the week, at any time, and move nothing.

    The monolith must be healthy now. The routing tables with the whole week on, and with it off, must be such as every
    gateway takes. Then a new generation with the weights as they are is taken, applied and confirmed by the loop, as a
    rollback's is. Raises NotPermitted, NotFound, Stale, and Invalid with what would stand in the way of a rollback.
    """
    asked = {"seen": seen, "request_key": request_key}
    with refusals_recorded(
        "rehearse a rollback", actor=actor, subject=f"week {number}", reason=reason, **asked
    ) as about:
        actor.require(Permission.ROLL_BACK, "rehearse a rollback")
        week = find_week(number)
        about.week = number
        # Outside of the transaction: nobody's rollback waits for a validator.
        checked = {} if event_of_click(request_key) else _check(week)
        with transaction.atomic():
            plan = lock_plan()
            week = find_week(number)
            subject, title = f"week {number}", f"Week {number}"
            earlier = event_of_click(request_key)
            if earlier and (earlier.kind, earlier.subject) == (AuditKind.ROLLBACK_REHEARSED, subject):
                return no_change(plan, earlier, AuditKind.ROLLBACK_REHEARSED, subject, title)
            actor.require_still(Permission.ROLL_BACK, "rehearse a rollback")
            refuse_spent(earlier)
            refuse_stale(week, seen)
            if targets([number])[number] != checked.get("target"):
                raise Stale(f"Week {number} has changed during the rehearsal. Nothing was done; look again.")
            plan.generation = next_generation(plan, Gateway.objects.filter(plan=plan))
            plan.save(update_fields=["generation"])
            event = record(
                AuditKind.ROLLBACK_REHEARSED,
                actor=actor,
                subject=subject,
                week_number=number,
                reason=reason,
                after=checked | {"weights": dict(Flag.objects.filter(week=week).values_list("key", "weight"))},
                generation=plan.generation,
                request_key=request_key,
            )
            grow_version(week)
            transaction.on_commit(lambda: ask_to_reconcile(plan.generation))
            return Change(title, plan.generation, changed=True, event=event)


def _check(week: Week) -> dict[str, Any]:
    """What was looked at, for the audit log: the target of the week, the monolith, what each gateway took."""
    target = targets([week.number])[week.number]
    flags = set(Flag.objects.filter(week=week).values_list("key", flat=True))
    if not flags:
        raise Invalid(f"Week {week.number} moves no traffic: there is nothing to roll back.")
    state, error = current_health().get(MONOLITH_TARGET, (Health.UNKNOWN, "no poll yet"))
    if state != Health.HEALTHY:
        told = f"{state}: {error}" if error else str(state)
        raise Invalid(f"A rollback would lead to the monolith, and it is {told}. Mend it, then rehearse again.")
    gateways = list(Gateway.objects.select_related("plan"))
    for gateway in gateways:
        for weight in (SERVICE_WEIGHT, MONOLITH_WEIGHT):
            _ask(gateway, gateway.plan, flags, weight)
    return {"target": target, "monolith": str(state), "taken_by": [gateway.key for gateway in gateways]}


def _ask(gateway: Gateway, plan: Plan, flags: set[str], weight: int) -> None:
    """Raises Invalid when the gateway would not take the table with these flags at this weight."""
    table = desired_table(plan)
    routes = tuple(replace(route, weight=weight) if route.flag in flags else route for route in table.routes)
    try:
        adapter = adapter_for(gateway)
        adapter.check(adapter.render(replace(table, generation=table.generation + 1, routes=routes)))
    except GatewayError as error:
        way = "on" if weight else "off"
        raise Invalid(f"Gateway {gateway.key} would not take the routes with the week {way}: {error}") from error
