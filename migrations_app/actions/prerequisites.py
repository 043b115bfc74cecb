"""Tick and untick the manual lines of a checklist."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, PrerequisiteKind
from migrations_app.errors import Invalid, NotFound
from migrations_app.gates.target import targets
from migrations_app.models import Evidence, Prerequisite, SignOff
from migrations_app.roles import Permission

from .change import Change, event_of_click, grow_version, lock_plan, no_change, refuse_spent, refuse_stale
from .evidence import UploadedEvidence, accept, clean_name, keep, told
from .refusals import Asked, refusals_recorded

LONGEST_LINK = 1000  # characters
_TICK, _UNTICK = "tick prerequisites", "untick prerequisites"


def tick(
    *,
    prerequisite_id: int,
    actor: Actor,
    note: str = "",
    link: str = "",
    evidence: UploadedEvidence | None = None,
    seen: int | None = None,
    request_key: UUID | None = None,
) -> Change:
    """Sign a manual prerequisite off, with a note and, as evidence, an address or a file.

    It lasts for the line's `valid_for`, in real time, and only while the week's target stays as it is. Ticked already:
    nothing changes; one whose time is over, or that is void, is withdrawn and this one takes its place.
    Raises NotPermitted, NotFound, Invalid (an automatic line, a link or a file that is not taken), Stale.
    """
    asked = {"prerequisite": prerequisite_id, "link": _plain(link), "seen": seen, "request_key": request_key}
    asked["evidence"] = clean_name(evidence.name) if evidence else None
    subject = f"prerequisite {prerequisite_id}"
    with refusals_recorded(_TICK, actor=actor, subject=subject, reason=note, **asked) as about:
        actor.require(Permission.TICK, _TICK)
        _find(prerequisite_id, about)
        # Megabytes are read before the plan is locked: a rollback may be waiting for it.
        link, file = _link(link), accept(evidence) if evidence else None
        with transaction.atomic():
            plan = lock_plan()
            row = _find(prerequisite_id, about)
            earlier, now = event_of_click(request_key), timezone.now()
            target = targets([row.week.number])[row.week.number]
            old = _live(row)
            over = why_over(old, target=target, now=now) if old else ""
            if old and not over:
                return no_change(plan, earlier, AuditKind.PREREQUISITE_TICKED, about.subject, row.title)
            actor.require_still(Permission.TICK, _TICK)
            refuse_spent(earlier)
            refuse_stale(row.week, seen)
            if old:
                _withdraw(old, by=over, at=now)
            sign_off = SignOff.objects.create(
                prerequisite=row,
                account=actor.account,
                actor=actor.name,
                note=note,
                link=link,
                vouches_for=target,
                ticked_at=now,
                expires_at=now + row.valid_for if row.valid_for else None,
            )
            if file:
                keep(file, sign_off)
            event = record(
                AuditKind.PREREQUISITE_TICKED,
                actor=actor,
                subject=about.subject,
                week_number=row.week.number,
                reason=note,
                before={"held": False} | ({"was": over, "by": old.actor, "note": old.note} if old else {}),
                after={"held": True} | _given(sign_off, file),
                request_key=request_key,
            )
            grow_version(row.week)
            return Change(row.title, plan.generation, changed=True, event=event)


def untick(
    *, prerequisite_id: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Withdraw a sign-off; the row of who had ticked it stays. Not ticked: nothing changes. Raises as `tick` does."""
    asked = {"prerequisite": prerequisite_id, "seen": seen, "request_key": request_key}
    subject = f"prerequisite {prerequisite_id}"
    with refusals_recorded(_UNTICK, actor=actor, subject=subject, reason=reason, **asked) as about:
        actor.require(Permission.TICK, _UNTICK)
        with transaction.atomic():
            plan = lock_plan()
            row = _find(prerequisite_id, about)
            earlier = event_of_click(request_key)
            sign_off = _live(row)
            if sign_off is None:
                return no_change(plan, earlier, AuditKind.PREREQUISITE_UNTICKED, about.subject, row.title)
            actor.require_still(Permission.TICK, _UNTICK)
            refuse_spent(earlier)
            refuse_stale(row.week, seen)
            _withdraw(sign_off, by=actor.name, at=timezone.now())
            event = record(
                AuditKind.PREREQUISITE_UNTICKED,
                actor=actor,
                subject=about.subject,
                week_number=row.week.number,
                reason=reason,
                before={"held": True, "by": sign_off.actor, "note": sign_off.note},
                after={"held": False},
                request_key=request_key,
            )
            grow_version(row.week)
            return Change(row.title, plan.generation, changed=True, event=event)


def why_over(sign_off: SignOff, *, target: str, now: datetime) -> str:
    """Why a sign-off counts no more, as gates.verdict judges it: `void` or `expired`. Nothing for one that does."""
    if sign_off.vouches_for not in {"", target}:
        return "void"
    return "expired" if sign_off.expires_at is not None and sign_off.expires_at <= now else ""


def _find(prerequisite_id: int, about: Asked) -> Prerequisite:
    row = Prerequisite.objects.select_related("week").filter(pk=prerequisite_id).first()
    if row is None:
        raise NotFound(f"There is no prerequisite {prerequisite_id}. List them with: manage.py prerequisite list")
    about.subject, about.week = subject_of(row), row.week.number
    if row.kind == PrerequisiteKind.AUTOMATIC:
        raise Invalid(f"“{row.title}” is checked automatically; nobody ticks it.")
    return row


def subject_of(row: Prerequisite) -> str:
    """What the audit log calls a line."""
    return f"week {row.week.number} / {row.key}"


def _live(row: Prerequisite) -> SignOff | None:
    return row.sign_offs.filter(withdrawn_at__isnull=True).first()


def _withdraw(sign_off: SignOff, *, by: str, at: datetime) -> None:
    sign_off.withdrawn_at, sign_off.withdrawn_by = at, by
    sign_off.save(update_fields=["withdrawn_at", "withdrawn_by"])


def _link(typed: str) -> str:
    """An address as it may stand behind a link. Raises Invalid, naming the field."""
    link = typed.strip()
    if not link:
        return ""
    if len(link) > LONGEST_LINK:
        raise Invalid(f"Link: it has {len(link)} characters; {LONGEST_LINK} are kept.")
    try:
        parts = urlsplit(link)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not link.isprintable() or any(one.isspace() or one in '<>"\\' for one in link):
        raise Invalid("Link: it must be an address that begins with https:// or http://.")
    return link


def _plain(typed: str) -> str:
    """What the database takes as text: without halves of characters, and without NUL."""
    return typed.encode("utf-8", "replace").decode().replace("\x00", "?")


def _given(sign_off: SignOff, file: Evidence | None) -> dict[str, Any]:
    """What came with a sign-off, for the audit log."""
    given: dict[str, Any] = {}
    if sign_off.link:
        given["link"] = sign_off.link
    if file:
        given["evidence"] = told(file)
    if sign_off.expires_at:
        given["expires_at"] = sign_off.expires_at.isoformat()
    return given
