"""Enable a whole week, roll it back, and call it done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Phase, WeekStatus
from migrations_app.errors import GateClosed, NotFound, Stale
from migrations_app.gates.load import done_verdicts, verdicts
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.models import Flag, Plan, Week
from migrations_app.roles import Permission

from .change import (
    NO_PLAN,
    Change,
    Move,
    event_of_click,
    lock_plan,
    newest_generation,
    no_change,
    refuse_spent,
    refuse_stale,
    require_reason,
    shift,
)
from .dependents import weeks_resting_on
from .fresh import refuse_old_checks, with_fresh_checks
from .spent_approvals import spend_approval
from .week_status import set_status


def enable_week(
    *,
    number: int,
    actor: Actor,
    reason: str = "",
    seen: int | None = None,
    request_key: UUID | None = None,
    past_no_return: bool = False,
) -> Change:
    """Move all services of a week fully to the new side, if its gate is open. One that moves no traffic is started.

    Raises NotPermitted, NotFound, Stale, Invalid (a high risk without a reason, a point of no return without
    `past_no_return`), or GateClosed.
    """
    actor.require(Permission.ENABLE, "enable weeks")
    if not find_week(number).moves_traffic:
        return _start(number, actor=actor, reason=reason, seen=seen, request_key=request_key)

    def find() -> Move:
        return replace(_move(number, AuditKind.WEEK_ENABLED, SERVICE_WEIGHT), past_no_return=past_no_return)

    asked_at = newest_generation()
    return shift(find, actor=actor, reason=reason, seen=seen, request_key=request_key, asked_at=asked_at)


def roll_back_week(
    *,
    number: int,
    actor: Actor,
    reason: str = "",
    with_later: bool = False,
    told: Mapping[str, Any] | None = None,
    measured_at: Mapping[str, int] | None = None,
    request_key: UUID | None = None,
) -> Change:
    """Move all services of a week back to the monolith, at one generation. No gate, never stale, safe to repeat.

    `with_later`: those of the weeks that come after it too, at the same generation, and of those that come after them.

    Where it is no person who asks: `told` is what was measured, and `measured_at` has the generation of each flag that
    it was measured at; when another is on by now, or at another one, Stale. Raises NotPermitted, NotFound.
    """
    actor.require(Permission.ROLL_BACK, "roll back")

    def find() -> Move:
        move = replace(_move(number, AuditKind.WEEK_ROLLED_BACK, MONOLITH_WEIGHT), told=told or {})
        on = {flag.key: flag.generation for flag in move.flags if flag.is_on}
        if measured_at is not None and any(measured_at.get(key) != generation for key, generation in on.items()):
            raise Stale(f"Week {number} was moved since it was measured. Nothing was done.")
        later = weeks_resting_on(number) if with_later else []
        if not later:
            return move
        flags = Flag.objects.filter(week__in=later)
        return replace(
            move, title=f"Week {number} with what rests on it", flags=(*move.flags, *flags), others=tuple(later)
        )

    return shift(find, actor=actor, reason=reason, request_key=request_key)


def finish_week(
    *, number: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Call a week done: it has soaked, and its done-criteria hold. Done already: nothing changes.

    Raises NotPermitted, NotFound, Stale, or GateClosed with what is missing.
    """
    actor.require(Permission.FINISH, "call a week done")

    def attempt(fresh_since: datetime | None) -> Change:
        with transaction.atomic():
            plan = lock_plan()
            week = find_week(number)
            earlier, subject = event_of_click(request_key), f"week {number}"
            if week.status == WeekStatus.DONE:
                return no_change(plan, earlier, AuditKind.WEEK_DONE, subject, f"Week {number}")
            actor.require_still(Permission.FINISH, "call a week done")
            refuse_spent(earlier)
            refuse_stale(week, seen)
            now = timezone.now()
            verdict = done_verdicts(weeks=[number], now=now)[number]
            refuse_old_checks(verdict, Phase.DONE, fresh_since)
            if not verdict.open:
                raise GateClosed(verdict, subject)
            before = week.status
            event = record(
                AuditKind.WEEK_DONE,
                actor=actor,
                subject=subject,
                week_number=number,
                reason=reason,
                before={"status": before},
                after={"status": WeekStatus.DONE.value},
                verdict=verdict,
                request_key=request_key,
                at=now,
            )
            week.status, week.done_at, week.done_by = WeekStatus.DONE, event.at, actor.name
            week.version += 1
            week.save(update_fields=["status", "done_at", "done_by", "version"])
            return Change(f"Week {number}", plan.generation, changed=True, event=event)

    return with_fresh_checks(attempt, refused=AuditKind.DONE_REFUSED, actor=actor, reason=reason)


def find_week(number: int) -> Week:
    """Raises NotFound."""
    week = Week.objects.filter(number=number).first()
    if week is None:
        if not Plan.objects.exists():
            raise NotFound(NO_PLAN)
        raise NotFound(f"The plan has no week {number}. List the weeks with: manage.py week list")
    return week


def _start(number: int, *, actor: Actor, reason: str, seen: int | None, request_key: UUID | None) -> Change:
    """A week without flags goes through the same gate; from then on it soaks. Nothing changes at the gateway."""

    def attempt(fresh_since: datetime | None) -> Change:
        with transaction.atomic():
            plan = lock_plan()
            week = find_week(number)
            earlier, subject = event_of_click(request_key), f"week {number}"
            if week.status != WeekStatus.PLANNED:
                return no_change(plan, earlier, AuditKind.WEEK_STARTED, subject, f"Week {number}")
            actor.require_still(Permission.ENABLE, "enable weeks")
            refuse_spent(earlier)
            refuse_stale(week, seen)
            now = timezone.now()
            verdict = verdicts(weeks=[number], now=now)[number]
            refuse_old_checks(verdict, Phase.START, fresh_since)
            if not verdict.open:
                raise GateClosed(verdict, subject)
            require_reason(week, reason)
            event = record(
                AuditKind.WEEK_STARTED,
                actor=actor,
                subject=subject,
                week_number=number,
                reason=reason,
                before={"status": week.status},
                after={"status": WeekStatus.SOAKING.value},
                verdict=verdict,
                request_key=request_key,
                at=now,
            )
            spend_approval(week, [], SERVICE_WEIGHT, event.at)
            set_status(week, event.at)
            return Change(f"Week {number}", plan.generation, changed=True, event=event)

    return with_fresh_checks(attempt, refused=AuditKind.ENABLE_REFUSED, actor=actor, reason=reason)


def _move(number: int, kind: AuditKind, weight: int) -> Move:
    week = find_week(number)
    flags = tuple(Flag.objects.filter(week=week).select_related("service"))
    return Move(kind, f"week {number}", f"Week {number}", week, flags, weight)
