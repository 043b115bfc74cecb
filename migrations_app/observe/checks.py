"""Runs the automatic checks that ask elsewhere, and keeps what each found: the only writer of check results.

A check that raises, hangs or finds nonsense is unknown with its reason, and holds up no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from pydantic import ValidationError

from migrations_app.choices import CheckState, Phase
from migrations_app.gates.checks import INSTANT, PROBES
from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.seen import Finding
from migrations_app.gates.target import NOTHING, digest_of, targets
from migrations_app.models import CheckResult, Plan, Prerequisite

logger = logging.getLogger(__name__)
_hanging: dict[int, threading.Thread] = {}  # prerequisite -> the thread of a check that did not end in time


@dataclass(frozen=True, slots=True)
class _Run:
    """One check that was asked, and what it found. `milliseconds` is None for one that did not end."""

    prerequisite: Prerequisite
    finding: Finding
    milliseconds: float


def run_checks(
    *, week: int | None = None, phase: Phase | None = None, prerequisite: int | None = None
) -> list[CheckResult]:
    """Run the probes of the plan, of a week, or one alone, all at once, and store what they found.

    Takes at most CHECK_WITHIN seconds however many of them hang. Instant checks are judged with every verdict and have
    no result.
    """
    plan = Plan.objects.first()
    if plan is None:
        return []
    rows = Prerequisite.objects.exclude(check_name="").exclude(check_name__in=INSTANT).select_related("week")
    if week is not None:
        rows = rows.filter(week__number=week)
    if phase is not None:
        rows = rows.filter(phase=phase)
    if prerequisite is not None:
        rows = rows.filter(pk=prerequisite)
    asked = list(rows)
    return _store(_run_all(plan, asked)) if asked else []


def _run_all(plan: Plan, rows: list[Prerequisite]) -> list[_Run]:
    now, within = timezone.now(), settings.CHECK_WITHIN
    of_week = targets({row.week.number for row in rows})
    found: dict[int, _Run] = {}
    threads: list[tuple[Prerequisite, threading.Thread]] = []
    for row in rows:
        if (stuck := _hanging.get(row.pk)) is not None and stuck.is_alive():
            continue
        _hanging.pop(row.pk, None)
        scene = Scene(plan, row.week.number, of_week.get(row.week.number, NOTHING), now, within)
        thread = threading.Thread(target=_run_in_thread, args=(row, scene, found), name=f"check-{row.pk}", daemon=True)
        threads.append((row, thread))
        thread.start()
    deadline = time.monotonic() + within
    for row, thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            _hanging[row.pk] = thread
    late = _unknown(f"it did not end within {within:g} s", "Look at what it asks; it is tried again by itself.")
    return [found.get(row.pk) or _Run(row, late, within * 1000) for row in rows]


def _run_in_thread(row: Prerequisite, scene: Scene, found: dict[int, _Run]) -> None:
    begun = time.perf_counter()
    try:
        finding = run_probe(row, scene)
    finally:
        connection.close()
    found[row.pk] = _Run(row, finding, (time.perf_counter() - begun) * 1000)


def run_probe(row: Prerequisite, scene: Scene) -> Finding:
    """What one check finds. Whatever goes wrong in it is a finding: unknown."""
    probe = PROBES.get(row.check_name)
    if probe is None:
        return _unknown(f"this version has no check {row.check_name!r}", "Update Switchyard.")
    try:
        finding = probe(row.parameters, scene)
    except ValidationError as error:
        return _unknown(f"its parameters make no sense: {error.errors()[0]['msg']}", "Load the plan anew.")
    except Exception as error:  # a check may meet anything, and must not take others with it
        logger.warning("check %s of week %s failed", row.check_name, scene.week, exc_info=True)
        told = str(error).strip().partition("\n")[0][:200]
        return _unknown(f"it failed: {type(error).__name__}: {told}", "Look at the worker's log.")
    if not isinstance(finding, Finding) or not isinstance(finding.state, CheckState):
        return _unknown(f"it answered with nonsense ({type(finding).__name__})", "Update Switchyard.")
    return finding


def _unknown(value: str, act: str) -> Finding:
    return Finding(CheckState.UNKNOWN, value, "an answer", act)


def _store(runs: Iterable[_Run]) -> list[CheckResult]:
    """With the plan locked: a result that closes a gate comes before a change or after it, never in the middle."""
    now = timezone.now()
    stored = []
    with transaction.atomic():
        Plan.objects.select_for_update().first()
        # A load may have removed or changed some meanwhile.
        still = {row.pk: row for row in Prerequisite.objects.filter(pk__in=[run.prerequisite.pk for run in runs])}
        before = {row.prerequisite_id: row for row in CheckResult.objects.filter(prerequisite__in=still)}
        for run in runs:
            asked = _asked(run.prerequisite)
            row = still.get(run.prerequisite.pk)
            if row is None or _asked(row) != asked:
                continue
            stored.append(_result(run, before.get(row.pk), asked, now))
        CheckResult.objects.bulk_create(
            stored,
            update_conflicts=True,
            unique_fields=["prerequisite"],
            update_fields=["state", "value", "limit", "act", "asked", "since", "checked_at", "milliseconds"],
        )
    return stored


def _result(run: _Run, before: CheckResult | None, asked: str, now: datetime) -> CheckResult:
    found = run.finding
    same = before is not None and before.asked == asked and before.state == found.state
    return CheckResult(
        prerequisite=run.prerequisite,
        state=found.state,
        value=found.value[:500],
        limit=found.limit[:300],
        act=found.act[:500],
        asked=asked,
        since=found.since or (before.since if same and before else now),
        checked_at=now,
        milliseconds=run.milliseconds,
    )


def _asked(row: Prerequisite) -> str:
    """As gates.load compares it: a result of other parameters counts for nothing."""
    return digest_of([row.check_name, row.parameters])
