"""Messages are hints: ten times, the last one first, and from two beats at once, they make one change of each click."""

from __future__ import annotations

import signal
from uuid import uuid4

import redis

from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Plan, Week
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.load import load_on
from tests.faults.promises import hold
from tests.faults.system import ON_THE_SERVICES, Browser, System, wait_for
from tests.servers import start_redis, stop_redis

QUEUE = "gateway"
TIMES = 10


def click(manager: Browser, verb: str) -> None:
    seen = str(Week.objects.get(number=1).version)
    answer = manager.post(f"/weeks/1/{verb}/", request_key=str(uuid4()), seen=seen)
    assert answer.status_code == 303, answer.text


def test_messages_that_come_ten_times_and_in_reverse_beside_two_beats_change_nothing_more(
    system: System, manager: Browser, redis_folder
):
    process = start_redis(system.estate.redis_port, redis_folder)
    url = f"redis://127.0.0.1:{system.estate.redis_port}/0"
    try:
        worker = system.worker(url)
        worker.signal(signal.SIGSTOP)
        with redis.Redis.from_url(url) as broker, load_on(system.envoy.port, pause=0.1) as load:
            for verb in ("enable", "rollback", "enable", "rollback", "enable"):
                click(manager, verb)
            # The worker was stopped with the first one in its hands, perhaps; the others wait.
            wait_for(lambda: broker.llen(QUEUE) >= 4, "the hints of the clicks are in the queue")
            sent = broker.lrange(QUEUE, 0, -1)
            broker.rpush(QUEUE, *(message for message in reversed(sent) for _ in range(TIMES)))
            assert broker.llen(QUEUE) >= 4 * (TIMES + 1)
            worker.signal(signal.SIGCONT)
            for _ in range(2):
                system.beat(url)
            wait_for(lambda: broker.llen(QUEUE) == 0, "the worker has taken them all", 60)
            done = worker.said().count("reconcile_all")
            wait_for(lambda: worker.said().count("read_traffic") >= 2, "both beats ask", 60)
            wait_for(lambda: worker.said().count("reconcile_all") > done + 4, "both beats ask", 60)
        assert worker.process.poll() is None
        worker.close()
    finally:
        stop_redis(process)
    (done,) = reconcile_all()
    assert (done.changed, done.error) == (False, "")
    assert system.served_by() == ON_THE_SERVICES
    kinds = AuditEvent.objects.filter(generation__gt=1).order_by("pk").values_list("kind", flat=True)
    enabled, rolled_back = AuditKind.WEEK_ENABLED, AuditKind.WEEK_ROLLED_BACK
    assert [kind for kind in kinds if kind != AuditKind.PLAN_LOADED] == [
        *(enabled, rolled_back, enabled, rolled_back, enabled),
    ]
    assert Plan.objects.get().generation == AuditEvent.objects.order_by("pk").last().generation
    hold(system, clicks=manager.clicks, load=load)
