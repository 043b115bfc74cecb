"""Passes of the loop come twice, late, out of order and at once; the gateway only ever moves forward."""

from __future__ import annotations

import random
import threading

import httpx
import pytest

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.choices import AuditKind
from migrations_app.gateways.errors import StaleGeneration
from migrations_app.models import AuditEvent, Gateway, Plan
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.decide import Step
from migrations_app.reconcile.desired import desired_table
from migrations_app.reconcile.loop import reconcile, reconcile_all
from tests.faults.promises import hold
from tests.faults.system import OPERATOR, System, in_threads, wait_for

KEY = "USE_RAG_SERVICE"


def drift_events() -> int:
    return AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).count()


def files(system: System) -> dict[str, tuple[int, bytes]]:
    """Name -> (inode, content): a file that was written again has another inode."""
    paths = [system.envoy.folder / name for name in ("rds/rds.json", "cds/cds.json", "applied.json")]
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in paths}


def move(weight: int) -> None:
    if weight:
        set_weight(key=KEY, weight=weight, actor=OPERATOR)
    else:
        roll_back_flag(key=KEY, actor=OPERATOR)


@pytest.fixture
def tables(system: System):
    """Five tables, oldest first; only the newest has reached the gateway."""
    found = [desired_table(Plan.objects.get())]
    for weight in (100, 0, 40, 100):
        move(weight)
        found.append(desired_table(Plan.objects.get()))
    reconcile_all()
    return found


def test_passes_of_many_threads_and_processes_at_once_write_nothing_when_nothing_changed(system: System, tables):
    before = files(system)
    events = AuditEvent.objects.count()
    others = [system.run("reconcile", system.manage_command("reconcile")) for _ in range(2)]
    passes = []
    work = [lambda: passes.extend(done for _ in range(8) for done in reconcile_all()) for _ in range(4)]
    assert in_threads(*work) == []
    for child in others:
        assert child.process.wait(30) == 0, child.said()
    assert {(done.step, done.changed, done.error) for done in passes} == {(Step.NOTHING, False, "")}
    assert len(passes) == 32
    assert files(system) == before
    assert AuditEvent.objects.count() == events


def test_late_passes_with_older_tables_in_any_order_change_nothing(system: System, tables, monkeypatch):
    before = files(system)
    order = random.Random(7)
    monkeypatch.setattr("migrations_app.reconcile.loop.desired_table", lambda _plan: order.choice(tables))
    gateway = Gateway.objects.select_related("plan").get()
    passes = []
    assert in_threads(*[lambda: passes.extend(reconcile(gateway) for _ in range(10)) for _ in range(4)]) == []
    assert {done.step for done in passes} == {Step.STAND_BACK, Step.NOTHING}
    assert not any(done.changed or done.error for done in passes)
    assert files(system) == before
    assert system.status()["generation"] == tables[-1].generation
    assert drift_events() == 0


def test_a_lower_generation_is_refused_by_every_adapter_on_the_folder(system: System, tables):
    before = files(system)
    for adapter in (adapter_for(Gateway.objects.get()), system.envoy.adapter()):
        for table in tables[:-1]:
            with pytest.raises(StaleGeneration):
                adapter.apply(adapter.render(table))
        assert adapter.apply(adapter.render(tables[-1])).changed is False
    assert files(system) == before


def test_while_changes_come_in_concurrent_passes_end_at_the_newest_and_never_go_back(system: System):
    over = threading.Event()
    generations: list[int] = []

    def watch() -> None:
        # One connection, so one of Envoy's threads: another may take a new table a moment later.
        with httpx.Client(base_url=f"http://127.0.0.1:{system.envoy.port}", trust_env=False, timeout=10) as client:
            while not over.is_set():
                generations.append(client.get("/routing-status").json()["generation"])

    def changes() -> None:
        order = random.Random(3)
        try:
            for weight in (100, 0, 50, 100, 20, 0, 100, 70, 0, 100):
                move(weight)
                if order.random() < 0.5:
                    reconcile_all()
            wait_for(system.confirmed, "the newest generation is confirmed")
        finally:
            over.set()

    def passes() -> None:
        while not over.is_set():
            reconcile_all()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert in_threads(changes, passes, passes, passes) == []
    watcher.join()
    newest = Plan.objects.get().generation
    assert system.status()["generation"] == newest
    assert system.envoy.ask("/api/rag/1").who == "rag"
    assert generations == sorted(generations)
    assert generations[-1] >= generations[0] + 5
    assert Gateway.objects.get().error == ""
    # A pass that meets another's half-written change must not take it for somebody's edit.
    assert drift_events() == 0
    hold(system)


def test_an_old_observation_never_overwrites_a_newer_one(system: System, monkeypatch):
    """A pass that was held up between looking and writing ends after a newer one has written."""
    looked, go_on = threading.Event(), threading.Event()
    adapter = adapter_for(Gateway.objects.get())
    observe, late = adapter.observe, []

    def slow_observe():
        seen = observe()
        if threading.current_thread() in late:
            looked.set()
            assert go_on.wait(10)
        return seen

    monkeypatch.setattr(adapter, "observe", slow_observe)

    def late_pass() -> None:
        late.append(threading.current_thread())
        reconcile_all()

    def newer() -> None:
        assert looked.wait(10)
        move(100)
        reconcile_all()
        go_on.set()

    assert in_threads(late_pass, newer) == []
    assert Gateway.objects.get().observed_weights[KEY] == 100
    hold(system)
