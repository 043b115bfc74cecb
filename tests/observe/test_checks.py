"""Checks that fail in every way that a check can, each in a real thread; and what is stored of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from migrations_app.choices import CheckState, Phase, PrerequisiteKind
from migrations_app.gates.checks import PROBES
from migrations_app.gates.load import verdicts
from migrations_app.gates.seen import Finding
from migrations_app.models import CheckResult, Plan, Prerequisite, Week
from migrations_app.observe.checks import Run, run_checks, store
from tests.faults.system import wait_for

HELD = Finding(CheckState.HELD, "12 of 12", "12 of 12")
NOT_HELD = Finding(CheckState.NOT_HELD, "11 of 12", "12 of 12", "Copy the last one.")

Probe = Callable[..., Any]


@pytest.fixture
def line(plan, monkeypatch) -> Callable[..., Prerequisite]:
    """Makes a line of week 4 with a check of its own."""

    def make(name: str, probe: Probe | None, **parameters: Any) -> Prerequisite:
        if probe is not None:
            monkeypatch.setitem(PROBES, name, probe)
        return Prerequisite.objects.create(
            week=Week.objects.get(number=4),
            key=name.replace("_", "-"),
            title=name,
            kind=PrerequisiteKind.AUTOMATIC,
            check_name=name,
            parameters=parameters,
        )

    return make


class Hanging:
    """A check that hangs until it is let go. `threads` are those that it was run in."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, _parameters: Any, _scene: Any) -> Finding:
        self.threads.append(threading.current_thread())
        assert self.go.wait(60)
        return HELD

    def let_go(self) -> None:
        self.go.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.let_go()


def says(finding: Any) -> Probe:
    return lambda _parameters, _scene: finding


def raises(error: BaseException) -> Probe:
    def probe(_parameters: Any, _scene: Any) -> Finding:
        raise error

    return probe


def run() -> dict[str, CheckResult]:
    """Key of the line -> what is stored after one round."""
    run_checks(week=4, phase=Phase.START)
    return {row.prerequisite.key: row for row in CheckResult.objects.select_related("prerequisite")}


def test_what_a_check_finds_is_stored_beside_its_limit(line):
    row = line("one", says(NOT_HELD))
    before = timezone.now()
    result = run()["one"]
    assert (result.state, result.value, result.limit, result.act) == (
        CheckState.NOT_HELD,
        "11 of 12",
        "12 of 12",
        "Copy the last one.",
    )
    assert before <= result.checked_at == result.since <= timezone.now()
    shown = next(one for one in verdicts()[4].lines if one.prerequisite == row.pk)
    assert (shown.held, shown.value, shown.limit) == (False, "11 of 12", "12 of 12")
    assert shown.checked_at == result.checked_at


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("the other database is on fire"), "it failed: RuntimeError: the other database is on fire"),
        (ValueError(""), "it failed: ValueError"),
        (SystemExit(3), "it failed: SystemExit: 3"),
        (KeyboardInterrupt(), "it failed: KeyboardInterrupt"),
        (OSError("a\nb"), "it failed: OSError: a"),
        (RuntimeError("x" * 10_000), f"it failed: RuntimeError: {'x' * 200}"),
        (RuntimeError("a\x00b\udcff"), "it failed: RuntimeError: a?b?"),
    ],
)
def test_a_check_that_raises_is_unknown_with_its_reason_and_takes_no_other_with_it(line, error, told):
    line("bad", raises(error))
    line("good", says(HELD))
    found = run()
    assert (found["bad"].state, found["bad"].value) == (CheckState.UNKNOWN, told)
    assert found["good"].state == CheckState.HELD


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        True,
        "held",
        CheckState.HELD,
        Finding("held", "yes", "yes"),
        Finding("splendid", "yes", "yes"),
        Finding(CheckState.HELD, None, "yes"),
        Finding(CheckState.HELD, 12, 12),
        Finding(CheckState.HELD, "yes", "yes", act=["do", "it"]),
        Finding(CheckState.HELD, "yes", "yes", since="yesterday"),
        Finding(CheckState.HELD, "yes", "yes", since=datetime(2026, 11, 24)),  # noqa: DTZ001  # of no time zone
    ],
)
def test_a_check_that_answers_with_garbage_is_unknown_and_takes_no_other_with_it(line, garbage):
    line("bad", says(garbage))
    line("good", says(HELD))
    found = run()
    assert found["bad"].state == CheckState.UNKNOWN
    assert found["bad"].value.startswith("it answered with nonsense (")
    assert found["good"].state == CheckState.HELD


