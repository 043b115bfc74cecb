"""A rollback is confirmed whatever of the control plane is dead: what ails Redis or its workers."""

from __future__ import annotations

import json
import signal
import socket
import time
from uuid import uuid4

import pytest
import redis
from celery import Celery

from migrations_app.actions.weeks import enable_week
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Confirmation, Week
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, Browser, System, wait_for, words
from tests.servers import start_redis, stop_redis


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on, and the gateway serves it from the services."""
    enable_week(number=1, actor=OPERATOR)
    reconcile_all()
    assert system.served_by() == ON_THE_SERVICES
    return system


def stopped(system: System, _folder):
    """Nothing listens on Redis' port."""
    yield


def silent(system: System, _folder):
    """Redis' port takes connections and never answers."""
    with socket.create_server(("127.0.0.1", system.estate.redis_port), backlog=64):
        yield


def frozen(system: System, folder):
    """A real Redis that has been stopped by a signal."""
    process = start_redis(system.estate.redis_port, folder)
    try:
        process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.send_signal(signal.SIGCONT)
        stop_redis(process)


def without_workers(system: System, folder):
    """Redis is well, but nobody takes what is put there."""
    process = start_redis(system.estate.redis_port, folder)
    try:
        yield
    finally:
        stop_redis(process)


def frozen_workers(system: System, folder):
    """The worker took its last message and then stopped dead, connections and all."""
    process = start_redis(system.estate.redis_port, folder)
    try:
        worker = system.worker(f"redis://127.0.0.1:{system.estate.redis_port}/0")
        worker.signal(signal.SIGSTOP)
        yield
        worker.close()
    finally:
        stop_redis(process)


def killed_workers(system: System, folder):
    """The worker took messages until it was killed, with all of its processes."""
    process = start_redis(system.estate.redis_port, folder)
    try:
        system.worker(f"redis://127.0.0.1:{system.estate.redis_port}/0").close()
        yield
    finally:
        stop_redis(process)


def flushed(system: System, folder):
    """Redis has lost everything: messages, and the names of the queues that its worker waits for."""
    process = start_redis(system.estate.redis_port, folder)
    url = f"redis://127.0.0.1:{system.estate.redis_port}/0"
    try:
        worker = system.worker(url)
        with redis.Redis.from_url(url) as client:
            client.flushall()
        yield
        # It goes on with what comes later.
        seen = worker.said().count("reconcile_all")
        with Celery(broker=url) as asker:
            asker.send_task("migrations_app.tasks.reconcile_all", queue="gateway")
        wait_for(lambda: worker.said().count("reconcile_all") > seen, "the worker takes messages")
    finally:
        stop_redis(process)


def out_of_memory(system: System, folder):
    """Redis answers, and takes nothing any more."""
    process = start_redis(system.estate.redis_port, folder)
    try:
        with redis.Redis.from_url(f"redis://127.0.0.1:{system.estate.redis_port}/0") as client:
            client.config_set("maxmemory", 1)
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.rpush("gateway", "a message")
        yield
    finally:
        stop_redis(process)


FAULTS = [stopped, silent, frozen, without_workers, frozen_workers, killed_workers, flushed, out_of_memory]


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.__name__)
def fault(request, on: System, redis_folder):
    yield from request.param(on, redis_folder)


def click(manager: Browser, path: str) -> float:
    """POST as the page's own form does; returns the seconds until the answer, which must say that it is applied."""
    seen = str(Week.objects.get(number=1).version)
    begun = time.monotonic()
    answer = manager.post(path, request_key=str(uuid4()), seen=seen)
    took = time.monotonic() - begun
    assert answer.status_code == 303, words(answer.text)
    assert "Applied on the gateway in" in words(manager.get(answer.headers["location"]).text)
    return took


def test_rollback_of_a_week_on_the_web_is_confirmed_within_two_seconds(on: System, manager: Browser, fault):
    assert click(manager, "/weeks/1/rollback/") < 2.0
    assert on.served_by() == ON_THE_MONOLITH
    assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ROLLED_BACK).count() == 1
    # A second click finds things as they should be, and says so as quickly.
    assert click_again(manager) < 2.0
    assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ROLLED_BACK).count() == 1
    hold(on, clicks=manager.clicks)


def click_again(manager: Browser) -> float:
    begun = time.monotonic()
    answer = manager.post("/weeks/1/rollback/", request_key=str(uuid4()))
    assert answer.status_code == 303
    return time.monotonic() - begun


@pytest.mark.parametrize("fault", [silent], indirect=True, ids=["silent"])
def test_rollback_of_one_service_on_the_web_moves_that_one_alone(on: System, manager: Browser, fault):
    assert click(manager, "/flags/USE_RAG_SERVICE/rollback/") < 2.0
    assert on.served_by() == ON_THE_SERVICES | {"rag": "monolith"}


@pytest.mark.parametrize("fault", [stopped, silent, frozen], indirect=True, ids=lambda fault: fault.__name__)
def test_rollback_at_the_shell_is_confirmed(on: System, fault):
    done = on.manage("week", "rollback", "1", "--json", "--reason", "errors in storage")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["changed"], said["confirmed"]) == (True, True)
    assert said["milliseconds"] < 2000
    assert on.served_by() == ON_THE_MONOLITH


def test_a_living_worker_confirms_before_the_web_process_would_act_itself(on: System, manager: Browser, redis_folder):
    process = start_redis(on.estate.redis_port, redis_folder)
    try:
        worker = on.worker(f"redis://127.0.0.1:{on.estate.redis_port}/0")
        # The first message warms the worker's processes up; no pass is asked for by anybody else.
        click(manager, "/flags/USE_RAG_SERVICE/rollback/")
        took = click(manager, "/weeks/1/rollback/")
        event = AuditEvent.objects.filter(kind=AuditKind.WEEK_ROLLED_BACK).get()
        confirmation = Confirmation.objects.get(generation=event.generation)
        # The web process leaves the workers a head start of 0.5 s; it was not used up.
        assert (confirmation.confirmed_at - event.at).total_seconds() < 0.5, took
        wait_for(lambda: worker.said().count("reconcile_all") >= 2, "the worker tells of both passes")
    finally:
        stop_redis(process)
    assert on.served_by() == ON_THE_MONOLITH
    hold(on, clicks=manager.clicks)
