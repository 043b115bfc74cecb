"""Tick and untick the manual lines of a checklist."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, PrerequisiteKind
from migrations_app.errors import Invalid, NotFound
from migrations_app.gates.target import targets
from migrations_app.models import Prerequisite, SignOff
from migrations_app.roles import Permission

from .change import Change, event_of_click, grow_version, lock_plan, no_change, refuse_spent, refuse_stale


def tick(
    *, prerequisite_id: int, actor: Actor, note: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Sign a manual prerequisite off, with a note. Already ticked: nothing changes.

    Raises NotPermitted, NotFound, Invalid (an automatic line), Stale.
    """
    actor.require(Permission.TICK, "tick prerequisites")
    with transaction.atomic():
        plan = lock_plan()
        row = _find(prerequisite_id)
        subject, earlier = _subject(row), event_of_click(request_key)
        if _live(row):
            return no_change(plan, earlier, AuditKind.PREREQUISITE_TICKED, subject, row.title)
        refuse_spent(earlier)
        refuse_stale(row.week, seen)
        SignOff.objects.create(
            prerequisite=row,
            account=actor.account,
            actor=actor.name,
            note=note,
            vouches_for=targets([row.week.number])[row.week.number],
            ticked_at=timezone.now(),
        )
        event = record(
            AuditKind.PREREQUISITE_TICKED,
            actor=actor,
            subject=subject,
            week_number=row.week.number,
            reason=note,
            before={"held": False},
            after={"held": True},
            request_key=request_key,
        )
        grow_version(row.week)
        return Change(row.title, plan.generation, changed=True, event=event)


def untick(
    *, prerequisite_id: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Withdraw a sign-off; the row of who had ticked it stays. Not ticked: nothing changes. Raises as `tick` does."""
    actor.require(Permission.TICK, "untick prerequisites")
    with transaction.atomic():
        plan = lock_plan()
        row = _find(prerequisite_id)
        subject, earlier = _subject(row), event_of_click(request_key)
        sign_off = _live(row)
        if sign_off is None:
            return no_change(plan, earlier, AuditKind.PREREQUISITE_UNTICKED, subject, row.title)
        refuse_spent(earlier)
        refuse_stale(row.week, seen)
        sign_off.withdrawn_at, sign_off.withdrawn_by = timezone.now(), actor.name
        sign_off.save(update_fields=["withdrawn_at", "withdrawn_by"])
        event = record(
            AuditKind.PREREQUISITE_UNTICKED,
            actor=actor,
            subject=subject,
            week_number=row.week.number,
            reason=reason,
            before={"held": True, "by": sign_off.actor, "note": sign_off.note},
            after={"held": False},
            request_key=request_key,
        )
        grow_version(row.week)
        return Change(row.title, plan.generation, changed=True, event=event)


def _find(prerequisite_id: int) -> Prerequisite:
    row = Prerequisite.objects.select_related("week").filter(pk=prerequisite_id).first()
    if row is None:
        raise NotFound(f"There is no prerequisite {prerequisite_id}. List them with: manage.py prerequisite list")
    if row.kind == PrerequisiteKind.AUTOMATIC:
        raise Invalid(f"“{row.title}” is checked automatically; nobody ticks it.")
    return row


def _subject(row: Prerequisite) -> str:
    return f"week {row.week.number} / {row.key}"


def _live(row: Prerequisite) -> SignOff | None:
    return row.sign_offs.filter(withdrawn_at__isnull=True).first()