def test_very_long_answers_are_cut_and_strange_characters_replaced(line):
    line("long", says(Finding(CheckState.NOT_HELD, "v" * 100_000, "l" * 100_000, "a" * 100_000)))
    line("strange", says(Finding(CheckState.HELD, "nul \x00, half \udc80, 日本", "\x00", "\udfff")))
    found = run()
    assert (len(found["long"].value), len(found["long"].limit), len(found["long"].act)) == (500, 300, 500)
    assert found["long"].value.endswith("v…")
    assert (found["strange"].value, found["strange"].limit, found["strange"].act) == ("nul ?, half ?, 日本", "?", "?")
    assert found["strange"].state == CheckState.HELD


@pytest.mark.parametrize(
    "parameters", [{}, {"file": 3}, {"file": "../../etc/passwd"}, {"file": "a.dump", "max_age": "soon"}, {"fiel": "x"}]
)
def test_parameters_that_make_no_sense_are_unknown_and_the_check_is_not_run(line, parameters):
    """A plan file cannot say this; a row of an older version, or one written by hand, can."""
    asked = []
    line("backup_fresh", lambda *_: asked.append(1), **parameters)
    line("good", says(HELD))
    found = run()
    assert found["backup-fresh"].state == CheckState.UNKNOWN
    assert found["backup-fresh"].value.startswith("its parameters make no sense: ")
    assert not asked
    assert found["good"].state == CheckState.HELD


def test_a_check_of_another_version_is_unknown(line):
    line("phase_of_the_moon", None)
    assert run()["phase-of-the-moon"].value == "this version has no check 'phase_of_the_moon'"


def test_a_check_that_hangs_is_ended_in_time_and_the_others_are_not_held_up(line, hanging, settings):
    settings.CHECK_WITHIN = 0.4
    for number in range(8):
        line(f"bad_{number}", hanging)
    line("good", says(HELD))
    begun = time.monotonic()
    found = run()
    # One after the other they would take 3.2 seconds.
    assert time.monotonic() - begun < 2.0
    assert found["good"].state == CheckState.HELD
    assert {found[f"bad-{number}"].value for number in range(8)} == {"it did not end within 0.4 s"}
    assert {found[f"bad-{number}"].state for number in range(8)} == {CheckState.UNKNOWN}


def test_a_check_is_not_started_again_while_it_hangs_and_is_once_it_has_ended(line, hanging, settings):
    settings.CHECK_WITHIN = 0.2
    line("slow", hanging)
    for _ in range(3):
        assert run()["slow"].state == CheckState.UNKNOWN
    assert len(hanging.threads) == 1
    hanging.let_go()
    assert CheckResult.objects.get().state == CheckState.UNKNOWN, "what came too late is not stored"
    assert run()["slow"].state == CheckState.HELD
    assert len(hanging.threads) == 2


def test_with_other_parameters_a_check_that_hung_is_asked_at_once(line, hanging, settings, monkeypatch):
    settings.CHECK_WITHIN = 0.2
    row = line("slow", hanging, host="old")
    run()
    monkeypatch.setitem(PROBES, "slow", says(HELD))
    assert run()["slow"].state == CheckState.UNKNOWN
    row.parameters = {"host": "new"}
    row.save()
    assert run()["slow"].state == CheckState.HELD


@pytest.mark.parametrize("how", ["answers", "raises", "leaves", "hangs"])
def test_the_connection_of_a_checks_thread_is_closed_in_all_cases(line, settings, how):
    settings.CHECK_WITHIN = 0.3
    opened: list[psycopg.Connection] = []
    go = threading.Event()

    def probe(_parameters: Any, _scene: Any) -> Finding:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        opened.append(connection.connection)
        if how == "raises":
            raise RuntimeError
        if how == "leaves":
            raise SystemExit
        if how == "hangs":
            assert go.wait(60)
        return HELD

    line("one", probe)
    run()
    go.set()
    wait_for(lambda: opened and all(one.closed for one in opened), "the connection is closed")
    assert len(opened) == 1
    assert opened[0] is not connection.connection
    assert not connection.connection.closed


def test_a_result_of_other_parameters_counts_as_not_checked(line):
    row = line("one", says(HELD), copies=1)
    run()
    assert verdict_line(row).held
    row.parameters = {"copies": 2}
    row.save()
    assert (verdict_line(row).held, verdict_line(row).value) == (False, "cannot tell: not checked yet")
    row.parameters, row.check_name = {"copies": 1}, "another"
    row.save()
    assert not verdict_line(row).held


def test_a_result_that_is_too_old_is_unknown_until_the_next_one(line, settings, time_machine):
    row = line("one", says(HELD))
    run()
    moment = CheckResult.objects.get().checked_at
    for late, held in ((settings.CHECK_STALE_AFTER, True), (settings.CHECK_STALE_AFTER + 0.001, False)):
        time_machine.move_to(moment + timedelta(seconds=late), tick=False)
        assert verdict_line(row).held is held
    assert verdict_line(row).value == "cannot tell: the last check was 1 min ago"
    run()
    assert verdict_line(row).held


