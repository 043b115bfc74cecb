"""A gate is judged at the click on checks that were run for that click."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from django.db import OperationalError, transaction
from django.utils import timezone
from psycopg.errors import LockNotAvailable

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Phase
from migrations_app.errors import Busy, GateClosed
from migrations_app.gates.verdict import LineKind, Verdict
from migrations_app.models import CheckResult
from migrations_app.observe.checks import run_checks

T = TypeVar("T")


class ChecksAreOld(Exception):
    """The gate rests on checks that were run before the click. Nothing was done yet."""

    def __init__(self, week: int, phase: Phase) -> None:
        super().__init__(f"the checks of week {week} are old")
        self.week, self.phase = week, phase


def with_fresh_checks(attempt: Callable[[datetime | None], T], *, refused: AuditKind, actor: Actor, reason: str) -> T:
    """Try a change; when its gate rests on older checks, run those, outside of any transaction, and try once more.

    `attempt` gets the moment since which checks must have run, None when that no longer matters. A closed gate becomes
    an audit event of the kind `refused`, with the gate as it was.
    """
    try:
        try:
            return attempt(timezone.now())
        except ChecksAreOld as old:
            run_now(week=old.week, phase=old.phase)
            return attempt(None)
    except GateClosed as refusal:
        # The change was undone, so the refusal is kept in a transaction of its own.
        with transaction.atomic():
            record(
                refused,
                actor=actor,
                subject=refusal.subject,
                week_number=refusal.verdict.week,
                reason=reason,
                verdict=refusal.verdict,
            )
        raise


def run_now(
    *, week: int | None = None, phase: Phase | None = None, prerequisite: int | None = None
) -> list[CheckResult]:
    """As observe.checks.run_checks, for somebody who waits. Raises Busy when the plan is held for too long."""
    try:
        return run_checks(week=week, phase=phase, prerequisite=prerequisite)
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise Busy("Another change has held the plan for too long. Nothing was done; try again at once.") from error
        raise


def refuse_old_checks(verdict: Verdict, phase: Phase, since: datetime | None) -> None:
    """Raises ChecksAreOld when an automatic line was checked before `since`, or never.

    One that says that it was checked later than now is of a clock that was put back: nobody knows how old it is.
    """
    if since is None:
        return
    now = timezone.now()
    automatic = [line.checked_at for line in verdict.lines if line.kind == LineKind.AUTOMATIC]
    if any(checked_at is None or not since <= checked_at <= now for checked_at in automatic):
        raise ChecksAreOld(verdict.week, phase)
