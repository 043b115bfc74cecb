"""Run one automatic check now, because somebody asks."""

from __future__ import annotations

import time

from django.db import transaction
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Phase, PrerequisiteKind
from migrations_app.errors import Invalid, NotFound, Stale
from migrations_app.gates.checks import INSTANT
from migrations_app.gates.load import snapshots
from migrations_app.models import CheckResult, Prerequisite
from migrations_app.observe.checks import asked_of, run_instant
from migrations_app.roles import Permission

from .fresh import run_now
from .prerequisites import subject_of
from .refusals import Asked, refusals_recorded

_CHECK = "run checks"


def check_now(*, prerequisite_id: int, actor: Actor) -> CheckResult:
    """Run the check of one prerequisite and keep what it finds; the click, unlike the schedule, is an audit event.

    An instant check has nothing to keep: its present finding comes as a row that is not stored. Takes at most
    CHECK_WITHIN seconds. Raises NotPermitted, NotFound, Invalid (a manual line), Busy, and Stale when the plan was
    loaded anew meanwhile.
    """
    subject = f"prerequisite {prerequisite_id}"
    with refusals_recorded(_CHECK, actor=actor, subject=subject, prerequisite=prerequisite_id) as about:
        actor.require(Permission.CHECK, _CHECK)
        actor.require_still(Permission.CHECK, _CHECK)
        row = _find(prerequisite_id, about)
        before = CheckResult.objects.filter(prerequisite=row, asked=asked_of(row)).first()
        result = _instant(row) if row.check_name in INSTANT else _probed(row)
        with transaction.atomic():
            record(
                AuditKind.PREREQUISITE_CHECKED,
                actor=actor,
                subject=about.subject,
                week_number=row.week.number,
                before=_told(before) if before else {},
                after=_told(result) | {"limit": result.limit},
            )
        return result


def _find(prerequisite_id: int, about: Asked) -> Prerequisite:
    row = Prerequisite.objects.select_related("week").filter(pk=prerequisite_id).first()
    if row is None:
        raise NotFound(f"There is no prerequisite {prerequisite_id}. List them with: manage.py prerequisite list")
    about.subject, about.week = subject_of(row), row.week.number
    if row.kind == PrerequisiteKind.MANUAL:
        raise Invalid(f"“{row.title}” is signed off by a person; there is nothing to check.")
    return row


def _instant(row: Prerequisite) -> CheckResult:
    number, begun = row.week.number, time.perf_counter()
    now = timezone.now()
    finding = run_instant(row, snapshots(Phase(row.phase), weeks=[number], now=now)[number])
    return CheckResult(
        prerequisite=row,
        state=finding.state,
        value=finding.value,
        limit=finding.limit,
        act=finding.act,
        asked=asked_of(row),
        since=finding.since or now,
        checked_at=now,
        milliseconds=(time.perf_counter() - begun) * 1000,
    )


def _probed(row: Prerequisite) -> CheckResult:
    found = run_now(prerequisite=row.pk)
    if not found:
        raise Stale(f"The plan was loaded anew while “{row.title}” was checked. Look again.")
    return found[0]


def _told(result: CheckResult) -> dict[str, str]:
    return {"state": str(result.state), "value": result.value}
