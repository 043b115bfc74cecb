"""Runs the automatic checks that ask elsewhere, and keeps what each found: the only writer of check results.

A check that raises, hangs or finds nonsense is unknown with its reason, and holds up no other.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeGuard

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from pydantic import ValidationError

from migrations_app.choices import CheckState, Phase
from migrations_app.errors import first_line
from migrations_app.gates.checks import INSTANT, PROBES
from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.parameters import CHECK_PARAMETERS
from migrations_app.gates.seen import Finding, Snapshot
from migrations_app.gates.target import NOTHING, digest_of, targets
from migrations_app.live import Topic, tell
from migrations_app.models import CheckResult, Plan, Prerequisite

logger = logging.getLogger(__name__)
LONGEST_TRACE = 8_000  # characters
# Prerequisite and what it asks -> threads of this process whose check has not ended in time. Guarded by _lock.
_hanging: dict[tuple[int, str], list[threading.Thread]] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Run:
    """One check that was asked, and what it found: with what was so at `begun`, or later."""

    prerequisite: Prerequisite
    finding: Finding
    begun: datetime
    milliseconds: float


def run_checks(
    *, week: int | None = None, phase: Phase | None = None, prerequisite: int | None = None
) -> list[CheckResult]:
    """Run the probes of the plan, of a week, or one alone, all at once, and store what they found.

    Takes at most CHECK_WITHIN seconds however many of them hang. Instant checks are judged with every verdict and have
    no result. Returns what is stored now of those that were run.
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
    return store(_run_all(plan, asked)) if asked else []


def _run_all(plan: Plan, rows: list[Prerequisite]) -> list[Run]:
    now, within = timezone.now(), settings.CHECK_WITHIN
    of_week = targets({row.week.number for row in rows})
    found: dict[int, Run] = {}
    threads: list[tuple[Prerequisite, threading.Thread]] = []
    for row in rows:
        if _hangs(row):
            continue
        scene = Scene(plan, row.week.number, of_week.get(row.week.number, NOTHING), now, within)
        thread = threading.Thread(target=_run_in_thread, args=(row, scene, found), name=f"check-{row.pk}", daemon=True)
        threads.append((row, thread))
        thread.start()
    deadline = time.monotonic() + within
    for row, thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            with _lock:
                _hanging.setdefault((row.pk, asked_of(row)), []).append(thread)
    late = _unknown(f"it did not end within {within:g} s", "Look at what it asks; it is tried again by itself.")
    return [found.get(row.pk) or Run(row, late, now, within * 1000) for row in rows]


def _hangs(row: Prerequisite) -> bool:
    """Whether this very question is still out: a check that hangs is not started again beside itself."""
    key = (row.pk, asked_of(row))
    with _lock:
        alive = [thread for thread in _hanging.pop(key, []) if thread.is_alive()]
        if alive:
            _hanging[key] = alive
    return bool(alive)


def _run_in_thread(row: Prerequisite, scene: Scene, found: dict[int, Run]) -> None:
    begun = time.perf_counter()
    try:
        finding = run_probe(row, scene)
        found[row.pk] = Run(row, finding, scene.now, (time.perf_counter() - begun) * 1000)
    finally:
        connection.close()  # this thread's own; it is of no use to any other


def run_probe(row: Prerequisite, scene: Scene) -> Finding:
    """What one check finds. Whatever goes wrong in it is a finding: unknown."""
    probe = PROBES.get(row.check_name)
    if probe is None:
        return _unknown(f"this version has no check {row.check_name!r}", "Update Switchyard.")
    # In a thread of its own, so that SystemExit is nothing but one more way to fail.
    return _guarded(row, lambda: probe(row.parameters, scene), BaseException)


def run_instant(row: Prerequisite, snapshot: Snapshot) -> Finding:
    """What an instant check finds in a snapshot of its week, as `run_probe`."""
    return _guarded(row, lambda: INSTANT[row.check_name](row.parameters, snapshot), Exception)


