"""kill -9 in the middle of a pass or a click, at every step of it: nothing is left by half, the next one converges."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from celery import Celery
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client

from migrations_app.actions.confirm import confirm
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway, Plan, Week
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.faults.forks import Forks
from tests.faults.load import load_on
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, Browser, System, wait_for
from tests.servers import start_redis, stop_redis


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


def kill_at_every_step(
    system: System, forks: Forks, change: Callable[[int], None], allowed: Callable[[], list[dict]], **of: str
) -> int:
    """Returns the number of steps at which a pass was killed."""
    with load_on(system.envoy.port, pause=0.1) as load:
        step, ended = 0, "killed"
        while ended == "killed":
            step += 1
            old = Plan.objects.get().generation
            change(step)
            new = Plan.objects.get().generation
            assert new > old
            ended = forks.run(do="pass", at=step, **of)["ended"]
            assert generation_on_disk(system) in {old, new}
            ((generation, sides),) = served_sides(system).items()
            assert generation in {old, new}
            assert sides in allowed()
            (done,) = reconcile_all()
            assert (done.error, done.generation) == ("", new)
            assert system.confirmed()
            assert system.status()["generation"] == new == generation_on_disk(system)
        assert ended == "done"
    assert load.count() > 50
    assert AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).count() == 0
    hold(system, load=load)
    print(f"killed at {step - 1} steps under {load.count()} requests")
    return step - 1


def test_a_flip_that_is_killed_at_any_step_is_finished_by_the_next_pass(system: System, forks: Forks):
    def flip(number: int) -> None:
        (enable_week if number % 2 else roll_back_week)(number=1, actor=OPERATOR)

    steps = kill_at_every_step(system, forks, flip, lambda: [ON_THE_MONOLITH, ON_THE_SERVICES])
    # The note of it, the routes' sync, rename and folder, the questions to the gateway, and what was observed.
    assert steps >= 9


def test_changed_addresses_that_are_killed_at_any_step_are_finished_by_the_next_pass(system: System, forks: Forks):
    ports = system.estate.sides

    def readdress(number: int) -> None:
        system.load(auth=ports["sample"] if number % 2 else ports["auth"])

    steps = kill_at_every_step(system, forks, readdress, lambda: [ON_THE_MONOLITH], of="gateway")
    assert steps >= 9  # as above, and the same for the clusters' file; what is observed is written as above


def stored(week: int = 1) -> dict[str, object]:
    """Whatever a click on a week changes."""
    flags = Flag.objects.filter(week__number=week).order_by("key").values_list("key", "weight", "generation")
    row = Week.objects.get(number=week)
    return {
        "flags": list(flags),
        "generation": Plan.objects.get().generation,
        "week": (row.status, row.version, row.soak_started_at),
        "events": AuditEvent.objects.count(),
    }


def test_a_click_that_is_killed_at_any_step_is_stored_whole_or_not_at_all_and_the_same_again_is_one_change(
    system: System, forks: Forks
):
    user = User.objects.create_user("release-manager")
    user.groups.add(Group.objects.get(name=Role.RELEASE_MANAGER.value))
    client = Client()
    client.force_login(user)
    cookies = {name: morsel.value for name, morsel in client.cookies.items()}
    step, ended, acknowledged = 0, "killed", 0
    lost, kept = 0, 0  # clicks that were killed: how many had not been stored yet, and how many had
    while ended == "killed":
        step += 1
        verb, weight = ("enable", 100) if step % 2 else ("rollback", 0)
        fields = {"request_key": str(uuid4()), "seen": str(Week.objects.get(number=1).version)}
        click = {"do": "click", "path": f"/weeks/1/{verb}/", "fields": fields, "cookies": cookies}
        before = stored()
        said = forks.run(at=step, **click)
        ended = said["ended"]
        event = AuditEvent.objects.filter(request_key=fields["request_key"]).first()
        if event is None:
            assert stored() == before
            assert ended == "killed", "it was acknowledged, but it is lost"
            lost += 1
        else:
            assert {flag[1:] for flag in stored()["flags"]} == {(weight, event.generation)}
            assert (stored()["generation"], stored()["events"]) == (event.generation, before["events"] + 1)
            assert stored()["week"] != before["week"]
            kept += ended == "killed"
        acknowledged += said.get("answer") == 303
        # Whoever got no answer sends the same form again.
        assert forks.run(**click) == {"ended": "done", "answer": 303}
        assert AuditEvent.objects.filter(request_key=fields["request_key"]).count() == 1
        assert AuditEvent.objects.count() == before["events"] + 1
        assert {flag[1] for flag in stored()["flags"]} == {weight}
    assert (ended, acknowledged) == ("done", 1)
    assert (lost >= 6, kept >= 8) == (True, True), (lost, kept)
    hold(system)
    print(f"killed at {lost} steps before the commit and {kept} after it")


@pytest.fixture
def impatient(system: System, settings) -> Iterator[None]:
    """This process waits for locks for 0.3 s, not 2: most of a test would be waiting."""
    settings.CONFIRM_WITHIN = 0.5
    adapter_for(Gateway.objects.get())._lock_timeout = 0.3
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '300ms'")
    yield
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '2s'")


def test_a_pass_that_is_stopped_at_any_step_and_goes_on_after_a_newer_change_writes_nothing_old(
    system: System, forks: Forks, impatient
):
    """One that was stopped with a lock in its hands holds up the change that comes after it, which says so."""
    step, ended, held_up = 0, "stopped", []
    while ended == "stopped":
        step += 1
        enable_week(number=1, actor=OPERATOR)
        ended = forks.run(do="pass", at=step, by="SIGSTOP")["ended"]
        change = roll_back_week(number=1, actor=OPERATOR)
        outcome = confirm(change.generation, event=change.event, head_start=0.0)
        if not outcome.confirmed:
            assert (outcome.error != "", outcome.command) == (True, "manage.py reconcile")
            held_up.append(step)
        if ended == "stopped":
            forks.go_on()
        assert generation_on_disk(system) == change.generation or not outcome.confirmed
        (done,) = reconcile_all()
        assert (done.error, done.generation) == ("", change.generation)
        assert system.served_by() == ON_THE_MONOLITH
        assert generation_on_disk(system) == change.generation
    assert ended == "done"
    assert step > 9
    assert AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).count() == 0
    hold(system)
    print(f"stopped at {step - 1} steps, {held_up} of which held the next change up")


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
        hold(system, clicks=manager.clicks)
    finally:
        stop_redis(process)
