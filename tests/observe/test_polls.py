"""One poll, against real servers that misbehave in every way: what it finds, what it says, and that it does no harm."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import threading
import time
import zlib

import pytest

from migrations_app.observe.polls import Line, judge
from migrations_app.observe.wire import BODY_LIMIT, HEAD_LIMIT, RAW_LIMIT

from .web import CERTIFICATE, TIMEOUT, beside, closed_port, head, lines, poll, run, serving, target, trusting

OK = head("200 OK") + b"ok"


def test_200_is_healthy_and_timed():
    begun = time.perf_counter()
    with serving(OK) as port:
        (result,) = poll(target(port))
    whole = (time.perf_counter() - begun) * 1000
    assert (result.healthy, result.status_code, result.error) == (True, 200, "")
    assert 0 < result.connect_ms <= result.first_byte_ms <= result.milliseconds <= whole


def test_a_kept_connection_is_used_again_and_takes_no_time_to_connect():
    requests, connections = 0, 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests, connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            requests += 1
            writer.write(OK)

    async def three():
        async with beside(answer) as port:
            line = Line(target(port), lines())
            results = [await line.poll() for _ in range(3)]
            await line.close()
        return results

    results = run(three())
    assert [result.healthy for result in results] == [True] * 3
    assert (requests, connections) == (3, 1)
    assert results[0].connect_ms > 0
    assert [result.connect_ms for result in results[1:]] == [0, 0]


@pytest.mark.parametrize("status", ["204 No Content", "404 Not Found", "500 Oops", "503 Busy"])
def test_any_other_status_is_unhealthy_and_named(status):
    with serving(head(status, 0)) as port:
        (result,) = poll(target(port))
    assert (result.healthy, result.status_code, result.answered) == (False, int(status[:3]), True)
    assert result.error == f"answered {status[:3]}, expected 200"


@pytest.mark.parametrize(
    ("expected", "status", "error"),
    [
        ((204,), 204, ""),
        (("2xx",), 299, ""),
        (("2xx", 404), 404, ""),
        (("2xx", 404), 503, "answered 503, expected 2xx or 404"),
        (("5xx",), 500, ""),
    ],
)
def test_the_expected_statuses_are_numbers_and_classes(expected, status, error):
    assert judge(target(1, status=expected), status, b"") == error


@pytest.mark.parametrize(
    ("place", "wanted", "body", "error"),
    [
        ("status", "ok", {"status": "ok"}, ""),
        ("checks.0.up", True, {"checks": [{"up": True}]}, ""),
        ("status", "ok", {"status": "degraded"}, 'status is "degraded", expected "ok"'),
        ("status", "ok", {"status": "key=3f9a"}, 'status is other text, expected "ok"'),
        ("up", True, {"up": 1}, "up is 1, expected true"),
        ("up", True, {"down": 1}, "the answer has no up, expected true"),
        ("up", True, {"up": {"a": 1}}, "up is an object, expected true"),
    ],
)
def test_values_of_the_json_are_looked_at(place, wanted, body, error):
    asked = target(1, values=((place, json.dumps(wanted)),))
    assert judge(asked, 200, json.dumps(body).encode()) == error


@pytest.mark.parametrize("body", [b"", b"ok", b"\xff\xfe{", b"[" * 60_000, b'{"status": "ok"'])
def test_what_is_no_json_is_said_to_be_none(body):
    assert judge(target(1, values=(("status", '"ok"'),)), 200, body) == "the answer is no JSON"


def test_a_packed_answer_is_unpacked_only_for_its_values_and_only_to_a_limit():
    wanted = target(1, values=(("status", '"ok"'),))
    good = b'{"status": "ok"}'
    bomb = gzip.compress(b" " * (50 * BODY_LIMIT) + good)
    assert len(bomb) < BODY_LIMIT
    assert judge(wanted, 200, gzip.compress(good), "gzip") == ""
    assert judge(wanted, 200, zlib.compress(good), "deflate") == ""
    assert judge(wanted, 200, bomb, "gzip") == "the answer is no JSON"
    assert judge(wanted, 200, good, "gzip") == "the answer is no JSON"
    assert judge(wanted, 200, good, "br") == "the answer is no JSON"
    assert judge(target(1), 200, bomb, "gzip") == ""


def test_a_bomb_on_the_wire_is_read_as_it_is():
    bomb = gzip.compress(b"x" * 10_000_000)
    with serving(head("200 OK", len(bomb), "content-encoding: gzip") + bomb) as port:
        (result,) = poll(target(port))
    assert result.healthy


def test_nothing_packed_is_asked_for_and_the_host_is_the_targets_own():
    requests: list[bytes] = []
    with serving(OK, asked=requests.append) as port:
        poll(target(port, host="localhost"))
    (request,) = requests
    assert request.startswith(b"GET /health HTTP/1.1\r\n")
    assert b"accept-encoding: identity" in request.lower()
    assert f"host: localhost:{port}".encode() in request.lower()


def test_a_redirect_is_not_followed():
    elsewhere: list[bytes] = []
    with (
        serving(OK, asked=elsewhere.append) as other,
        serving(head("302 Found", 0, f"location: http://127.0.0.1:{other}/")) as port,
    ):
        (result,) = poll(target(port))
    assert result.error == "answered 302, expected 200"
    assert elsewhere == []


def test_nothing_listening_is_said_in_words():
    port = closed_port()
    (result,) = poll(target(port))
    assert (result.healthy, result.status_code, result.answered) == (False, None, False)
    assert (result.connect_ms, result.first_byte_ms, result.milliseconds) == (None, None, None)
    assert result.error == f"no connection: nothing listens on 127.0.0.1:{port}"


def test_a_name_that_is_not_known_is_said_in_words(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    (result,) = poll(target(80, host="auth.invalid"))
    assert (result.error, result.answered) == ("no such host: auth.invalid", False)


def test_a_host_that_can_be_none_is_said_in_words():
    (result,) = poll(target(80, host="999.1.1.1"))
    assert (result.healthy, result.asked) == (False, False)
    assert result.error.startswith("http://999.1.1.1:80/health is no address")


def test_a_reset_is_said_in_words():
    with serving(reset=True) as port:
        (result,) = poll(target(port))
    assert result.error in {"the connection was reset", "hung up without an answer"}
    assert result.answered


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((), "hung up without an answer"),
        ((b"HTTP/1.1 200",), "hung up in the middle of its answer"),
        ((head("200 OK", 100) + b"short",), "hung up in the middle of its answer"),
        ((head("200 OK", None, "transfer-encoding: chunked") + b"5\r\nhello\r\n",), "hung up in the middle"),
        ((b"\x00\x01 not http\r\n\r\n",), "what came back is not HTTP"),
        ((b"HTTP/1.1 2OO OK\r\n\r\n",), "what came back is not HTTP"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",), "what came back is not HTTP"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",), "what came back is not HTTP"),
        ((b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",), "what came back is not HTTP"),
        ((head("200 OK", None, "transfer-encoding: chunked") + b"zz\r\n",), "what came back is not HTTP"),
        ((head("101 Switching Protocols", None, "connection: upgrade", "upgrade: tls"),), "it changes to another"),
    ],
)
def test_a_malformed_answer_is_unhealthy_and_told(pieces, error):
    with serving(*pieces) as port:
        (result,) = poll(target(port))
    assert not result.healthy
    assert result.milliseconds is None
    assert result.error.startswith(error)
    assert result.answered


@pytest.mark.parametrize(
    "answer",
    [
        head("200 OK", None) + b"until the end",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        head("200 OK", None, "transfer-encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
        head("200 OK", None, "transfer-encoding: chunked") + b"2\r\nok\r\n0\r\ntrailer: yes\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK,
        head("200 OK", 2, "connection: close") + b"ok",
    ],
)
def test_every_way_to_end_an_answer_is_understood(answer):
    with serving(answer) as port:
        assert [result.error for result in poll(target(port), times=2)] == ["", ""]


def test_what_comes_after_an_answer_is_not_taken_for_the_next():
    with serving(OK + head("503 Busy", 0), hold=True) as port:
        assert [result.error for result in poll(target(port), times=3)] == ["", "", ""]


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([head("200 OK", 10**9), *[b"x" * BODY_LIMIT] * 4], "the answer is longer than 64 kB"),
        ([head("200 OK", None, "transfer-encoding: chunked"), b"1\r\nx\r\n" * RAW_LIMIT], "the answer is longer than"),
        ([head("200 OK", None), *[b"x" * BODY_LIMIT] * 4], "the answer is longer than 64 kB"),
        ([b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * HEAD_LIMIT], "the answer is longer than 64 kB"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_LIMIT], "the answer is longer than 64 kB"),
        (
            [head("200 OK", None, "transfer-encoding: chunked"), b"0\r\n", b"a: b\r\n" * RAW_LIMIT],
            "the answer is longer",
        ),
    ],
    ids=["length", "chunks", "to the end", "head", "heads", "trailers"],
)
def test_a_huge_answer_is_cut_off(pieces, error):
    with serving(*pieces, hold=True) as port:
        (result,) = poll(target(port))
    assert not result.healthy
    assert result.error.startswith(error)
    assert result.milliseconds is None


def test_a_server_that_never_answers_is_given_up_on():
    asked = threading.Event()
    with serving(hold=True, asked=lambda _: asked.set()) as port:
        (result,) = poll(target(port), outside=lambda: not asked.is_set())
    assert (result.error, result.answered) == ("no answer within 60 s", False)


def test_a_trickling_answer_is_given_up_on_in_time():
    """Each drop comes well within the timeout, and the next would come after it."""
    asked, drops = threading.Event(), 0

    async def trickle(_: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        nonlocal drops
        client.write(head("200 OK", 1000))
        asked.set()
        for drops in range(1, 101):  # noqa: B007
            client.write(b".")
            await asyncio.sleep(TIMEOUT / 4.5)

    async def whole():
        async with beside(trickle) as port:
            result = await Line(target(port), lines()).poll()
            return result, asyncio.get_running_loop().time()

    result, waited = run(whole(), lambda: not asked.is_set())
    assert (result.error, result.status_code) == ("no complete answer within 60 s", 200)
    assert (waited, drops) == (TIMEOUT, 5)


def test_a_server_that_takes_no_connection_is_given_up_on(monkeypatch):
    async def never(*_, **__):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_connection", never)
    (result,) = poll(target(1), outside=lambda: False)
    assert (result.error, result.connect_ms) == ("no connection within 60 s", None)


def test_a_name_server_that_hangs_is_asked_once_and_given_up_on(monkeypatch):
    asked, ended = [], threading.Event()

    def hang(*_, **__):
        asked.append(1)
        ended.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def thrice():
        line = Line(target(80, host="slow.test", timeout=0.02), lines())
        results = [await line.poll() for _ in range(3)]
        ended.set()
        await asyncio.wait([line._lookup])
        return [result.error for result in results]

    assert run(thrice()) == ["no address found for slow.test within 0.02 s"] * 3
    assert len(asked) == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_no_fault():
    """The server ends the connection just as the second request comes, and takes the next one."""
    connections = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    async def twice():
        async with beside(once) as port:
            line = Line(target(port), lines())
            results = [await line.poll() for _ in range(2)]
            await line.close()
        return results

    results = run(twice())
    assert [(result.healthy, result.connect_ms > 0) for result in results] == [(True, True), (True, True)]
    assert connections == 2


def test_a_server_that_comes_back_is_healthy_again():
    port = closed_port()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await asyncio.Event().wait()

    async def whole():
        line = Line(target(port), lines())
        first = await line.poll()
        async with beside(answer, port):
            second = await line.poll()
            await line.close()
        return first.healthy, second.healthy

    assert run(whole()) == (False, True)


# -- addresses ------------------------------------------------------------------------------------------------------


def _resolving(monkeypatch, *answers: list[str]) -> list[str]:
    """Each question to the name server gets the next answer, and at the end the last one again; the hosts asked for."""
    asked: list[str] = []

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch):
    """A name that resolves to something else the second time gets nowhere with it."""
    asked = _resolving(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    with serving(OK) as port:
        (result,) = poll(target(port, host="rebinding.test"))
    assert result.healthy
    assert asked == ["rebinding.test"]


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "8.8.8.8"])
def test_a_name_that_leads_to_a_refused_address_is_not_connected_to(monkeypatch, address):
    _resolving(monkeypatch, [address])
    (result,) = poll(target(80, host="innocent.test"))
    assert (result.healthy, result.connect_ms, result.answered) == (False, None, False)
    assert result.error.startswith(address)
    assert "169.254.169.254" in result.error or "HEALTH_NETWORKS" in result.error


def test_an_address_that_is_written_in_the_plan_is_checked_too():
    (result,) = poll(target(80, host="169.254.169.254"), shared=lines("0.0.0.0/0"))
    assert result.error == "169.254.169.254 is an address of cloud metadata, which is never polled"


def test_the_next_address_of_a_name_is_tried_when_one_takes_no_connection(monkeypatch):
    with serving(OK) as port:
        _resolving(monkeypatch, ["127.0.0.9", "127.0.0.1"])
        (result,) = poll(target(port, host="two.test"))
    assert result.healthy


def test_a_refused_address_beside_an_allowed_one_is_left_out(monkeypatch):
    with serving(OK) as port:
        _resolving(monkeypatch, ["169.254.169.254", "127.0.0.1"])
        (result,) = poll(target(port, host="two.test"))
    assert result.healthy


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secure() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def test_a_certificate_is_checked_against_the_name_in_the_plan(monkeypatch, secure):
    _resolving(monkeypatch, ["127.0.0.1"])
    names: list[str | None] = []
    secure.sni_callback = lambda _, name, __: names.append(name)
    with serving(OK, tls=secure) as port:
        shared = lines(tls=trusting())
        (right,) = poll(target(port, host="service.test", scheme="https"), shared=shared)
        (wrong,) = poll(target(port, host="other.test", scheme="https"), shared=shared)
        (unknown,) = poll(target(port, host="service.test", scheme="https"))
    assert (right.healthy, names) == (True, ["service.test", "other.test", "service.test"])
    assert wrong.error.startswith("its TLS certificate is not accepted: Hostname mismatch")
    assert unknown.error.startswith("its TLS certificate is not accepted: self-signed")
    assert (wrong.answered, unknown.answered) == (True, True)


def test_what_speaks_no_tls_is_told(monkeypatch):
    _resolving(monkeypatch, ["127.0.0.1"])
    with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        (result,) = poll(target(port, host="service.test", scheme="https"))
    assert result.error.startswith("it does not speak TLS as it should")
