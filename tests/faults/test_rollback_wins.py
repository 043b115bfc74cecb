"""A rollback wins over an enable that was asked for before it and is carried out after it, whichever way both came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connection, transaction

from migrations_app.actions import fresh
from migrations_app.actions.change import lock_plan
from migrations_app.actions.everything import roll_back_everything
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.rollouts import start_rollout
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.errors import ActionError, Stale
from migrations_app.models import AuditEvent, Flag
from tests.factories import load_tracseq, make_healthy, tick_all
from tests.faults.promises import every_change_is_kept_once_and_in_order
from tests.faults.system import OPERATOR

KEY = "USE_RAG_SERVICE"
UP: dict[str, Callable[[], object]] = {
    "week": lambda: enable_week(number=1, actor=OPERATOR),
    "flag": lambda: set_weight(key=KEY, weight=100, actor=OPERATOR),
    "rollout": lambda: start_rollout(key=KEY, actor=OPERATOR),
}
DOWN: dict[str, Callable[[], object]] = {
    "flag": lambda: roll_back_flag(key=KEY, actor=OPERATOR),
    "week": lambda: roll_back_week(number=1, actor=OPERATOR),
    "week with later": lambda: roll_back_week(number=1, actor=OPERATOR, with_later=True),
    "everything": lambda: roll_back_everything(actor=OPERATOR),
}
WITHIN = 20  # seconds that anything here may take


@pytest.fixture(autouse=True)
def on(transactional_db, settings) -> None:
    """One flag of week 1 has some traffic on the new side, and the gate is open for more."""
    settings.HEALTH_STALE_AFTER = 600.0
    settings.CELERY_BROKER_URL = ""
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    tick_all(1, OPERATOR)
    set_weight(key=KEY, weight=1, actor=OPERATOR)


class Waiting:
    """Work in a thread with a connection of its own, that has come as far as waiting for a lock."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.raised: BaseException | None = None
        self._work, self._pid, self._connected = work, 0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._connected.wait(WITHIN)
        until = time.monotonic() + WITHIN
        while not self._waits():
            assert time.monotonic() < until, "it never waited for the plan"
            time.sleep(0.005)

    def end(self) -> None:
        self._thread.join(WITHIN)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '60s'")  # however busy the machine is
                cursor.execute("SELECT pg_backend_pid()")
                self._pid = cursor.fetchone()[0]
            self._connected.set()
            self._work()
        except BaseException as error:  # noqa: BLE001
            self.raised = error
        finally:
            connection.close()

    def _waits(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)", [self._pid])
            return cursor.fetchone()[0]


@pytest.fixture
def waiting() -> Iterator[Callable[[Callable[[], object]], Waiting]]:
    begun: list[Waiting] = []

    def begin(work: Callable[[], object]) -> Waiting:
        begun.append(Waiting(work))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def weight() -> int:
    return Flag.objects.get(key=KEY).weight


@pytest.mark.parametrize(
    ("up", "down"), [*(("week", down) for down in DOWN), ("flag", "everything"), ("rollout", "week")]
)
def test_a_rollback_that_is_committed_while_an_enable_waits_is_not_undone_by_it(waiting, up, down):
    with transaction.atomic():
        DOWN[down]()
        enabling = waiting(UP[up])
    enabling.end()
    assert isinstance(enabling.raised, Stale), repr(enabling.raised)
    assert "has rolled this back while the change was waiting" in str(enabling.raised)
    assert weight() == 0
    every_change_is_kept_once_and_in_order()


@pytest.mark.parametrize("down", ["week", "everything"])
def test_a_rollback_behind_an_enable_in_the_queue_comes_after_it(waiting, down):
    with transaction.atomic():
        lock_plan()
        enabling = waiting(UP["week"])
        rolling_back = waiting(DOWN[down])
    enabling.end()
    rolling_back.end()
    assert rolling_back.raised is None, repr(rolling_back.raised)
    assert weight() == 0
    assert set(Flag.objects.filter(key__in=AuditEvent.objects.first().after).values_list("weight", flat=True)) == {0}
    every_change_is_kept_once_and_in_order()


def test_a_rollback_while_the_checks_of_an_enable_run_is_not_undone_by_it(monkeypatch):
    """Between its two tries the enable holds nothing."""
    tries = []

    def old_at_first(verdict, phase, since):
        tries.append(since)
        if len(tries) == 1:
            raise fresh.ChecksAreOld(verdict.week, phase)

    monkeypatch.setattr("migrations_app.actions.change.refuse_old_checks", old_at_first)
    monkeypatch.setattr(fresh, "run_now", lambda **_week: DOWN["everything"]())
    with pytest.raises(Stale, match="has rolled this back"):
        UP["week"]()
    assert len(tries) == 1
    assert weight() == 0


def test_a_change_of_something_else_meanwhile_holds_up_nothing(waiting):
    set_weight(key="USE_STORAGE_SERVICE", weight=5, actor=OPERATOR)
    with transaction.atomic():
        roll_back_flag(key="USE_STORAGE_SERVICE", actor=OPERATOR)
        enabling = waiting(UP["flag"])
    enabling.end()
    assert enabling.raised is None, repr(enabling.raised)
    assert weight() == 100


def test_what_is_asked_for_after_a_rollback_is_carried_out():
    DOWN["everything"]()
    try:
        UP["flag"]()
    except ActionError as refusal:
        pytest.fail(str(refusal))
    assert weight() == 100
