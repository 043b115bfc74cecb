"""Say afterwards why something was rolled back. Its event is never changed: a second one points at it."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound, Stale
from migrations_app.models import AuditEvent, ReasonAsked
from migrations_app.roles import Permission

from .change import Change, event_of_click


def give_reason(*, event: int, actor: Actor, reason: str, request_key: UUID | None = None) -> Change:
    """Say why, of a rollback that a person made without a reason: its author may, and whoever manages accounts.

    `event` is the number of the rollback's audit event. Raises NotPermitted, NotFound, Invalid (no reason, or none is
    asked for), and Stale when it was given already.
    """
    with transaction.atomic():
        asked = ReasonAsked.objects.select_for_update(of=("self",)).select_related("event").filter(pk=event).first()
        if asked is None:
            if not AuditEvent.objects.filter(pk=event).exists():
                raise NotFound(f"There is no event {event}. List them with: manage.py audit list")
            raise Invalid(f"Event {event} needs no reason: only a rollback that a person made without one does.")
        told = asked.event
        title, generation = f"Event {event}", told.generation or 0
        if actor.account is not None and actor.account.pk != asked.account_id:
            actor.require(Permission.MANAGE_ACCOUNTS, "say why somebody else rolled back")
        earlier = event_of_click(request_key)
        if earlier and earlier.pk == asked.answer_id:
            return Change(title, generation, changed=False, event=earlier)
        if not reason.strip():
            raise Invalid("Say why: a few words are enough.", "reason")
        if asked.answer_id is not None:
            raise Stale(f"Somebody has said already why event {event} was. Nothing was done; look again.")
        answer = record(
            AuditKind.REASON_GIVEN,
            actor=actor,
            subject=told.subject,
            week_number=told.week_number,
            reason=reason.strip(),
            after={"event": event},
            request_key=None if earlier else request_key,
        )
        asked.answer = answer
        asked.save(update_fields=["answer"])
        return Change(title, generation, changed=True, event=answer)
