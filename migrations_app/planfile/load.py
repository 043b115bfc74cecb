"""Loads a plan into the database: all of it or nothing, and nothing that breaks a promise already made."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, WeekStatus
from migrations_app.errors import Invalid, NotFound, PlanConflict
from migrations_app.gates.target import NOTHING, targets
from migrations_app.models import ApprovalRequest, Flag, Override, Prerequisite, SignOff, Week
from migrations_app.models import Plan as PlanRow
from migrations_app.models.gateways import next_generation
from migrations_app.planfile.conflicts import conflicts, scale_conflicts
from migrations_app.planfile.diff import Difference, compare, touched_weeks
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.rows import broken_promises, checklist, forget_results, write_rows
from migrations_app.planfile.schema import Plan, fingerprint
from migrations_app.roles import Permission

PLACE_FORM = "DIR,URL,ADMIN_URL"
MAX_TIME_SCALE = 86_400  # a day in a second


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did. `revision` grows with each load that changed something; `generation` is the routing table's."""

    difference: Difference
    revision: int
    generation: int
    time_scale: int

    @property
    def changed(self) -> bool:
        return bool(self.difference)


def load_plan(plan: Plan, *, actor: Actor, reason: str = "", time_scale: int = 1) -> Loaded:
    """Make the database hold this plan, its loopback ports moved by PORT_OFFSET. Loading it again changes nothing.

    With a time scale, for demos and tests, what has to be waited for takes this many times less time. Raises
    NotPermitted; Invalid for a time scale that is out of range, or is not 1 in production, and for gateways that the
    settings do not place; PlanConflict, with every change that a started week or traffic on the new side forbids; and
    PlanFileError when the offset takes a port out of range. Whatever is raised, nothing was changed.
    """
    actor.require(Permission.LOAD_PLAN, "load plans")
    refuse_scale(time_scale)
    refuse_unknown_gateways(plan)
    plan = shift_ports(plan, settings.PORT_OFFSET)
    with transaction.atomic():
        row = _locked_row(plan)
        old = _document(row) if row.revision else None
        difference = compare_with(old, row.time_scale, plan, time_scale)
        if not difference:
            return Loaded(difference, row.revision, row.generation, row.time_scale)
        actor.require_still(Permission.LOAD_PLAN, "load plans")
        if old is not None:
            _refuse_conflicts(old, row.time_scale, plan, time_scale)
            if difference.routing:
                row.generation = next_generation(row, row.gateways.all())
        lost = _lost_sign_offs(old, plan) if old else {}
        before, ended = targets() if old else {}, list[str]()
        write_rows(row, plan, old, touched=_touched(old, plan, row.time_scale, time_scale), actor=actor.name)
        if old is not None:
            moved = _moved(before)
            lost |= _void_sign_offs(moved, actor.name)
            ended = _void_overrides(moved, actor.name)
            if difference.routing or time_scale != row.time_scale:
                forget_results(Prerequisite.objects.all())
        row.revision += 1
        row.time_scale = time_scale
        row.document = plan.model_dump(mode="json")
        row.loaded_at = timezone.now()
        row.save(update_fields=["generation", "revision", "time_scale", "document", "loaded_at"])
        void = {"sign_offs_withdrawn": [lost[key] for key in sorted(lost)]}
        if ended:
            void["overrides_ended"] = ended
        _record(row, old, plan, difference, void, actor=actor, reason=reason)
        return Loaded(difference, row.revision, row.generation, row.time_scale)


def compare_with(old: Plan | None, old_scale: int, new: Plan, new_scale: int) -> Difference:
    """What a load changes: the plan, and the time scale."""
    difference = compare(old, new)
    if old_scale == new_scale:
        return difference
    return replace(difference, lines=(*difference.lines, f"time scale {old_scale} -> {new_scale}"))


def current_scale() -> int:
    """The time scale that the plan of the database was loaded with; 1 without a plan."""
    return PlanRow.objects.values_list("time_scale", flat=True).first() or 1


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


def refuse_scale(time_scale: int) -> None:
    """Raises Invalid for a time scale that no plan can be loaded with here."""
    if not 1 <= time_scale <= MAX_TIME_SCALE:
        raise Invalid(f"A time scale is a whole number from 1 to {MAX_TIME_SCALE}, not {time_scale}.")
    if settings.PRODUCTION and time_scale != 1:
        raise Invalid("A time scale is for demos and tests; in production a soak takes the time that the plan says.")