def test_since_tells_when_a_state_began_and_begins_anew_with_each_change(line, monkeypatch, time_machine):
    start = timezone.now()
    line("one", says(HELD))
    seen = []
    for minute, finding in enumerate((HELD, HELD, NOT_HELD, NOT_HELD, HELD)):
        time_machine.move_to(start + timedelta(minutes=minute), tick=False)
        monkeypatch.setitem(PROBES, "one", says(finding))
        seen.append((run()["one"].since - start) // timedelta(minutes=1))
    assert seen == [0, 0, 2, 2, 4]


def test_what_a_check_knows_of_since_counts_but_never_lies_in_the_future(line, noon, time_machine):
    time_machine.move_to(noon, tick=False)
    line("known", says(Finding(CheckState.HELD, "yes", "yes", since=noon - timedelta(hours=3))))
    line("future", says(Finding(CheckState.HELD, "yes", "yes", since=noon + timedelta(hours=3))))
    found = run()
    assert found["known"].since == noon - timedelta(hours=3)
    assert found["future"].since == noon


def test_a_round_that_was_overtaken_does_not_put_an_older_finding_over_a_newer_one(line):
    """One check of a round hangs, so the round stores late what its other checks had found long before."""
    row = line("one", says(HELD))
    now = timezone.now()
    store([Run(row, NOT_HELD, now - timedelta(seconds=1), 1.0)])
    (kept,) = store([Run(row, HELD, now - timedelta(seconds=4), 1.0)])
    assert (kept.state, CheckResult.objects.get().state) == (CheckState.NOT_HELD, CheckState.NOT_HELD)
    assert not verdict_line(row).held


def test_after_the_clock_was_put_back_the_next_finding_counts(line, time_machine):
    row = line("one", says(NOT_HELD))
    now = timezone.now()
    time_machine.move_to(now + timedelta(hours=1), tick=False)
    store([Run(row, HELD, timezone.now(), 1.0)])
    time_machine.move_to(now, tick=False)
    assert run()["one"].state == CheckState.NOT_HELD
    assert not verdict_line(row).held


def test_a_line_that_the_plan_lost_or_changed_meanwhile_keeps_nothing(line):
    gone, changed = line("gone", says(HELD)), line("changed", says(HELD), copies=1)
    runs = [Run(gone, HELD, timezone.now(), 1.0), Run(changed, HELD, timezone.now(), 1.0)]
    Prerequisite.objects.filter(pk=gone.pk).delete()
    Prerequisite.objects.filter(pk=changed.pk).update(parameters={"copies": 2})
    assert store(runs) == []
    assert not CheckResult.objects.exists()


def test_only_what_was_asked_for_is_run(line):
    asked = []
    rows = [line(name, lambda *_, name=name: (asked.append(name), HELD)[1]) for name in ("one", "two")]
    Prerequisite.objects.filter(pk=rows[1].pk).update(phase=Phase.DONE)
    run_checks(week=4, phase=Phase.START)
    run_checks(prerequisite=rows[1].pk)
    run_checks(week=3, phase=Phase.START)
    assert asked == ["one", "two"]
    run_checks()
    assert sorted(asked) == ["one", "one", "two", "two"]


def test_without_a_plan_there_is_nothing_to_check(db):
    assert run_checks() == []


def test_the_scene_tells_the_week_its_target_and_the_time_that_is_left(line, settings):
    settings.CHECK_WITHIN = 2.5
    seen = []
    line("one", lambda _parameters, scene: (seen.append(scene), HELD)[1])
    run()
    (scene,) = seen
    assert (scene.week, scene.within, scene.plan) == (4, 2.5, Plan.objects.get())
    assert len(scene.target) == 64


@pytest.mark.django_db(transaction=True)
def test_a_finding_is_stored_before_a_change_or_after_it_never_in_the_middle(transactional_db, settings, monkeypatch):
    from tests.factories import load_tracseq

    load_tracseq(adapter="memory", by_hand=True)
    monkeypatch.setitem(PROBES, "one", says(NOT_HELD))
    Prerequisite.objects.create(
        week=Week.objects.get(number=4),
        key="one",
        title="One",
        kind=PrerequisiteKind.AUTOMATIC,
        check_name="one",
    )

    def round_of_checks() -> None:
        try:
            run_checks(week=4)
        finally:
            connection.close()

    thread = threading.Thread(target=round_of_checks)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as change:
        change.execute("SELECT 1 FROM migrations_app_plan FOR UPDATE")
        thread.start()
        wait_for(_somebody_waits_for_a_lock, "the round waits for the plan")
        assert not CheckResult.objects.exists()
    thread.join(20)
    assert CheckResult.objects.get().state == CheckState.NOT_HELD


def _somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(cursor.fetchone()[0])


def verdict_line(row: Prerequisite):
    return next(one for one in verdicts()[row.week.number].lines if one.prerequisite == row.pk)
