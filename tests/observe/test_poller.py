"""The resident poller as a whole: real servers, a real PostgreSQL, and in the end a real Celery worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime

import psycopg
import pytest
from django.db import OperationalError, connection

from controlplane.embedded.children import start, stop, wait_until
from controlplane.environment import REPOSITORY
from migrations_app import tasks
from migrations_app.models import HealthChange, HealthSample, HealthState, Plan, PollLateness, Service
from migrations_app.observe import poller
from migrations_app.observe.poller import Judge
from migrations_app.observe.polls import PollResult, Target
from migrations_app.observe.schedule import Ended
from tests.servers import redis_server, with_database

from .web import closed_port, head, serving

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OK = head("200 OK", 2, "connection: close") + b"ok"
EVERY_SECOND = {"interval": "1s", "timeout": "1s"}


# -- whether it is they or we --------------------------------------------------------------------------------------


def poll_of(key: str, begun: float, *, answered: bool = False, healthy: bool = False) -> Ended:
    error = "" if healthy else "no connection"
    result = PollResult(key, NOW, healthy, 200 if healthy else None, error=error, answered=answered or healthy)
    return Ended(target(key), result, begun, begun + 0.1, 0.0)


def target(key: str) -> Target:
    return Target(key, f"http://127.0.0.1/{key}")


class Gateway:
    """Says at once, or later, whether the gateway answers; `asked` counts."""

    def __init__(self, answers: bool) -> None:
        self.answers, self.asked, self.now = answers, 0, 100.0

    def __call__(self) -> Future[tuple[float, bool]]:
        self.asked += 1
        told: Future[tuple[float, bool]] = Future()
        told.set_result((self.now, self.answers))
        return told


def told(judge: Judge, *ended: Ended, targets: str = "auth rag monolith") -> list[tuple[str, bool | None]]:
    found = judge.settle(ended, [target(key) for key in targets.split()])
    return [(of.key, result.healthy) for of, result in found]


def test_a_failure_beside_an_answer_is_told_at_once_and_the_gateway_is_left_alone():
    gateway = Gateway(answers=False)
    found = told(Judge(gateway), poll_of("auth", 10.0), poll_of("rag", 10.0, healthy=True))
    assert found == [("auth", False), ("rag", True)]
    assert gateway.asked == 0


def test_a_failure_that_stands_alone_is_the_targets_own_when_the_gateway_answers():
    gateway = Gateway(answers=True)
    assert told(Judge(gateway), poll_of("auth", 10.0)) == [("auth", False)]
    assert gateway.asked == 1


def test_one_that_fails_while_the_gateway_is_silent_waits_for_the_others():
    judge = Judge(Gateway(answers=False))
    assert told(judge, poll_of("auth", 10.0)) == []
    assert told(judge, poll_of("rag", 10.5)) == []
    assert told(judge, poll_of("monolith", 11.0, healthy=True)) == [
        ("auth", False),
        ("rag", False),
        ("monolith", True),
    ]


def test_when_nothing_answers_nobody_can_tell_and_the_reason_says_so():
    judge = Judge(Gateway(answers=False))
    assert told(judge, poll_of("auth", 10.0), poll_of("rag", 10.5)) == []
    found = judge.settle([poll_of("monolith", 11.0)], [target(key) for key in ("auth", "rag", "monolith")])
    assert [(of.key, result.healthy) for of, result in found][:1] == [("auth", None)]
    assert found[0][1].error == "nothing answers, not even the gateway: no connection"
    assert told(judge, poll_of("auth", 12.0)) == [("auth", None)]


def test_answers_that_are_wrong_are_answers():
    judge = Judge(Gateway(answers=False))
    assert told(judge, poll_of("auth", 10.0), poll_of("rag", 10.0, answered=True)) == [("auth", False), ("rag", False)]


def test_a_target_that_may_not_be_asked_is_told_at_once():
    gateway = Gateway(answers=False)
    refused = PollResult("auth", NOW, False, error="8.8.8.8 is in none of the networks", answered=False, asked=False)
    assert told(Judge(gateway), Ended(target("auth"), refused, 10.0, 10.0, 0.0)) == [("auth", False)]
    assert gateway.asked == 0


def test_a_gateway_that_answers_again_ends_it():
    gateway = Gateway(answers=False)
    judge = Judge(gateway)
    assert told(judge, poll_of("auth", 10.0), targets="auth") == [("auth", None)]
    gateway.answers = True
    assert told(judge, targets="auth") == []
    gateway.now = 110.0
    assert told(judge, poll_of("auth", 105.0), targets="auth") == [("auth", False)]


# -- the whole -----------------------------------------------------------------------------------------------------


@pytest.fixture
def plan_of(transactional_db) -> Callable[..., None]:
    """Makes a plan whose monolith and services listen on these ports."""

    def make(monolith: int, **services: int) -> None:
        made = Plan.objects.create(
            key="small", title="Small", monolith_host="127.0.0.1", monolith_port=monolith, monolith_health=EVERY_SECOND
        )
        for key, port in services.items():
            Service.objects.create(plan=made, key=key, title=key, host="127.0.0.1", port=port, health=EVERY_SECOND)

    return make


def run_until(done: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Run the poller until `done` holds after one of its writes."""
    ended = []
    poller.run(lambda: bool(ended), seconds=seconds, after_write=lambda: ended.append(1) if done() else None)
    assert ended, "it did not come about"


def states() -> dict[str, str]:
    return dict(HealthState.objects.values_list("target", "state"))


