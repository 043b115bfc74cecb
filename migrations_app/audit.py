"""Appends to the audit log. Called inside the transaction of the change that it tells of."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.choices import AuditKind
from migrations_app.gates.verdict import Verdict
from migrations_app.live import CHANNEL, Topic, messages
from migrations_app.models import AuditEvent
from migrations_app.models.audit import CHAIN_LOCK, GENESIS


def record(
    kind: AuditKind,
    *,
    actor: Actor,
    subject: str,
    week_number: int | None = None,
    reason: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    verdict: Verdict | None = None,
    generation: int | None = None,
    request_key: UUID | None = None,
    at: datetime | None = None,
) -> AuditEvent:
    """Append one event to the chain. The chain's lock is held until the transaction ends, so there is one order.

    `at` is now, unless the event tells of a gate: then it is the moment that the gate was judged at.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("an audit event belongs in the transaction of its change")
    topic = Topic.ACCOUNT if kind.startswith(("account.", "token.")) else Topic.PLAN
    (told,) = messages(topic, "" if week_number is None else str(week_number))
    with connection.cursor() as cursor:
        # Live pages are told in the same question: this is on the way of every click.
        cursor.execute("SELECT pg_advisory_xact_lock(%s), pg_notify(%s, %s)", [CHAIN_LOCK, CHANNEL, told])
    last = AuditEvent.objects.order_by("-id").values_list("digest", flat=True).first()
    event = AuditEvent(
        at=at or timezone.now(),
        kind=kind.value,
        actor=actor.name,
        actor_kind=actor.kind,
        via=actor.via,
        subject=subject,
        week_number=week_number,
        reason=reason,
        before=before or {},
        after=after or {},
        verdict=verdict.as_json() if verdict else None,
        generation=generation,
        request_key=request_key,
        previous_digest=last or GENESIS,
    )
    event.digest = event.content_digest()
    event.save(force_insert=True)
    return event