def _guarded(row: Prerequisite, ask: Callable[[], object], catch: type[BaseException]) -> Finding:
    try:
        if known := CHECK_PARAMETERS.get(row.check_name):
            known.of(row.parameters)
    except (ValidationError, TypeError, ValueError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        return _sound(_unknown(f"its parameters make no sense: {told}", "Load the plan anew."))
    try:
        finding = ask()
    except catch as error:  # a check may meet anything, and must not take others with it
        # As text that every log takes: what another system said may be in no encoding.
        trace = _text(traceback.format_exc(), LONGEST_TRACE)
        logger.warning("check %s of prerequisite %s failed: %s", row.check_name, row.pk, trace)
        name, said = type(error).__name__, first_line(error)[:200]
        told = name if said == name else f"{name}: {said}"
        return _sound(_unknown(f"it failed: {told}", "Look at the worker's log."))
    if not _makes_sense(finding):
        return _unknown(f"it answered with nonsense ({type(finding).__name__})", "Update Switchyard.")
    return _sound(finding)


def _makes_sense(finding: object) -> TypeGuard[Finding]:
    return (
        isinstance(finding, Finding)
        and isinstance(finding.state, CheckState)
        and all(isinstance(text, str) for text in (finding.value, finding.limit, finding.act))
        and (finding.since is None or (isinstance(finding.since, datetime) and finding.since.tzinfo is not None))
    )


def _sound(finding: Finding) -> Finding:
    """The same in texts that the database takes: of the columns' length, without what is no character."""
    value, limit, act = (_text(finding.value, 500), _text(finding.limit, 300), _text(finding.act, 500))
    return replace(finding, value=value, limit=limit, act=act)


def _text(text: str, most: int) -> str:
    plain = text[: most + 1].encode("utf-8", "replace").decode().replace("\x00", "?")
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _unknown(value: str, act: str) -> Finding:
    return Finding(CheckState.UNKNOWN, value, "an answer", act)


def store(runs: Iterable[Run]) -> list[CheckResult]:
    """With the plan locked: a result that closes a gate comes before a change or after it, never in the middle.

    A run that begun before the one whose result is there is too late, and leaves that. The version of the week does
    not grow: every click judges its gate on checks that were run for it. Returns the results as they are now.
    """
    runs, current = list(runs), []
    with transaction.atomic():
        Plan.objects.select_for_update().first()
        now = timezone.now()  # with the lock: what was stored while this waited for it is of the past
        # A load may have removed or changed some meanwhile.
        still = {row.pk: row for row in Prerequisite.objects.filter(pk__in=[run.prerequisite.pk for run in runs])}
        before = {row.prerequisite_id: row for row in CheckResult.objects.filter(prerequisite__in=still)}
        written = []
        for run in runs:
            asked, old = asked_of(run.prerequisite), before.get(run.prerequisite.pk)
            row = still.get(run.prerequisite.pk)
            if row is None or asked_of(row) != asked:
                continue
            # One of the future is of a clock that was put back.
            if old is not None and old.asked == asked and run.begun < old.checked_at <= now:
                current.append(old)
                continue
            written.append(_result(run, old, asked))
        CheckResult.objects.bulk_create(
            written,
            update_conflicts=True,
            unique_fields=["prerequisite"],
            update_fields=["state", "value", "limit", "act", "asked", "since", "checked_at", "milliseconds"],
        )
        if written:
            tell(Topic.CHECK)
    return current + written


def _result(run: Run, before: CheckResult | None, asked: str) -> CheckResult:
    found = run.finding
    same = before is not None and before.asked == asked and before.state == found.state
    since = found.since or (before.since if same and before else run.begun)
    return CheckResult(
        prerequisite=run.prerequisite,
        state=found.state,
        value=found.value,
        limit=found.limit,
        act=found.act,
        asked=asked,
        since=min(since, run.begun),
        checked_at=run.begun,
        milliseconds=run.milliseconds,
    )


def asked_of(row: Prerequisite) -> str:
    """As gates.load compares it: a result of other parameters counts for nothing."""
    return digest_of([row.check_name, row.parameters])