def test_it_polls_and_keeps_what_it_finds(plan_of):
    with serving(OK) as good, serving(head("503 Busy", 0)) as busy:
        plan_of(good, auth=busy, rag=closed_port())
        run_until(lambda: len(states()) == 3)
    assert states() == {"monolith": "healthy", "auth": "unhealthy", "rag": "unhealthy"}
    assert HealthState.objects.get(target="auth").error == "answered 503, expected 200"
    assert HealthState.objects.get(target="rag").error.startswith("no connection: nothing listens on")
    assert set(HealthChange.objects.values_list("target", "state")) == set(states().items())


def test_it_follows_the_plan(plan_of):
    with serving(OK) as good:
        plan_of(good, auth=good)

        def moved() -> bool:
            if states().get("auth") == "healthy":
                Service.objects.filter(key="auth").update(health=EVERY_SECOND | {"status": [204]})
            return states().get("auth") == "unhealthy"

        run_until(moved)
    assert HealthState.objects.get(target="auth").error == "answered 200, expected 204"


def test_it_is_unknown_and_not_down_when_not_even_the_gateway_answers(plan_of, settings):
    settings.GATEWAY_URL = f"http://127.0.0.1:{closed_port()}"
    plan_of(closed_port(), auth=closed_port())
    run_until(lambda: len(states()) == 2)
    assert states() == {"monolith": "unknown", "auth": "unknown"}
    assert set(HealthSample.objects.values_list("healthy", flat=True)) == {None}
    assert HealthSample.objects.first().error.startswith("nothing answers, not even the gateway: no connection")


def test_it_is_down_when_the_gateway_answers(plan_of, settings):
    with serving(head("404 Not Found", 0)) as gateway:
        settings.GATEWAY_URL = f"http://127.0.0.1:{gateway}"
        plan_of(closed_port(), auth=closed_port())
        run_until(lambda: len(states()) == 2)
    assert states() == {"monolith": "unhealthy", "auth": "unhealthy"}


def test_the_networks_of_the_settings_hold(plan_of, settings):
    settings.HEALTH_NETWORKS = ["10.0.0.0/8"]
    asked: list[bytes] = []
    with serving(OK, asked=asked.append) as good:
        plan_of(good, auth=good)
        run_until(lambda: len(states()) == 2)
    assert asked == []
    assert "HEALTH_NETWORKS" in HealthState.objects.get(target="auth").error


def test_what_could_not_be_written_is_written_later(plan_of, monkeypatch):
    store, failed = poller.store_of_plan, []

    def busy(results, lateness):
        if results and len(failed) < 2:
            failed.append(len(results))
            raise OperationalError("canceling statement due to lock timeout")
        return store(results, lateness)

    monkeypatch.setattr(poller, "store_of_plan", busy)
    with serving(OK) as good:
        plan_of(good)
        run_until(HealthSample.objects.exists)
    assert len(failed) == 2
    assert HealthSample.objects.count() >= failed[-1]
    assert sum(PollLateness.objects.get().late) == HealthSample.objects.count() == HealthState.objects.get().polls


def test_it_ends_when_its_time_is_over_and_writes_what_it_has(plan_of):
    with serving(OK) as good:
        plan_of(good)
        poller.run(lambda: False, seconds=0.3, after_write=bool)
    assert HealthSample.objects.count() == 1
    assert not any(thread.name == "health polls" for thread in threading.enumerate())


# -- the task ------------------------------------------------------------------------------------------------------


def test_the_task_goes_while_another_worker_polls(plan_of, monkeypatch):
    ran = []
    monkeypatch.setattr(poller, "run", lambda *_, **how: ran.append(how["seconds"]))
    # Outside of a transaction: one that idles for long is ended by the server, and its lock with it.
    known = connection.get_connection_params() | {"cursor_factory": None}
    with psycopg.connect(**known, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [tasks.POLL_LOCK])
        tasks.poll_health()
        assert ran == []
        other.execute("SELECT pg_advisory_unlock(%s)", [tasks.POLL_LOCK])
    tasks.poll_health()
    assert ran == [tasks.POLL_FOR]


def test_a_worker_that_is_asked_to_end_ends_the_polls_at_once_and_loses_none(plan_of, tmp_path):
    """A real worker with its pool. The task has minutes to go when the signal comes."""
    with serving(OK) as good, redis_server() as redis:
        plan_of(good, auth=good)
        environ = os.environ | {
            "DATABASE_URL": with_database(os.environ["TEST_POSTGRES_URL"], connection.settings_dict["NAME"]),
            "REDIS_URL": redis.url(),
            "GATEWAY_URL": f"http://127.0.0.1:{good}",
        }
        log = tmp_path / "worker.log"
        options = ["--queues", "polls", "--concurrency", "2", "--loglevel", "INFO", "--hostname", "polls@%h"]
        lonely = ["--without-gossip", "--without-mingle"]
        command = [sys.executable, "-m", "celery", "-A", "controlplane", "worker", *options, *lonely]
        with log.open("wb") as output:
            worker = start(command, output=output, env=environ, cwd=REPOSITORY)
        try:
            send = "from migrations_app.tasks import poll_health; poll_health.apply_async(queue='polls')"
            shell = "import django; django.setup(); from controlplane.celery import app; "
            environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
            subprocess.run([sys.executable, "-c", shell + send], env=environ, cwd=REPOSITORY, check=True, timeout=30)
            polled = wait_until(lambda: len(states()) == 2, seconds=30, alive=lambda: worker.poll() is None)
            assert polled, log.read_text()
            asked = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=20)
            assert time.monotonic() - asked < 10
        finally:
            stop(worker)
    assert "succeeded" in log.read_text(), log.read_text()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", [tasks.POLL_LOCK])
        assert cursor.fetchone() == (0,)
