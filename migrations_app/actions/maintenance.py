"""Plan maintenance windows and end them early: times in which polls count neither for nor against uptime."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone as clock

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound
from migrations_app.models import AuditEvent, MaintenanceWindow, Plan, RollupMark, Service
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.models.maintenance import GRACE
from migrations_app.roles import Permission

from .change import Change, event_of_click, lock_plan, no_change, refuse_spent
from .refusals import clipped, refusals_recorded

LONGEST_TITLE = 200
FARTHEST = timedelta(days=5 * 366)  # from now: beyond it somebody has mistyped the year
LONGEST = timedelta(days=31)  # no uptime is told of that time; longer, somebody has mistyped the month


def plan_window(
    *,
    title: str,
    targets: Collection[str],
    ends_at: datetime | None,
    actor: Actor,
    starts_at: datetime | None = None,
    reason: str = "",
    request_key: UUID | None = None,
) -> Change:
    """Plan maintenance of `targets`, keys of services or "monolith", from `starts_at`, by default now, to `ends_at`.

    It may begin a minute ago and no earlier: what was before is summed up. A window that is there already, word for
    word: nothing changes. Raises NotPermitted, NotFound, Stale, and Invalid, which begins with a field's name.
    """
    title, wanted = title.strip(), sorted(set(targets))
    asked = {"starts_at": starts_at, "ends_at": ends_at, "targets": wanted or None, "request_key": request_key}
    with refusals_recorded("plan maintenance", actor=actor, subject=_subject(title), reason=reason, **asked):
        actor.require(Permission.MAINTAIN, "plan maintenance")
        with transaction.atomic():
            plan = lock_plan()
            actor.require_still(Permission.MAINTAIN, "plan maintenance")
            earlier, now = event_of_click(request_key), clock.now()
            present = _present(now)
            begin, end = _moment("starts_at", starts_at or present, now), _moment("ends_at", ends_at, now)
            values = {"title": _title(title), "targets": _targets(plan, wanted), "ends_at": end}
            # One that began when it was planned is known again by the event of its click.
            same = {"starts_at": begin} if starts_at else {"pk": _window_of(earlier)}
            if MaintenanceWindow.objects.filter(plan=plan, ended_at__isnull=True, **values, **same).exists():
                return no_change(plan, earlier, AuditKind.MAINTENANCE_PLANNED, _subject(title), title)
            refuse_spent(earlier)
            _refuse_times(begin, end, present)
            row = MaintenanceWindow.objects.create(
                plan=plan, starts_at=begin, planned_by=actor.name, planned_at=now, **values
            )
            event = record(
                AuditKind.MAINTENANCE_PLANNED,
                actor=actor,
                subject=_subject(title),
                reason=reason,
                after=_told(row),
                request_key=request_key,
            )
            return Change(title, plan.generation, changed=True, event=event)


def end_window(*, window_id: int, actor: Actor, reason: str = "", request_key: UUID | None = None) -> Change:
    """End a window now, or cancel one that has not begun. One that is ended or over: nothing changes.

    Raises NotPermitted, NotFound, Stale.
    """
    asked = {"window": window_id, "request_key": request_key}
    with refusals_recorded("end maintenance", actor=actor, subject="maintenance", reason=reason, **asked) as about:
        actor.require(Permission.MAINTAIN, "end maintenance")
        with transaction.atomic():
            plan = lock_plan()
            row = MaintenanceWindow.objects.filter(plan=plan, pk=window_id).first()
            if row is None:
                raise NotFound(f"There is no window {window_id}. List them with: manage.py maintenance list")
            about.subject = subject = _subject(row.title)
            actor.require_still(Permission.MAINTAIN, "end maintenance")
            earlier, now = event_of_click(request_key), _present(clock.now())
            if row.ended_at is not None or row.ends_at <= now:
                return no_change(plan, earlier, AuditKind.MAINTENANCE_ENDED, subject, row.title)
            refuse_spent(earlier)
            before = _told(row)
            row.ended_at, row.ended_by = now, actor.name
            row.save(update_fields=["ended_at", "ended_by"])
            event = record(
                AuditKind.MAINTENANCE_ENDED,
                actor=actor,
                subject=subject,
                reason=reason,
                before=before,
                after={"window": row.pk, "ended_at": now.isoformat(), "cancelled": row.cancelled},
                request_key=request_key,
            )
            return Change(row.title, plan.generation, changed=True, event=event)


def _present(now: datetime) -> datetime:
    """Now, or how far polls are summed up where a worker's clock is ahead of ours: what was before is settled."""
    done = RollupMark.objects.filter(source="health").values_list("done_until", flat=True).first()
    return max(now, done) if done else now


def _title(title: str) -> str:
    if not title:
        raise Invalid("title: say what is being done.")
    if len(title) > LONGEST_TITLE:
        raise Invalid(f"title: at most {LONGEST_TITLE} characters, not {len(title)}.")
    return title


def _targets(plan: Plan, wanted: list[str]) -> list[str]:
    if not wanted:
        raise Invalid("targets: say what is maintained: services, the monolith, or both.")
    known = {MONOLITH_TARGET, *Service.objects.filter(plan=plan).values_list("key", flat=True)}
    unknown = [target for target in wanted if target not in known]
    if unknown:
        raise Invalid(f"targets: the plan has no service {clipped(unknown[0])}.")
    return wanted


def _moment(name: str, moment: datetime | None, now: datetime) -> datetime:
    if moment is None:
        raise Invalid(f"{name}: say until when.")
    if clock.is_naive(moment):
        raise Invalid(f"{name}: {moment.isoformat()} has no time zone.")
    if abs(moment - now) > FARTHEST:
        raise Invalid(f"{name}: {moment:%Y-%m-%d} is more than five years away.")
    return moment


def _refuse_times(begin: datetime, end: datetime, present: datetime) -> None:
    if begin < present - GRACE:
        raise Invalid("starts_at: maintenance cannot be planned for the past; what was measured stays as it is.")
    if end <= begin:
        raise Invalid("ends_at: it must be after starts_at.")
    if end <= present:
        raise Invalid("ends_at: it is over already.")
    if end - begin > LONGEST:
        raise Invalid(f"ends_at: at most {LONGEST.days} days after starts_at.")


def _window_of(event: AuditEvent | None) -> int | None:
    planned = event is not None and event.kind == AuditKind.MAINTENANCE_PLANNED
    return event.after["window"] if event is not None and planned else None


def _told(row: MaintenanceWindow) -> dict[str, Any]:
    """A window as the audit log keeps it: its number, its times and its targets."""
    times = {"starts_at": row.starts_at.isoformat(), "ends_at": row.ends_at.isoformat()}
    return {"window": row.pk, **times, "targets": row.targets}


def _subject(title: str) -> str:
    return clipped(f"maintenance {title}")
