"""kill -9 in the middle of an apply, at every step of it: traffic never sees a half, and the next pass converges."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from celery import Celery

from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Confirmation, Flag, Plan
from migrations_app.models.audit import check_chain
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.load import load_on
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, Browser, System, wait_for
from tests.servers import start_redis, stop_redis


@contextmanager
def killer(system: System) -> Iterator[Callable[[int], str]]:
    """Call it with N: a pass in another process is killed before its Nth step. Returns `killed` or `done`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.killed"], env=system.estate.environ(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip

    def run(step: int) -> str:
        process.stdin.write(f"{step}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        yield run
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def generation_on_disk(system: System) -> int:
    """Of the route file that lies in the folder, which is always whole."""
    return int(json.loads((system.envoy.folder / "rds" / "rds.json").read_bytes())["version_info"])


def served_sides(system: System) -> dict[int, dict[str, str]]:
    """Generation -> sides of week 1, as one moment of the gateway has it: asked for again while a table comes in."""
    while True:
        before = system.status()["generation"]
        sides = system.served_by()
        if system.status()["generation"] == before:
            return {before: sides}


def kill_at_every_step(system: System, change: Callable[[int], None], allowed: Callable[[], list[dict]]) -> int:
    """Returns the number of steps at which a pass was killed."""
    with killer(system) as pass_until, load_on(system.envoy.port, pause=0.1) as load:
        step, outcome = 0, "killed"
        while outcome == "killed":
            step += 1
            old = Plan.objects.get().generation
            change(step)
            new = Plan.objects.get().generation
            assert new > old
            outcome = pass_until(step)
            assert generation_on_disk(system) in {old, new}
            ((generation, sides),) = served_sides(system).items()
            assert generation in {old, new}
            assert sides in allowed()
            (done,) = reconcile_all()
            assert (done.error, done.generation) == ("", new)
            assert system.confirmed()
            assert system.status()["generation"] == new == generation_on_disk(system)
        assert outcome == "done"
    assert load.failures == []
    assert load.count() > 50
    assert AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).count() == 0
    assert check_chain().broken_at is None
    print(f"killed at {step - 1} steps under {load.count()} requests")
    return step - 1


def test_a_flip_that_is_killed_at_any_step_is_finished_by_the_next_pass(system: System):
    def flip(number: int) -> None:
        (enable_week if number % 2 else roll_back_week)(number=1, actor=OPERATOR)

    steps = kill_at_every_step(system, flip, lambda: [ON_THE_MONOLITH, ON_THE_SERVICES])
    assert steps >= 6  # the note of it, the routes' sync, rename and folder, and the questions to the gateway
    on = Flag.objects.get(key="USE_RAG_SERVICE").weight == 100
    assert system.served_by() == (ON_THE_SERVICES if on else ON_THE_MONOLITH)


def test_changed_addresses_that_are_killed_at_any_step_are_finished_by_the_next_pass(system: System):
    ports = system.estate.sides

    def readdress(number: int) -> None:
        system.load(auth=ports["sample"] if number % 2 else ports["auth"])

    steps = kill_at_every_step(system, readdress, lambda: [ON_THE_MONOLITH])
    assert steps >= 9  # as above, and the same for the clusters' file


def test_a_worker_that_is_killed_in_the_middle_of_an_apply_is_made_up_for(
    system: System, manager: Browser, redis_folder
):
    process = start_redis(system.estate.redis_port, redis_folder)
    try:
        worker = system.worker(f"redis://127.0.0.1:{system.estate.redis_port}/0")
        generation = Plan.objects.get().generation + 1
        # The gateway hangs, so the worker writes the files and then waits for a confirmation.
        system.envoy.freeze()
        try:
            enable_week(number=1, actor=OPERATOR)
            asker = Celery(broker=f"redis://127.0.0.1:{system.estate.redis_port}/0")
            asker.send_task("migrations_app.tasks.reconcile_all", queue="gateway")
            asker.close()
            wait_for(lambda: generation_on_disk(system) == generation, "the worker has written the files")
            worker.signal(signal.SIGKILL)
        finally:
            system.envoy.thaw()
        assert not Confirmation.objects.filter(generation=generation).exists()
        answer = manager.post("/weeks/1/rollback/", request_key=str(uuid4()))
        assert answer.status_code == 303
        assert system.served_by() == ON_THE_MONOLITH
        assert system.status()["generation"] == generation + 1
        assert check_chain().broken_at is None
    finally:
        stop_redis(process)
