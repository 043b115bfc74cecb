"""Health polls against real HTTP servers that misbehave in every way."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.choices import Health
from migrations_app.gates.load import current_health
from migrations_app.models import HealthSample, HealthState, Plan, Service
from migrations_app.observe.health import BODY_LIMIT, Poller, PollResult, Target, poll_once, store, targets
from tests.demo.clock import Clock

TIMEOUT = 60.0  # seconds; only ever waited for on a clock on which they pass at once
GIVEN_UP = "no complete answer within 60 s"


@contextmanager
def serving(
    *pieces: bytes, pause: float = 0.0, hold: bool = False, asked: Callable[[], object] = bool
) -> Iterator[str]:
    """A server that answers every connection with these bytes, slowly or not, and may never close.

    `asked` is called for each request, before it is answered.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    open_sockets: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        try:
            connection.recv(65536)
            asked()
            for piece in pieces:
                connection.sendall(piece)
                if stop.wait(pause):
                    break
            if hold:
                stop.wait()
        except OSError:
            pass  # the poller hung up, as it should
        finally:
            connection.close()

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_sockets.append(connection)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/health"
    finally:
        stop.set()
        listener.close()
        for connection in open_sockets:
            connection.close()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/health"


def head(status: str, length: int | None = 2) -> bytes:
    size = f"content-length: {length}\r\n" if length is not None else ""
    return f"HTTP/1.1 {status}\r\n{size}\r\n".encode()


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller(TIMEOUT)
    yield made
    made.close()


@contextmanager
def clocked(outside: Callable[[], bool]) -> Iterator[tuple[Poller, Clock]]:
    """A poller whose time stands still while `outside` says that something is to come, and else passes at once."""
    made, clock = Poller(TIMEOUT), Clock(outside)
    made._runner = asyncio.Runner(loop_factory=lambda: clock)
    yield made, clock
    made.close()


def poll(poller: Poller, url: str) -> PollResult:
    (result,) = poller.poll([Target("auth", url)])
    return result


def test_200_is_healthy_and_timed(poller):
    with serving(head("200 OK"), b"ok", pause=0.03) as url:
        begun = time.perf_counter()
        result = poll(poller, url)
        whole = time.perf_counter() - begun
    assert (result.healthy, result.status_code, result.error) == (True, 200, "")
    assert 30 <= result.milliseconds <= whole * 1000


@pytest.mark.parametrize("status", ["204 No Content", "404 Not Found", "500 Oops", "503 Busy"])
def test_any_other_status_is_unhealthy_and_named(poller, status):
    with serving(head(status, 0)) as url:
        result = poll(poller, url)
    assert not result.healthy
    assert result.error == f"answered {status[:3]}, expected 200"


def test_a_redirect_is_not_followed(poller):
    with serving(head("200 OK") + b"ok") as elsewhere:
        redirect = f"HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n".encode()
        with serving(redirect) as url:
            assert poll(poller, url).error == "answered 302, expected 200"


def test_nothing_listening_is_said_in_words(poller):
    result = poll(poller, closed_port())
    assert (result.healthy, result.status_code) == (False, None)
    assert result.error.startswith("no connection")


def test_a_server_that_never_answers_is_given_up_on():
    asked = threading.Event()
    with serving(hold=True, asked=asked.set) as url, clocked(lambda: not asked.is_set()) as (poller, clock):
        assert poll(poller, url).error == GIVEN_UP
        assert clock.time() == TIMEOUT


