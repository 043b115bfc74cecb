"""The gate holds in a race: whatever closes it and whatever passes it are in one order, and the audit log has it."""

from __future__ import annotations

import random
import threading
import time

import pytest
from django.db import connection

from migrations_app.actions.flags import set_weight
from migrations_app.actions.prerequisites import tick, untick
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import AuditKind, Phase, PrerequisiteKind
from migrations_app.errors import ActionError, GateClosed, Stale
from migrations_app.models import AuditEvent, Flag, Prerequisite
from tests.factories import load_tracseq, make_healthy, tick_all
from tests.faults.promises import replayed
from tests.faults.system import OPERATOR

ROUNDS = 60


@pytest.fixture
def line(transactional_db, settings) -> Prerequisite:
    """A manual prerequisite of week 1, ticked as all are. No gateway is needed: the gate is the database's matter."""
    settings.HEALTH_STALE_AFTER = 600.0
    settings.CELERY_BROKER_URL = ""
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    tick_all(1, OPERATOR)
    return Prerequisite.objects.filter(week__number=1, phase=Phase.START, kind=PrerequisiteKind.MANUAL).first()


class Racers:
    """Threads that live through all rounds, each with its own connection, and start each round together."""

    def __init__(self, count: int) -> None:
        self._start, self._end = threading.Barrier(count + 1), threading.Barrier(count + 1)
        self._work: list = []
        self.raised: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(index,), daemon=True) for index in range(count)]
        for thread in self._threads:
            thread.start()

    def race(self, *work) -> None:
        """Run each piece of work in its thread, all at once, and wait for all."""
        self._work = list(work)
        self._start.wait(20)
        self._end.wait(20)

    def close(self) -> None:
        self._work = []
        self._start.wait(20)
        for thread in self._threads:
            thread.join(20)

    def _run(self, index: int) -> None:
        try:
            while True:
                self._start.wait(60)
                if not self._work:
                    return
                delay, act = self._work[index]
                time.sleep(delay)  # the race's own offset, so that each may come first
                try:
                    act()
                except BaseException as error:  # noqa: BLE001
                    self.raised.append(error)
                self._end.wait(20)
        finally:
            connection.close()


@pytest.fixture
def racers(line):
    made = Racers(3)
    yield made
    made.close()


def check_history(line: Prerequisite) -> None:
    """Tell the audit log again: no flag rose while the line was open."""
    held = False
    for event, raised in replayed():
        if event.kind in (AuditKind.PREREQUISITE_TICKED, AuditKind.PREREQUISITE_UNTICKED):
            if event.subject != f"week 1 / {line.key}":
                continue  # the others are ticked once and stay so
            now = event.kind == AuditKind.PREREQUISITE_TICKED
            assert now != held, f"event {event.pk} changes nothing"
            held = now
        elif event.kind == AuditKind.ENABLE_REFUSED:
            assert event.verdict["open"] is False
        elif raised:
            assert held, f"event {event.pk} went through a closed gate"
    assert held == line.sign_offs.filter(withdrawn_at=None).exists()


def offsets(order: random.Random) -> list[float]:
    """Seconds; about the length of an action, so that every order happens."""
    return [order.choice((0.0, order.uniform(0, 0.02))) for _ in range(3)]


def enable() -> None:
    enable_week(number=1, actor=OPERATOR)


def test_closing_a_gate_against_enabling_never_lets_a_flag_through(line: Prerequisite, racers: Racers):
    order = random.Random(11)
    outcomes = {"on": 0, "refused": 0}
    for _ in range(ROUNDS):
        racers.raised.clear()
        one, two, three = offsets(order)
        racers.race(
            (one, lambda: untick(prerequisite_id=line.pk, actor=OPERATOR)),
            (two, enable),
            (three, lambda: set_weight(key="USE_RAG_SERVICE", weight=100, actor=OPERATOR)),
        )
        assert all(isinstance(error, GateClosed) for error in racers.raised), racers.raised
        on = Flag.objects.filter(weight__gt=0).exists()
        outcomes["on" if on else "refused"] += 1
        roll_back_week(number=1, actor=OPERATOR)
        tick(prerequisite_id=line.pk, actor=OPERATOR)
    check_history(line)
    # Both orders were seen, so this was a race.
    assert min(outcomes.values()) >= 3, outcomes


def test_enables_at_once_make_one_change_with_one_event(line: Prerequisite, racers: Racers):
    for number in range(1, 21):
        racers.race((0.0, enable), (0.0, enable), (0.0, enable))
        assert racers.raised == []
        assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ENABLED).count() == number
        roll_back_week(number=1, actor=OPERATOR)
    check_history(line)


def test_enable_against_rollback_ends_as_the_last_event_says(line: Prerequisite, racers: Racers):
    order = random.Random(5)
    ends = set()
    for _ in range(30):
        one, two, three = offsets(order)
        back = lambda: roll_back_week(number=1, actor=OPERATOR)  # noqa: E731
        racers.race((one, enable), (two, back), (three, enable))
        # An enable that was waiting while the rollback was carried out is told so, and does nothing.
        assert all(isinstance(error, Stale) for error in racers.raised), racers.raised
        on = set(Flag.objects.filter(week__number=1).values_list("weight", flat=True))
        assert len(on) == 1, "a week moves as one"
        ends |= on
    check_history(line)
    assert ends == {0, 100}


def test_all_of_them_in_any_order_keep_the_log_true(line: Prerequisite, racers: Racers):
    order = random.Random(2)
    acts = [
        enable,
        lambda: roll_back_week(number=1, actor=OPERATOR),
        lambda: set_weight(key="USE_RAG_SERVICE", weight=order.choice((0, 30, 100)), actor=OPERATOR),
        lambda: tick(prerequisite_id=line.pk, actor=OPERATOR),
        lambda: untick(prerequisite_id=line.pk, actor=OPERATOR),
    ]
    for _ in range(ROUNDS):
        racers.race(*[(delay, order.choice(acts)) for delay in offsets(order)])
    assert all(isinstance(error, ActionError) for error in racers.raised), racers.raised
    check_history(line)
