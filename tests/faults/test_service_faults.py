"""A service dies, hangs, errs or gets slow under load: the old side answers at once, then a trigger moves it back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.db import connection

from migrations_app import tasks
from migrations_app.actions.flags import set_weight
from migrations_app.choices import ActorKind, AuditKind, Health
from migrations_app.models import AuditEvent, Flag, HealthSample, HealthState, TriggerState
from migrations_app.observe import poller
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import make_healthy, tick_all
from tests.faults.load import Failure, Load, load_on
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, OPERATOR, Sides, System, Watched, wait_for

FLAG = "USE_RAG_SERVICE"
READERS, WRITERS = 6, 3
CLIENTS = [("read", "rag")] * READERS + [("write", "rag")] * WRITERS
LAG = 0.1  # seconds in which Envoy's second thread may still choose by the table before
HEALTH = {"key": "health", "when": "health", "failures": 2}


@dataclass(frozen=True)
class Fault:
    """What befalls the service, the trigger that is there for it, what that says, and what may be lost meanwhile.

    `lost`: requests that may fail, all of them writes that had reached the service. `served`: it still answers them,
    and the gateway lets it. `polled`: the poller has a part in it.
    """

    befalls: Callable[[Sides], object]
    trigger: dict[str, object]
    value: str
    limit: str
    lost: int
    served: bool = False
    polled: bool = False


FAULTS = {
    # Each writer has one request in flight; its next one finds nobody, and is the monolith's.
    "killed": Fault(
        Sides.kill, HEALTH, "failed polls in a row, the last one: ", "fewer than 2 failed", WRITERS, polled=True
    ),
    # A write waits for its whole time, 1.5 s. After three tries without an answer the service is left alone.
    "hung": Fault(
        Sides.freeze, {"key": "away", "when": "failover"}, "the monolith answers in its place", "no failover",
        3 * WRITERS,
    ),
    # Five answers of 5xx in a row, then it is left alone for 2 s; the trigger is quicker than a second time.
    "answers 500": Fault(
        lambda side: side.behave(status=500), {"key": "errors", "when": "errors", "above": 5.0, "window": "5s"},
        "% errors of ", "at most 5 % in 5 s", 4 * (5 + WRITERS),
    ),
    "slow": Fault(
        lambda side: side.behave(delay=0.4), {"key": "slow", "when": "latency", "above": 200, "window": "5s"},
        "p95 ", "p95 at most 200 ms in 5 s", 0, served=True,
    ),
}  # fmt: skip


@pytest.fixture
def turn_on(system: System) -> Callable[[Watched, int], Sides]:
    """RAG in a process of its own, watched by these triggers, with this weight in force."""

    def make(triggers: list[dict[str, object]], weight: int) -> Sides:
        side = system.side("rag")
        system.load(watched={"rag": triggers}, rag=side.ports["rag"])
        make_healthy()
        tick_all(1, OPERATOR)
        set_weight(key=FLAG, weight=weight, actor=OPERATOR)
        assert reconcile_all()[0].error == ""
        return side

    return make


@contextlib.contextmanager
def polling(settings, every: float = 0.2) -> Iterator[None]:
    """The real poller, in a thread of this process, quicker than it is shipped."""
    settings.HEALTH_INTERVAL, settings.HEALTH_TIMEOUT = every, 0.5
    over = threading.Event()

    def run() -> None:
        try:
            poller.run(over.is_set, seconds=120, after_write=lambda: None)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)
        assert not thread.is_alive()


def look() -> None:
    """What beat asks for every second."""
    reconcile_all()
    tasks.read_traffic()


def looked_until(true: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    def seen() -> bool:
        look()
        return true()

    wait_for(seen, what, seconds)


def rolled_back() -> bool:
    return Flag.objects.get(key=FLAG).weight == 0


def answered_by(load: Load, who: str, since: float) -> bool:
    return any(answer.who == who and answer.sent >= since for answer in reversed(load.answers))


@pytest.mark.parametrize("weight", [100, 25])
@pytest.mark.parametrize("name", FAULTS)
def test_a_service_that_fails_under_load_is_moved_back_by_its_trigger(
    system: System, turn_on, settings, name: str, weight: int
):
    fault = FAULTS[name]
    side = turn_on([fault.trigger], weight)
    with contextlib.ExitStack() as running:
        if fault.polled:
            running.enter_context(polling(settings))
        load = running.enter_context(load_on(system.envoy.port, pause=0.02, clients=CLIENTS))
        looked_until(lambda: load.count() > 60 and answered_by(load, "rag", 0), "it serves, and is measured")
        if fault.polled:
            wait_for(lambda: HealthSample.objects.filter(target="rag", healthy=True).exists(), "it is polled")
        assert (rolled_back(), load.failures) == (False, [])
        begun = time.monotonic()
        fault.befalls(side)
        if not fault.served:
            wait_for(lambda: answered_by(load, "monolith", begun), "the old side answers, with nobody's help")
        looked_until(rolled_back, "its trigger has moved it back")
        took = time.monotonic() - begun
        assert reconcile_all()[0].error == ""
        confirmed = time.monotonic()
        count = len(load.answers)
        wait_for(lambda: len(load.answers) > count + 100, "the old side answers all")
    first = min(one.came for one in load.answers if one.who == "monolith" and one.sent >= begun) - begun
    since = confirmed + LAG
    assert {answer.who for answer in load.answers if answer.sent > since} == {"monolith"}

    def explained(failure: Failure) -> bool:
        """A write that was sent to it: it may have been done, so nobody else may do it again."""
        return failure.kind == "write" and failure.sent < since

    hold(system, load=load, lost=fault.lost, explained=explained)
    (event,) = AuditEvent.objects.filter(kind=AuditKind.FLAG_ROLLED_BACK)
    assert (event.actor_kind, event.subject) == (ActorKind.SYSTEM, FLAG)
    told = event.after["trigger"]
    assert told["key"] == fault.trigger["key"]
    assert (fault.value in told["value"], fault.limit in told["limit"]) == (True, True), told
    assert event.reason == f"Trigger {told['key']}: {told['value']} (limit: {told['limit']})."
    print(
        f"{name} at {weight} %: old side after {first * 1000:.0f} ms, back after {took:.1f} s, "
        f"{len(load.failures)} of {load.count()} lost"
    )


def test_a_service_whose_health_flaps_is_moved_back_once_and_traffic_does_not_flap_with_it(
    system: System, turn_on, settings
):
    side = turn_on([HEALTH], 100)
    with polling(settings), load_on(system.envoy.port, pause=0.02, clients=CLIENTS) as load:
        looked_until(lambda: load.count() > 20, "it serves")
        side.behave(health="503,503,503,200,200,200")
        looked_until(rolled_back, "its trigger has moved it back")
        events, since = AuditEvent.objects.count(), HealthSample.objects.filter(target="rag").count()
        flaps = HealthSample.objects.filter(target="rag", healthy=True)
        well = flaps.count()
        looked_until(
            lambda: flaps.count() >= well + 6 and HealthSample.objects.filter(target="rag").count() >= since + 14,
            "its health has come and gone twice more",
        )
        assert (rolled_back(), AuditEvent.objects.count()) == (True, events)
        side.behave()
        again = flaps.count()
        looked_until(lambda: flaps.count() >= again + 3, "it is well again")
        assert (rolled_back(), AuditEvent.objects.count()) == (True, events)
    hold(system, load=load)
    assert system.served_by() == ON_THE_MONOLITH


def test_a_poller_that_is_cut_off_rolls_nothing_back(system: System, turn_on, settings):
    """To the poller, everything that is stopped at once is what a cut cable of its own is."""
    turn_on([HEALTH | {"failures": 1}], 100)
    with polling(settings):
        polls = HealthSample.objects.filter(target="rag")
        looked_until(lambda: polls.filter(healthy=True).exists(), "it is polled")
        everything = [system.envoy, *system.everything()]
        for one in everything:
            one.freeze()
        try:
            wait_for(lambda: polls.filter(healthy=None).count() >= 3, "the poller finds that nothing answers", 30)
            tasks.read_traffic()
            assert HealthState.objects.get(target="rag").state == Health.UNKNOWN
            assert polls.filter(healthy=False).count() == 0
            assert "not even the gateway" in polls.filter(healthy=None).first().error
        finally:
            for one in everything:
                one.thaw()
        wait_for(lambda: HealthState.objects.get(target="rag").state == Health.HEALTHY, "it is polled again", 30)
        looked_until(lambda: TriggerState.objects.get().state == "ok", "the trigger has looked at it")
    assert Flag.objects.get(key=FLAG).weight == 100
    assert not AuditEvent.objects.filter(kind=AuditKind.FLAG_ROLLED_BACK).exists()
    hold(system)
