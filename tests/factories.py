"""Makes what tests start from, through the product's own actions."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils import timezone

from migrations_app.actions.change import set_status
from migrations_app.actions.prerequisites import tick
from migrations_app.actor import SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Health, Phase, PrerequisiteKind
from migrations_app.gates.verdict import Verdict
from migrations_app.gateways.base import SERVICE_WEIGHT
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import Flag, Gateway, HealthState, Plan, Prerequisite, Service, Week
from migrations_app.models.gateways import next_generation
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.reader import read_path
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.roles import Role

PLANS = Path(__file__).parent.parent / "plans"
PASSWORD = "a password for tests only"


def load_tracseq(*, adapter: str = "envoy") -> Plan:
    """The shipped plan, on the adapter that is named."""
    document = read_path(PLANS / "tracseq-phase2.yaml")
    document = document.model_copy(update={"gateway": document.gateway.model_copy(update={"adapter": adapter})})
    load_plan(document, actor=SYSTEM, reason="for a test")
    return Plan.objects.get()


def make_healthy(state: Health = Health.HEALTHY, *, error: str = "", at: datetime | None = None) -> None:
    """Every target has just been polled with this result."""
    now = at or timezone.now()
    for target in [MONOLITH_TARGET, *Service.objects.values_list("key", flat=True)]:
        HealthState.objects.update_or_create(
            target=target,
            defaults={"state": state, "since": now, "polled_at": now, "milliseconds": 1.5, "error": error},
        )


def make_people() -> dict[Role, Actor]:
    people = {}
    for role in Role:
        user = User.objects.create_user(role.value.replace(" ", "-"), password=PASSWORD)
        user.groups.add(Group.objects.get(name=role.value))
        people[role] = Actor.signed_in(user)
    return people


def tick_all(week: int, actor: Actor, *, phase: Phase = Phase.START) -> None:
    """Sign off every manual prerequisite of a week, or every one of its done-criteria."""
    for row in Prerequisite.objects.filter(week__number=week, phase=phase, kind=PrerequisiteKind.MANUAL):
        tick(prerequisite_id=row.pk, actor=actor, note="seen by a test")


def put_behind(*weeks: int) -> None:
    """Bring weeks to the end of their soak, past their gates, as if that had happened before the test."""
    for number in weeks:
        with transaction.atomic():
            plan = Plan.objects.select_for_update().get()
            week = Week.objects.get(number=number)
            flags = Flag.objects.filter(week=week)
            plan.generation = next_generation(plan, plan.gateways.all())
            plan.save(update_fields=["generation"])
            event = record(
                AuditKind.WEEK_ENABLED,
                actor=SYSTEM,
                subject=f"week {number}",
                week_number=number,
                reason="for a test",
                after={flag.key: SERVICE_WEIGHT for flag in flags},
                verdict=Verdict(number, ()),
                generation=plan.generation,
            )
            flags.update(weight=SERVICE_WEIGHT, generation=plan.generation, changed_at=event.at)
            set_status(week, event.at - plan.scaled(week.soak) - timedelta(seconds=1))


def memory_gateway() -> MemoryGateway:
    """The in-memory gateway of the plan that is loaded."""
    adapter = adapter_for(Gateway.objects.get())
    assert isinstance(adapter, MemoryGateway)
    return adapter
