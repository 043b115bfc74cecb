"""Add and lift freezes: times in which nothing is enabled."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import transaction
from django.db.models import F
from django.utils import timezone as clock

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound
from migrations_app.models import Freeze, Plan, Week
from migrations_app.roles import Permission

from .change import Change, event_of_click, lock_plan, no_change, refuse_spent
from .refusals import clipped, refusals_recorded

LONGEST_TITLE = 200
FARTHEST = timedelta(days=5 * 366)  # from now, either way: beyond it somebody has mistyped the year


def add_freeze(
    *,
    title: str,
    actor: Actor,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    weekdays: str = "",
    from_time: time | None = None,
    until_time: time | None = None,
    timezone: str = "",
    reason: str = "",
    request_key: UUID | None = None,
) -> Change:
    """Freeze from `starts_at` to `ends_at`, or again and again on `weekdays`, from `from_time` until `until_time`.

    Weekdays are digits, 1 for Monday to 7 for Sunday; the times are those of `timezone`, an IANA name, by default the
    plan's. Until a time that is not after the first one means until then on the next day. A freeze that is there
    already, word for word: nothing changes. Raises NotPermitted, Stale, and Invalid, which begins with a field's name.
    """
    times = {
        "starts_at": starts_at,
        "ends_at": ends_at,
        "weekdays": weekdays or None,
        "from_time": from_time,
        "until_time": until_time,
        "timezone": timezone or None,
    }
    asked = {**times, "request_key": request_key}
    title = title.strip()
    with refusals_recorded("freeze", actor=actor, subject=_subject(title), reason=reason, **asked):
        actor.require(Permission.FREEZE, "freeze the plan")
        with transaction.atomic():
            plan = lock_plan()
            actor.require_still(Permission.FREEZE, "freeze the plan")
            values = _title(title) | _times(times, plan, clock.now())
            earlier, subject = event_of_click(request_key), _subject(title)
            if Freeze.objects.filter(plan=plan, lifted_at__isnull=True, **values).exists():
                return no_change(plan, earlier, AuditKind.FREEZE_ADDED, subject, title)
            refuse_spent(earlier)
            row = Freeze.objects.create(plan=plan, added_by=actor.name, added_at=clock.now(), **values)
            event = record(
                AuditKind.FREEZE_ADDED,
                actor=actor,
                subject=subject,
                reason=reason,
                after=_told(row),
                request_key=request_key,
            )
            _grow_versions(plan)
            return Change(title, plan.generation, changed=True, event=event)


def lift_freeze(*, freeze_id: int, actor: Actor, reason: str = "", request_key: UUID | None = None) -> Change:
    """End a freeze for good. One that is lifted or over: nothing changes. Raises NotPermitted, NotFound, Stale."""
    asked = {"freeze": freeze_id, "request_key": request_key}
    with refusals_recorded("lift a freeze", actor=actor, subject="freeze", reason=reason, **asked) as about:
        actor.require(Permission.FREEZE, "lift freezes")
        with transaction.atomic():
            plan = lock_plan()
            row = Freeze.objects.filter(plan=plan, pk=freeze_id).first()
            if row is None:
                raise NotFound(f"There is no freeze {freeze_id}. List them with: manage.py freeze list")
            about.subject = subject = _subject(row.title)
            actor.require_still(Permission.FREEZE, "lift freezes")
            earlier, now = event_of_click(request_key), clock.now()
            if row.lifted_at is not None or (row.ends_at is not None and row.ends_at <= now):
                return no_change(plan, earlier, AuditKind.FREEZE_LIFTED, subject, row.title)
            refuse_spent(earlier)
            row.lifted_at, row.lifted_by = now, actor.name
            row.save(update_fields=["lifted_at", "lifted_by"])
            event = record(
                AuditKind.FREEZE_LIFTED,
                actor=actor,
                subject=subject,
                reason=reason,
                before=_told(row),
                after={"freeze": row.pk, "lifted": True},
                request_key=request_key,
            )
            _grow_versions(plan)
            return Change(row.title, plan.generation, changed=True, event=event)


def _title(title: str) -> dict[str, Any]:
    if not title:
        raise Invalid("title: say what the freeze is for.")
    if len(title) > LONGEST_TITLE:
        raise Invalid(f"title: at most {LONGEST_TITLE} characters, not {len(title)}.")
    return {"title": title}


def _times(given: dict[str, Any], plan: Plan, now: datetime) -> dict[str, Any]:
    """The columns that say when, as models.Freeze wants them. Raises Invalid."""
    zone = _zone(given["timezone"] or plan.timezone)
    one_off = [name for name in ("starts_at", "ends_at") if given[name] is not None]
    recurring = [name for name in ("weekdays", "from_time", "until_time") if given[name] is not None]
    if one_off and recurring:
        raise Invalid(f"{recurring[0]}: a freeze is one-off or recurring; it cannot have {one_off[0]} as well.")
    if recurring:
        return _recurring(given["weekdays"] or "", given["from_time"], given["until_time"]) | {"timezone": zone}
    return _one_off(given["starts_at"], given["ends_at"], now) | {"timezone": zone}


def _one_off(starts_at: datetime | None, ends_at: datetime | None, now: datetime) -> dict[str, Any]:
    starts_at, ends_at = _moment("starts_at", starts_at, now), _moment("ends_at", ends_at, now)
    if ends_at <= starts_at:
        raise Invalid("ends_at: it must be after starts_at.")
    if ends_at <= now:
        raise Invalid("ends_at: it is over already.")
    return {"weekdays": "", "starts_at": starts_at, "ends_at": ends_at, "from_time": None, "until_time": None}


def _moment(name: str, moment: datetime | None, now: datetime) -> datetime:
    if moment is None:
        raise Invalid(f"{name}: say from when to when, or on which weekdays.")
    if clock.is_naive(moment):
        raise Invalid(f"{name}: {moment.isoformat()} has no time zone.")
    if abs(moment - now) > FARTHEST:
        raise Invalid(f"{name}: {moment:%Y-%m-%d} is more than five years away.")
    return moment


def _recurring(weekdays: str, from_time: time | None, until_time: time | None) -> dict[str, Any]:
    if not re.fullmatch("[1-7]+", weekdays):
        raise Invalid("weekdays: digits from 1 for Monday to 7 for Sunday, such as 12345.")
    from_time, until_time = _time("from_time", from_time), _time("until_time", until_time)
    days = "".join(sorted(set(weekdays)))
    return {"weekdays": days, "starts_at": None, "ends_at": None, "from_time": from_time, "until_time": until_time}


def _time(name: str, moment: time | None) -> time:
    if moment is None:
        raise Invalid(f"{name}: say from which time until which time.")
    if moment.tzinfo is not None:
        raise Invalid(f"{name}: a time of day alone; its zone is timezone.")
    return moment


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(f"timezone: {clipped(name)} is no time zone; one such as Europe/Berlin.") from None
    return name


def _told(row: Freeze) -> dict[str, Any]:
    """A freeze as the audit log keeps it: its number and its times."""
    told: dict[str, Any] = {"freeze": row.pk, "timezone": row.timezone}
    names = ["starts_at", "ends_at"] if row.starts_at else ["weekdays", "from_time", "until_time"]
    for name in names:
        value = getattr(row, name)
        told[name] = value if isinstance(value, str) else value.isoformat()
    return told


def _grow_versions(plan: Plan) -> None:
    """Every week's gate has changed."""
    Week.objects.filter(plan=plan).update(version=F("version") + 1)


def _subject(title: str) -> str:
    return clipped(f"freeze {title}")