def test_a_trickling_answer_is_given_up_on_in_time():
    """Each drop comes well within the timeout, and the next would come after it."""
    asked, drops = threading.Event(), 0

    async def trickle(_: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        nonlocal drops
        client.write(head("200 OK", 1000))
        asked.set()
        try:
            for drops in range(1, 101):  # noqa: B007
                client.write(b".")
                await asyncio.sleep(TIMEOUT / 4.5)
        finally:
            client.transport.abort()

    with clocked(lambda: not asked.is_set()) as (poller, clock):
        server = poller._runner.run(asyncio.start_server(trickle, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        assert poll(poller, f"http://127.0.0.1:{port}/health").error == GIVEN_UP
        assert (clock.time(), drops) == (TIMEOUT, 5)
        server.close()


def test_a_huge_answer_is_cut_off(poller):
    with serving(head("200 OK", 10**9), *([b"x" * BODY_LIMIT] * 4), hold=True) as url:
        assert poll(poller, url).error == "the answer is longer than 64 kB"


def test_garbage_is_an_error_of_that_target_only(poller):
    with serving(b"\x00\x01 not http\r\n\r\n") as garbage, serving(head("200 OK") + b"ok") as good:
        results = {r.target: r for r in poller.poll([Target("bad", garbage), Target("good", good)])}
    assert "RemoteProtocolError" in results["bad"].error
    assert results["good"].healthy


def test_hanging_targets_delay_nobody():
    """The good one is answered before any time passes, and the others are given up on together."""
    asked: list[None] = []
    ended: list[tuple[str, float]] = []

    async def noted(target: Target) -> PollResult:
        result = await ask(target)
        ended.append((target.key, clock.time()))
        return result

    with (
        serving(hold=True, asked=lambda: asked.append(None)) as hanging,
        serving(head("200 OK") + b"ok") as good,
        clocked(lambda: len(asked) < 10 or not ended) as (poller, clock),
    ):
        ask, poller._poll = poller._poll, noted
        results = poller.poll([Target(f"h{n}", f"{hanging}/{n}") for n in range(10)] + [Target("good", good)])
    assert [result.target for result in results if result.healthy] == ["good"]
    assert [result.error for result in results] == [GIVEN_UP] * 10 + [""]
    assert ended[0] == ("good", 0)
    assert {moment for _, moment in ended[1:]} == {TIMEOUT}


def test_a_server_that_comes_back_is_healthy_again(poller):
    url = closed_port()
    assert not poll(poller, url).healthy
    port = int(url.split(":")[2].split("/")[0])
    listener = socket.create_server(("127.0.0.1", port))

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(head("200 OK") + b"ok")
        connection.close()

    threading.Thread(target=answer, daemon=True).start()
    try:
        assert poll(poller, url).healthy
    finally:
        listener.close()


def test_every_result_is_stored_and_the_state_keeps_its_beginning(db):
    now = timezone.now()

    def at(seconds: int, healthy: bool) -> PollResult:
        error = "" if healthy else "no connection"
        return PollResult("auth", now + timedelta(seconds=seconds), healthy, 200 if healthy else None, 1.0, error)

    for seconds, healthy in ((0, True), (1, True), (2, False), (3, False)):
        store([at(seconds, healthy)])
    assert HealthSample.objects.count() == 4
    row = HealthState.objects.get(target="auth")
    assert (row.state, row.error) == (Health.UNHEALTHY, "no connection")
    assert row.since == now + timedelta(seconds=2)
    assert row.polled_at == now + timedelta(seconds=3)


def test_a_state_grows_old_and_unknown(plan, settings):
    now = timezone.now()
    assert current_health(now)["auth"][0] == Health.HEALTHY
    state, why = current_health(now + timedelta(seconds=settings.HEALTH_STALE_AFTER + 5))["auth"]
    assert state == Health.UNKNOWN
    assert why.startswith("the last poll was 3")


def test_the_targets_are_the_monolith_and_every_service(plan):
    found = {target.key: target.url for target in targets(Plan.objects.get())}
    assert len(found) == 11
    assert found["monolith"] == "http://127.0.0.1:3000/health"
    assert found["auth"] == "http://127.0.0.1:3010/health"


def test_without_a_plan_there_is_nothing_to_poll(db, poller):
    assert poll_once(poller) == []


def test_what_was_seen_at_an_address_that_the_plan_left_meanwhile_is_not_stored(plan):
    class Slow:
        def poll(self, wanted: list[Target]) -> list[PollResult]:
            Service.objects.filter(key="rag").update(port=1)
            HealthState.objects.filter(target="rag").delete()
            return [PollResult(target.key, timezone.now(), healthy=True) for target in wanted]

    poll_once(Slow())
    assert current_health()["auth"] == (Health.HEALTHY, "")
    assert "rag" not in current_health()


def test_writing_takes_a_fixed_number_of_queries(db, django_assert_max_num_queries):
    now = timezone.now()
    for count in (5, 50):
        results = [PollResult(f"s{n}", now, True, 200, 1.0) for n in range(count)]
        with django_assert_max_num_queries(7):  # one of them tells the pages that are open
            store(results)
