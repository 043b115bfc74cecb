"""How many messages wait, by a real Redis; and none of it takes long when Redis is ill."""

from __future__ import annotations

import os
import socket
import time

import pytest
from redis import Redis

from controlplane.embedded.children import free_port
from migrations_app.observe import queues


@pytest.fixture
def redis():
    """The run's Redis, with the queues empty before and after. Each worker of the run has a database of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    url = f"{os.environ['TEST_REDIS_URL'].rsplit('/', 1)[0]}/{worker + 1}"
    with Redis.from_url(url) as client:
        client.delete(*queues.names())
        yield url, client
        client.delete(*queues.names())


def test_the_queues_are_those_that_beat_and_clicks_send_to(settings):
    sent_to = {entry["options"]["queue"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert {"gateway", "observe"} <= sent_to == set(queues.names())


def test_messages_that_wait_are_counted(redis, settings):
    settings.CELERY_BROKER_URL, client = redis
    empty = dict.fromkeys(queues.names(), 0)
    assert queues.depths() == empty
    client.rpush("observe", "a", "b", "c")
    assert queues.depths() == empty | {"observe": 3}


def test_what_is_there_but_no_queue_is_as_no_answer(redis, settings):
    settings.CELERY_BROKER_URL, client = redis
    client.set("observe", "no list")
    assert queues.depths() is None


@pytest.mark.parametrize("url", ["", "memory://", "amqp://127.0.0.1"])
def test_a_broker_that_is_no_redis_is_not_asked(settings, url: str):
    settings.CELERY_BROKER_URL = url
    assert queues.depths() is None


def test_a_redis_that_is_away_is_no_answer(settings):
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{free_port()}/0"
    assert queues.depths() is None


def test_a_redis_that_hangs_is_given_up_soon(settings):
    with socket.create_server(("127.0.0.1", 0), backlog=4) as silent:
        settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        begun = time.monotonic()
        assert queues.depths() is None
        assert time.monotonic() - begun < 3 * queues.WITHIN
