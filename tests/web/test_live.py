"""Streams of live events: what is told and to whom, on a real uvicorn and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import signal
import time
from http import HTTPStatus

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.test import Client

from controlplane.embedded.children import free_port, wait_until
from migrations_app.actions.accounts import deactivate
from migrations_app.actions.weeks import enable_week
from migrations_app.actor import SYSTEM
from migrations_app.live import MOST_BYTES, Topic, messages, tell
from migrations_app.observe.traffic import store
from migrations_app.roles import Role
from migrations_app.web import live_hub
from migrations_app.web.live import wanted_of
from migrations_app.web.live_hub import Hub, Refused, Ticket
from tests.factories import load_tracseq, make_healthy, make_people, tick_all
from tests.web.streams import Stream, backends, cut_off, dashboard_process, session_of


@pytest.fixture
def log(tmp_path):
    return tmp_path / "dashboard.log"


@pytest.fixture
def port(transactional_db, log):
    """Where a dashboard process serves TracSeq to an account of each role."""
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    make_people()
    number = free_port()
    with dashboard_process(number, log):
        yield number


# -- the streams of a real process -----------------------------------------------------------------------------------


def test_what_somebody_does_elsewhere_is_told_within_a_second_and_so_is_its_arrival_on_the_gateway(port):
    tick_all(1, SYSTEM)
    with Stream(port, session_of("viewer"), "plan", "gateway") as stream:
        assert stream.answer.headers["Content-Type"] == "text/event-stream"
        assert stream.answer.headers["X-Accel-Buffering"] == "no"
        assert "no-store" in stream.answer.headers["Cache-Control"]
        assert "Content-Length" not in stream.answer.headers
        assert stream.next() == ("resync", None)
        enable_week(number=1, actor=SYSTEM, reason="as planned")
        committed = time.monotonic()
        told = stream.until("change")
        assert time.monotonic() - committed < 1.0
        while "plan" not in told:
            told = stream.until("change")
        assert told["plan"] == ["1"]
        while "gateway" not in told:
            told = stream.until("change")
        assert told["gateway"] == ["main"]


def test_a_page_hears_of_what_it_asked_for_alone(port):
    with Stream(port, session_of("viewer"), "health:auth", "plan") as stream:
        stream.until("resync")
        tell(Topic.HEALTH, "rag")
        tell(Topic.TRAFFIC)
        tell(Topic.HEALTH, "rag", "auth")
        assert stream.until("change") == {"health": ["auth"]}


def test_nothing_is_told_of_what_is_rolled_back(port):
    with Stream(port, session_of("viewer"), "health") as stream:
        stream.until("resync")
        with transaction.atomic():
            tell(Topic.HEALTH, "never")
            transaction.set_rollback(True)
        tell(Topic.HEALTH, "auth")
        assert stream.until("change") == {"health": ["auth"]}


def test_a_listener_that_is_cut_off_says_so_connects_again_and_misses_nothing(port):
    with Stream(port, session_of("viewer"), "health") as stream:
        stream.until("resync")
        (listener,) = backends(listening=True)
        cut_off([listener])
        assert stream.next() == ("lost", None)
        assert stream.next() == ("resync", None)
        tell(Topic.HEALTH, "auth")
        assert stream.until("change") == {"health": ["auth"]}
        (another,) = backends(listening=True)
        assert another != listener


def test_open_streams_hold_one_connection_to_the_database_among_them(port):
    sessions = [session_of(role.value.replace(" ", "-")) for role in Role for _ in range(2)]
    streams = [Stream(port, sessions[0], "plan")]
    streams[0].until("resync")
    before = len(backends(listening=False))
    try:
        for session in sessions[1:]:
            streams += [Stream(port, session, "plan") for _ in range(live_hub.MOST_OF_SESSION)]
        for stream in streams[1:]:
            stream.until("resync")
        assert len(streams) == 37
        assert len(backends(listening=True)) == 1
        assert len(backends(listening=False)) <= before + 2  # the pool's own, whoever asks
        tell(Topic.PLAN, "4")
        assert [stream.until("change") for stream in streams] == [{"plan": ["4"]}] * 37
    finally:
        for stream in streams:
            stream.__exit__()


@pytest.mark.parametrize("how", ["signs out", "loses the role", "is deactivated", "changes the password"])
def test_the_stream_of_somebody_who_may_no_longer_see_ends(port, how):
    session = session_of("viewer")
    with Stream(port, session, "plan") as stream, Stream(port, session_of("support"), "plan") as other:
        stream.until("resync")
        other.until("resync")
        viewer = User.objects.get(username="viewer")
        if how == "signs out":
            Session.objects.get(session_key=session).delete()
        elif how == "loses the role":
            viewer.groups.remove(Group.objects.get(name=Role.VIEWER))
        elif how == "is deactivated":
            deactivate(name="viewer", actor=SYSTEM, reason="left")
        else:
            viewer.set_password("another that is long enough")
            viewer.save()
        begun = time.monotonic()
        assert stream.until("end") == "signed-out"
        assert time.monotonic() - begun < live_hub.GUARD_EVERY + 3
        tell(Topic.PLAN, "1")
        assert other.until("change") == {"plan": ["1"]}


def test_one_browser_gets_four_streams_and_the_fifth_page_is_told_to_poll(port):
    session = session_of("viewer")
    streams = [Stream(port, session) for _ in range(live_hub.MOST_OF_SESSION)]
    with Stream(port, session) as refused:
        assert refused.answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert int(refused.answer.headers["Retry-After"]) > 0
    with Stream(port, session_of("viewer")) as of_another_browser:
        assert of_another_browser.answer.status_code == HTTPStatus.OK
    streams.pop().__exit__()

    def again() -> bool:
        with Stream(port, session) as stream:
            return stream.answer.status_code == HTTPStatus.OK

    assert wait_until(again, seconds=10)
    for stream in streams:
        stream.__exit__()


def test_open_streams_do_not_hold_up_the_end_of_the_process(transactional_db, log):
    load_tracseq(adapter="memory", by_hand=True)
    make_people()
    port = free_port()
    with dashboard_process(port, log) as process, Stream(port, session_of("viewer"), "health") as stream:
        stream.until("resync")
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert stream.until("end") == "closing"
        process.wait(10)
        assert time.monotonic() - begun < 3.0
    assert "Cancel" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_stream_is_refused_as_every_page_is(port):
    def status(session: str, **parameters: str) -> int:
        cookies = {settings.SESSION_COOKIE_NAME: session}
        address = f"http://127.0.0.1:{port}/live"
        return httpx.get(address, params=parameters, cookies=cookies, trust_env=False, timeout=10).status_code

    User.objects.create_user("nobody")
    assert status("") == HTTPStatus.FOUND
    assert status(session_of("nobody")) == HTTPStatus.FORBIDDEN
    assert status(session_of("viewer"), topic="account") == HTTPStatus.BAD_REQUEST
    assert status(session_of("viewer"), topic="weather") == HTTPStatus.BAD_REQUEST


# -- what is told by whom --------------------------------------------------------------------------------------------


def heard_while(act) -> list[str]:
    """The messages of what a function commits, on a connection that listens meanwhile."""
    import psycopg

    known = connection.get_connection_params() | {"cursor_factory": None}
    with psycopg.connect(**known, autocommit=True) as other:
        other.execute("LISTEN switchyard_live")
        act()
        return [message.payload for message in other.notifies(timeout=0.2)]


@pytest.mark.django_db(transaction=True)
def test_the_reconciler_tells_of_news_and_otherwise_that_it_has_looked(transactional_db):
    from migrations_app.reconcile.loop import reconcile_all

    load_tracseq(adapter="memory", by_hand=True)
    assert heard_while(reconcile_all) == ['["gateway", ["main"]]']
    assert heard_while(reconcile_all) == ['["look", ["main"]]']


@pytest.mark.django_db(transaction=True)
def test_a_reading_without_requests_is_no_news(transactional_db):
    from django.utils import timezone

    from migrations_app.gateways.base import Side, SideTraffic

    load_tracseq(adapter="memory", by_hand=True)
    for requests, told in ((5, []), (5, []), (9, ['["traffic", [""]]'])):
        totals = {("rag", Side.MONOLITH): SideTraffic(requests, 0)}
        assert heard_while(lambda totals=totals: store(totals, timezone.now())) == told


def test_keys_are_split_into_messages_that_postgresql_takes():
    keys = [f"service-{number:04}" for number in range(2000)] + ["ö" * 60]
    told = messages(Topic.POLL, *keys)
    assert len(told) > 3
    assert max(len(message.encode()) for message in told) <= MOST_BYTES
    ticket = Ticket("s", 1, "h", wanted_of([]))
    stream = live_hub.Stream(ticket, Hub())
    hub = Hub()
    hub._streams.add(stream)
    for message in told:
        hub.take(message)
    assert stream._changed == {Topic.POLL: set(keys)}


# -- the hub alone ---------------------------------------------------------------------------------------------------


def ticket(number: int = 1, *topics: str) -> Ticket:
    return Ticket(f"session-{number}", number, "hash", wanted_of(list(topics)))


def test_a_hundred_changes_at_once_are_one_event_and_the_next_ones_wait(monkeypatch):
    monkeypatch.setattr(live_hub, "EVENT_EVERY", 0.1)
    monkeypatch.setattr(live_hub, "STEADY_EVERY", 0.4)
    monkeypatch.setattr(live_hub, "BEAT_EVERY", 0.6)

    async def story() -> list[tuple[float, str]]:
        clock, written = asyncio.get_running_loop().time, []
        hub = Hub()
        stream = live_hub.Stream(ticket(), hub)
        begun = clock()

        async def write(text: str) -> None:
            written.append((clock() - begun, text))
            if len(written) == 1:
                hub._streams.add(stream)
                for key in range(100):
                    hub.take(messages(Topic.HEALTH, f"{key % 2}")[0])
                hub.take(messages(Topic.TRAFFIC)[0])
            elif len(written) == 2:
                hub.take(messages(Topic.TRAFFIC)[0])
            elif len(written) == 4:
                stream.end("closing")

        stream.say("resync")
        await stream.run(write)
        return written

    resync, first, steady, beat, end = asyncio.run(story())
    assert "event: resync" in resync[1]
    assert 'data: {"health": ["0", "1"], "traffic": [""]}' in first[1]
    assert 'data: {"traffic": [""]}' in steady[1]
    assert steady[0] - first[0] >= 0.4
    assert "event: beat" in beat[1]
    assert beat[0] - steady[0] >= 0.6
    assert 'event: end\ndata: "closing"' in end[1]


def test_a_browser_that_does_not_read_loses_its_stream(monkeypatch):
    monkeypatch.setattr(live_hub, "WRITE_WITHIN", 0.05)

    async def story() -> bool:
        stream = live_hub.Stream(ticket(), Hub())
        stream.say("resync")

        async def write(_: str) -> None:
            await asyncio.Event().wait()

        async with asyncio.timeout(5):
            await stream.run(write)
        return True

    assert asyncio.run(story())


def test_a_message_that_nobody_can_read_lets_every_page_ask_anew():
    stream = live_hub.Stream(ticket(1, "plan"), Hub())
    hub = Hub()
    hub._streams.add(stream)
    for payload in ("", "{}", '["weather", []]', "[]", '"plan"', "5"):
        stream._first = ""
        hub.take(payload)
        assert stream._first == "resync", payload


@pytest.mark.django_db(transaction=True)
def test_silence_of_those_who_look_at_the_gateway_is_told_too(transactional_db, monkeypatch):
    monkeypatch.setattr(live_hub, "LOOKED_WITHIN", 0.5)
    monkeypatch.setattr(live_hub, "GUARD_EVERY", 60.0)

    async def story() -> list[str]:
        hub, written = Hub(), []
        stream = hub.admit(ticket(1, "gateway"))

        async def write(text: str) -> None:
            written.append(text.partition("event: ")[2])
            if len(written) == 2:
                stream.end()

        async with asyncio.timeout(20):
            await stream.run(write)
        hub.close()
        await asyncio.gather(*hub._tasks, return_exceptions=True)
        return written

    assert asyncio.run(story()) == ["resync\ndata: null\n\n", 'change\ndata: {"gateway": [""]}\n\n']


@pytest.mark.django_db(transaction=True)
def test_when_nobody_can_say_who_may_listen_all_streams_end_in_the_end(transactional_db, monkeypatch):
    from django.db import DatabaseError

    def nobody_knows(_: object) -> set:
        raise DatabaseError("away")

    monkeypatch.setattr(live_hub, "may_still_listen", nobody_knows)
    monkeypatch.setattr(live_hub, "GUARD_EVERY", 0.1)
    monkeypatch.setattr(live_hub, "GUARD_WITHIN", 2.0)

    async def story() -> float:
        hub = Hub()
        clock = asyncio.get_running_loop().time
        begun, stream, written = clock(), hub.admit(ticket()), []

        async def write(text: str) -> None:
            written.append(text)

        async with asyncio.timeout(20):
            await stream.run(write)
        hub.close()
        await asyncio.gather(*hub._tasks, return_exceptions=True)
        assert 'event: end\ndata: "signed-out"' in written[-1]
        return clock() - begun

    assert asyncio.run(story()) >= 2.0


def test_a_process_takes_so_many_streams_and_an_account_so_many_of_them(monkeypatch):
    monkeypatch.setattr(live_hub, "MOST_STREAMS", 3)
    monkeypatch.setattr(live_hub, "MOST_OF_ACCOUNT", 2)

    async def story() -> list[int]:
        hub, refused = Hub(), []
        hub._tasks = [asyncio.ensure_future(asyncio.sleep(0))]
        first = hub.admit(Ticket("a", 1, "", {}))
        hub.admit(Ticket("b", 1, "", {}))
        for asked in (Ticket("c", 1, "", {}), Ticket("d", 2, "", {}), Ticket("e", 3, "", {})):
            try:
                hub.admit(asked)
            except Refused as refusal:
                refused.append(int(refusal.status))
        hub.dismiss(first)
        hub.admit(Ticket("e", 3, "", {}))
        hub.close()
        with pytest.raises(Refused):
            hub.admit(Ticket("f", 4, "", {}))
        return refused

    assert asyncio.run(story()) == [429, 503]


def test_without_streams_the_address_answers_with_one_event_and_a_pause(manager):
    response = manager.get("/live")
    assert response.content.decode() == "retry: 20000\nid: 0\nevent: resync\ndata: null\n\n"
    assert Client().get("/live").status_code == HTTPStatus.FOUND