def refuse_unknown_gateways(plan: Plan) -> None:
    """Raises Invalid, naming the key and the setting, for a gateway of which the settings do not say where it runs."""
    if plan.gateway.adapter != "envoy":
        return
    if plan.gateway.key in settings.GATEWAYS:
        raise Invalid(
            f"GATEWAYS names {plan.gateway.key}, but the plan's `gateway.key` is at GATEWAY_DIR, GATEWAY_URL and "
            "GATEWAY_ADMIN_URL: leave it out of GATEWAYS."
        )
    unknown = [key for key in plan.gateway.keys if key != plan.gateway.key and key not in settings.GATEWAYS]
    if unknown:
        raise Invalid(
            f"Nothing says where {' and '.join(unknown)} run{'s' if len(unknown) == 1 else ''}. Name "
            f"{'it' if len(unknown) == 1 else 'them'} in the setting GATEWAYS, such as {unknown[0]}={PLACE_FORM}, for "
            "every process of Switchyard; then load the plan."
        )


def _refuse_conflicts(old: Plan, old_scale: int, plan: Plan, time_scale: int) -> None:
    started = set(Week.objects.filter(started_at__isnull=False).values_list("number", flat=True))
    soaking = set(Week.objects.filter(status=WeekStatus.SOAKING).values_list("number", flat=True))
    on = set(Flag.objects.filter(weight__gt=0).values_list("key", flat=True))
    found = conflicts(old, plan, started=started, on=on) + scale_conflicts(old_scale, time_scale, soaking=soaking)
    if found:
        raise PlanConflict(found)


def _touched(old: Plan | None, plan: Plan, old_scale: int, time_scale: int) -> Collection[int]:
    """The weeks whose page reads differently from now on: a new revision also makes requests for approval void."""
    if old is None:
        return set()
    if time_scale != old_scale:
        return {week.number for week in plan.weeks}
    waiting = ApprovalRequest.objects.filter(closed_at=None, spent_at=None).values_list("week__number", flat=True)
    return touched_weeks(old, plan) | set(waiting)


def _lost_sign_offs(old: Plan, new: Plan) -> dict[int, str]:
    """Primary key -> what the audit log keeps of it, for sign-offs of lines that promise something else now."""
    after = {week.number: checklist(week) for week in new.weeks}
    lost = {
        (week.number, key) for week in old.weeks for key in broken_promises(checklist(week), after.get(week.number, {}))
    }
    live = SignOff.objects.filter(withdrawn_at=None).select_related("prerequisite__week")
    return {
        sign_off.pk: _told(sign_off)
        for sign_off in live
        if (sign_off.prerequisite.week.number, sign_off.prerequisite.key) in lost
    }


def _moved(before: dict[int, str]) -> set[int]:
    """Numbers of the weeks that move something else than their targets `before` say."""
    after = targets()
    return {number for number in before.keys() | after if before.get(number, NOTHING) != after.get(number, NOTHING)}


def _void_overrides(moved: Collection[int], actor: str) -> list[str]:
    """End those of weeks that have moved: moving back must not break the glass again. A line of the audit log each."""
    now = timezone.now()
    live = Override.objects.filter(ended_at=None, expires_at__gt=now, week__number__in=moved).select_related("week")
    told = [f"week {row.week.number}: {', '.join(row.lines)}, by {row.actor}" for row in live.order_by("pk")]
    live.update(ended_at=now, ended_by=actor)
    return told


def _void_sign_offs(moved: Collection[int], actor: str) -> dict[int, str]:
    """Withdraw those of weeks that have moved; primary key -> what the audit log keeps of it."""
    live = SignOff.objects.filter(withdrawn_at=None, prerequisite__week__number__in=moved)
    void = {
        sign_off.pk: f"{_told(sign_off)}, void: the week's flags, routes or upstreams have changed"
        for sign_off in live.select_related("prerequisite__week")
    }
    SignOff.objects.filter(pk__in=void).update(withdrawn_at=timezone.now(), withdrawn_by=actor)
    return void


def _told(sign_off: SignOff) -> str:
    """`week 2 / backup: ticked by alice at ...`"""
    place = f"week {sign_off.prerequisite.week.number} / {sign_off.prerequisite.key}"
    return f"{place}: ticked by {sign_off.actor} at {sign_off.ticked_at.isoformat(timespec='seconds')}"


def _record(
    row: PlanRow,
    old: Plan | None,
    plan: Plan,
    difference: Difference,
    void: dict[str, list[str]],
    *,
    actor: Actor,
    reason: str,
) -> None:
    before: dict[str, Any] = {"revision": row.revision - 1}
    if old is not None:
        before["fingerprint"] = fingerprint(old)
    after = {
        "revision": row.revision,
        "time_scale": row.time_scale,
        "fingerprint": fingerprint(plan),
        "difference": list(difference.lines),
        **void,
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
