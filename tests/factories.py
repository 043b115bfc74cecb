"""Makes what tests start from, through the product's own actions."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils import timezone

from migrations_app.actions.prerequisites import tick
from migrations_app.actions.week_status import set_status
from migrations_app.actor import SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Health, Phase, PrerequisiteKind
from migrations_app.gates.verdict import Verdict
from migrations_app.gateways.base import SERVICE_WEIGHT
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import ApprovalRequest, Flag, Gateway, HealthState, Plan, Prerequisite, Service, Week
from migrations_app.models.gateways import next_generation
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.reader import read_path
from migrations_app.planfile.schema import Plan as PlanFile
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.roles import Role

PLANS = Path(__file__).parent.parent / "plans"
PASSWORD = "a password for tests only"


@cache
def _shipped() -> PlanFile:
    """Read once: it is frozen, and most tests begin with it."""
    document = read_path(PLANS / "tracseq-phase2.yaml")
    assert isinstance(document, PlanFile), document
    return document


def tracseq(*, adapter: str = "envoy", by_hand: bool = False) -> PlanFile:
    """The shipped plan file, on the adapter that is named. `by_hand`: as `signed_off_by_hand` has it."""
    document = _shipped()
    document = document.model_copy(update={"gateway": document.gateway.model_copy(update={"adapter": adapter})})
    return signed_off_by_hand(document) if by_hand else document


def signed_off_by_hand(document: PlanFile) -> PlanFile:
    """The same plan with a person's sign-off in place of every check but `flags_on`.

    Its gates are closed until somebody ticks them, and stay as they are whatever the services and databases do.
    """
    weeks = []
    for week in document.weeks:
        lines = tuple(
            line
            if line.check in {None, "flags_on"}
            else line.model_copy(update={"kind": "manual", "check": None, "parameters": {}})
            for line in week.prerequisites
        )
        done = tuple(
            line if line.check in {None, "flags_on"} else line.model_copy(update={"check": None, "parameters": {}})
            for line in week.done_when
        )
        weeks.append(week.model_copy(update={"prerequisites": lines, "done_when": done}))
    return document.model_copy(update={"weeks": tuple(weeks)})


def load_tracseq(*, adapter: str = "envoy", by_hand: bool = False) -> Plan:
    """Load what `tracseq` makes."""
    load_plan(tracseq(adapter=adapter, by_hand=by_hand), actor=SYSTEM, reason="for a test")
    return Plan.objects.get()


def make_healthy(
    state: Health = Health.HEALTHY, *, error: str = "", at: datetime | None = None, since: datetime | None = None
) -> None:
    """Every target has just been polled with this result, as it was all the day before."""
    now = at or timezone.now()
    began = since or now - timedelta(days=1)
    told: dict[str, object] = {"state": state, "since": began, "polled_at": now, "milliseconds": 1.5, "error": error}
    targets = [MONOLITH_TARGET, *Service.objects.values_list("key", flat=True)]
    HealthState.objects.bulk_create(
        [HealthState(target=target, **told) for target in targets],
        update_conflicts=True,
        unique_fields=["target"],
        update_fields=list(told),
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


def approve(week: int, people: dict[Role, Actor], *, asked_by: Actor | None = None) -> None:
    """Have the whole week asked for and approved by as many as it needs. One that needs none is left alone."""
    row = Week.objects.get(number=week)
    if not row.approvals_needed:
        return
    from migrations_app.actions.approvals import give_approval, request_approval

    request_approval(number=week, actor=asked_by or people[Role.RELEASE_MANAGER], reason="for a test")
    request = ApprovalRequest.objects.get(week=row, closed_at=None, spent_at=None)
    for number in range(row.approvals_needed):
        give_approval(request_id=request.pk, actor=_with_role(row.approver_role, number, people), reason="for a test")


def _with_role(role: str, number: int, people: dict[Role, Actor]) -> Actor:
    """The first is the one of `make_people`; the others are made on the way."""
    if number == 0:
        return people[Role(role)]
    user, _ = User.objects.get_or_create(username=f"{role.replace(' ', '-')}-{number + 1}")
    user.groups.add(Group.objects.get(name=role))
    return Actor.signed_in(user)


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


def on_gateways(document: PlanFile, *keys: str) -> PlanFile:
    """The same plan on these gateways too, beside the one that it is on."""
    instances = (document.gateway.key, *keys)
    return document.model_copy(update={"gateway": document.gateway.model_copy(update={"instances": instances})})


def memory_gateway(key: str = "main") -> MemoryGateway:
    """An in-memory gateway of the plan that is loaded."""
    adapter = adapter_for(Gateway.objects.get(key=key))
    assert isinstance(adapter, MemoryGateway)
    return adapter
