"""Loads a plan into the database: all of it or nothing, and nothing that breaks a promise already made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import NotFound, PlanConflict
from migrations_app.models import Flag, SignOff, Week
from migrations_app.models import Plan as PlanRow
from migrations_app.models.gateways import next_generation
from migrations_app.planfile.conflicts import conflicts
from migrations_app.planfile.diff import Difference, compare, same_promise, touched_weeks
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.rows import write_rows
from migrations_app.planfile.schema import Plan, fingerprint
from migrations_app.roles import Permission


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did. `revision` grows with each load that changed something; `generation` is the routing table's."""

    difference: Difference
    revision: int
    generation: int

    @property
    def changed(self) -> bool:
        return bool(self.difference)


def load_plan(plan: Plan, *, actor: Actor, reason: str = "") -> Loaded:
    """Make the database hold this plan, its loopback ports moved by PORT_OFFSET. Loading it again changes nothing.

    Raises NotPermitted; PlanConflict, with every change that a started week or traffic on the new side forbids; and
    PlanFileError when the offset takes a port out of range. Whatever is raised, nothing was changed.
    """
    actor.require(Permission.LOAD_PLAN, "load plans")
    plan = shift_ports(plan, settings.PORT_OFFSET)
    with transaction.atomic():
        row = _locked_row(plan)
        old = _document(row) if row.revision else None
        difference = compare(old, plan)
        if not difference:
            return Loaded(difference, row.revision, row.generation)
        if old is not None:
            _refuse_conflicts(old, plan)
            if difference.routing:
                row.generation = next_generation(row, row.gateways.all())
        lost = _lost_sign_offs(old, plan) if old else []
        touched = touched_weeks(old, plan) if old else set()
        write_rows(row, plan, old, touched=touched, actor=actor.name)
        row.revision += 1
        row.document = plan.model_dump(mode="json")
        row.loaded_at = timezone.now()
        row.save(update_fields=["generation", "revision", "document", "loaded_at"])
        _record(row, old, plan, difference, lost, actor=actor, reason=reason)
        return Loaded(difference, row.revision, row.generation)


def current_plan() -> Plan:
    """The plan that the database holds, with its loopback ports as they are in use. Raises NotFound."""
    row = PlanRow.objects.defer(None).exclude(revision=0).first()
    if row is None:
        raise NotFound("No plan is loaded. Load one with: manage.py plan load plans/tracseq-phase2.yaml")
    return _document(row)


def _locked_row(plan: Plan) -> PlanRow:
    # Two first loads at once meet here: the second waits for the first, and then finds its row.
    empty = PlanRow(key=plan.plan.key, title=plan.plan.title, monolith_host="127.0.0.1", monolith_port=1)
    PlanRow.objects.bulk_create([empty], ignore_conflicts=True)
    return PlanRow.objects.defer(None).select_for_update().get()


def _document(row: PlanRow) -> Plan:
    return Plan.model_validate_json(json.dumps(row.document))


def _refuse_conflicts(old: Plan, plan: Plan) -> None:
    started = set(Week.objects.filter(started_at__isnull=False).values_list("number", flat=True))
    on = set(Flag.objects.filter(weight__gt=0).values_list("key", flat=True))
    if found := conflicts(old, plan, started=started, on=on):
        raise PlanConflict(found)


def _lost_sign_offs(old: Plan, new: Plan) -> list[str]:
    """What the audit log keeps of sign-offs that do not survive: `week 2 / backup: ticked by alice`."""
    before = {(week.number, item.key): item for week in old.weeks for item in week.prerequisites}
    after = {(week.number, item.key): item for week in new.weeks for item in week.prerequisites}
    lost = {place for place, item in before.items() if place not in after or not same_promise(item, after[place])}
    live = SignOff.objects.filter(withdrawn_at=None).select_related("prerequisite__week").order_by("pk")
    found = []
    for sign_off in live:
        number, key = sign_off.prerequisite.week.number, sign_off.prerequisite.key
        if (number, key) in lost:
            at = sign_off.ticked_at.isoformat(timespec="seconds")
            found.append(f"week {number} / {key}: ticked by {sign_off.actor} at {at}")
    return found


def _record(
    row: PlanRow, old: Plan | None, plan: Plan, difference: Difference, lost: list[str], *, actor: Actor, reason: str
) -> None:
    before: dict[str, Any] = {"revision": row.revision - 1}
    if old is not None:
        before["fingerprint"] = fingerprint(old)
    after = {
        "revision": row.revision,
        "fingerprint": fingerprint(plan),
        "difference": list(difference.lines),
        "sign_offs_withdrawn": lost,
    }
    record(
        AuditKind.PLAN_LOADED,
        actor=actor,
        subject=f"plan {plan.plan.key}",
        reason=reason,
        before=before,
        after=after,
        generation=row.generation if difference.routing else None,
    )
