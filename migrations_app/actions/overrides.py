"""Break the glass: open a closed gate for minutes, line by line, by name and with a reason; and end that early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from migrations_app.actor import SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid
from migrations_app.gates.load import verdicts
from migrations_app.gates.target import targets
from migrations_app.gates.verdict import Verdict
from migrations_app.models import AuditEvent, Override, Week
from migrations_app.roles import Permission

from .change import Change, event_of_click, grow_version, lock_plan, no_change, refuse_spent, refuse_stale
from .refusals import clipped, refusals_recorded
from .weeks import find_week

LONGEST = 120  # minutes


def override_gate(
    *,
    number: int,
    lines: Collection[str],
    minutes: int,
    actor: Actor,
    reason: str,
    seen: int | None = None,
    request_key: UUID | None = None,
) -> Change:
    """Let the named lines of the week's gate block nothing for so many minutes. It enables nothing by itself.

    `lines` are keys of lines that do not hold now. It takes the place of an override that the week has. It is void once
    the week's target changes. Only the same click again changes nothing: each override has a reason of its own.
    Raises NotPermitted, NotFound, Invalid (no reason, no line, a line that does not block, too long), Stale.
    """
    asked = {"lines": lines, "minutes": minutes, "seen": seen, "request_key": request_key}
    with refusals_recorded("override the gate", actor=actor, subject=f"week {number}", reason=reason, **asked) as about:
        actor.require(Permission.OVERRIDE, "override a gate")
        _require_sense(lines, minutes, reason)
        with transaction.atomic():
            plan = lock_plan()
            week = find_week(number)
            about.week = number
            actor.require_still(Permission.OVERRIDE, "override a gate")
            earlier, now = event_of_click(request_key), timezone.now()
            live = _live(week, now)
            if live is not None and _made_by(live, earlier, week):
                return no_change(plan, earlier, AuditKind.GATE_OVERRIDDEN, _subject(week), _title(week))
            refuse_spent(earlier)
            refuse_stale(week, seen)
            verdict = verdicts(weeks=[number], now=now)[number]
            _require_blocking(lines, verdict)
            _end(week, now, by=actor)
            row = Override.objects.create(
                week=week,
                lines=sorted(set(lines)),
                vouches_for=targets([number])[number],
                account=actor.account,
                actor=actor.name,
                reason=reason.strip(),
                at=now,
                expires_at=now + timedelta(minutes=minutes),
            )
            event = record(
                AuditKind.GATE_OVERRIDDEN,
                actor=actor,
                subject=_subject(week),
                week_number=number,
                reason=reason.strip(),
                before=_told(live) if live else {},
                after=_told(row),
                verdict=verdict,
                request_key=request_key,
            )
            grow_version(week)
            return Change(_title(week), plan.generation, changed=True, event=event)


def end_override(*, number: int, actor: Actor, reason: str = "", request_key: UUID | None = None) -> Change:
    """End the override of a week before its time. When there is none, or its time is over, nothing changes.

    Raises NotPermitted, NotFound, Stale (the click has ended another one before).
    """
    with refusals_recorded(
        "end the override", actor=actor, subject=f"week {number}", reason=reason, request_key=request_key
    ) as about:
        actor.require(Permission.OVERRIDE, "end an override")
        with transaction.atomic():
            plan = lock_plan()
            week = find_week(number)
            about.week = number
            actor.require_still(Permission.OVERRIDE, "end an override")
            earlier, now = event_of_click(request_key), timezone.now()
            live = _live(week, now)
            if live is None:
                _end(week, now, by=actor)
                return no_change(plan, earlier, AuditKind.OVERRIDE_ENDED, _subject(week), _title(week))
            refuse_spent(earlier)
            _end(week, now, by=actor)
            event = record(
                AuditKind.OVERRIDE_ENDED,
                actor=actor,
                subject=_subject(week),
                week_number=number,
                reason=reason,
                before=_told(live),
                after={"lines": []},
                request_key=request_key,
            )
            grow_version(week)
            return Change(_title(week), plan.generation, changed=True, event=event)


def _require_sense(lines: Collection[str], minutes: int, reason: str) -> None:
    if not reason.strip():
        raise Invalid("Say why: an override needs a reason, and the audit log keeps it.")
    if not 1 <= minutes <= LONGEST:
        raise Invalid(f"An override lasts from 1 to {LONGEST} minutes, not {minutes}.")
    if not lines:
        raise Invalid("Name the lines of the gate to override.")


def _require_blocking(lines: Collection[str], verdict: Verdict) -> None:
    """Lines that an override already lets through count as well: it may be prolonged. Raises Invalid."""
    closed = {line.key for line in verdict.lines if not line.held}
    if unknown := sorted(set(lines) - closed):
        named = clipped(", ".join(unknown))
        blocking = f"These do: {', '.join(sorted(closed))}." if closed else "Its gate is open."
        raise Invalid(f"Nothing called {named} blocks week {verdict.week} now. {blocking}")
    times = Counter(line.key for line in verdict.lines)
    if shared := sorted(key for key in set(lines) if times[key] > 1):
        raise Invalid(f"More than one line is called {', '.join(shared)}: it would let through what nobody has named.")


def _live(week: Week, now: datetime) -> Override | None:
    """The week's override whose time is not over."""
    return Override.objects.filter(week=week, ended_at__isnull=True, expires_at__gt=now).first()


def _end(week: Week, now: datetime, *, by: Actor) -> None:
    """Close what the week has. One whose time was over ended then, and by itself."""
    for row in Override.objects.filter(week=week, ended_at__isnull=True):
        expired = row.expires_at <= now
        row.ended_at, row.ended_by = (row.expires_at, SYSTEM.name) if expired else (now, by.name)
        row.save(update_fields=["ended_at", "ended_by"])


def _made_by(live: Override, event: AuditEvent | None, week: Week) -> bool:
    if event is None or (event.kind, event.subject) != (AuditKind.GATE_OVERRIDDEN, _subject(week)):
        return False
    told: dict[str, Any] = event.after
    return told == _told(live)


def _told(row: Override) -> dict[str, Any]:
    return {"lines": row.lines, "expires_at": row.expires_at.isoformat()}


def _subject(week: Week) -> str:
    return f"week {week.number}"


def _title(week: Week) -> str:
    return f"Week {week.number}"
