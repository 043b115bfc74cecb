"""The transport of the polls: whatever comes, in whatever pieces, it answers or raises httpx's errors."""

from __future__ import annotations

import asyncio
import itertools

import httpx
from hypothesis import given
from hypothesis import strategies as st

from migrations_app.observe.wire import BODY_LIMIT, Wire

REQUEST = httpx.Request("GET", "http://127.0.0.1:1/health")
WORDS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 503 Busy\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 No\r\n",
    b"content-length: 2\r\n", b"content-length: 99999999999999999999\r\n", b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n", b"upgrade: h2c\r\n", b"\r\n", b"ok", b"2\r\nok\r\n", b"0\r\n\r\n", b"ffffffff\r\n", b"\0",
]  # fmt: skip


class Socket(asyncio.Transport):
    """Keeps what is written, and whether it was hung up."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.aborted = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def answer(*pieces: bytes, end: bool = True) -> httpx.Response | httpx.TransportError:
    """What becomes of a request on an open connection to which these pieces come before it ends."""

    async def whole() -> httpx.Response | httpx.TransportError:
        wire, connection = Wire("127.0.0.1", 1), Socket()
        wire.connection_made(connection)
        asked = asyncio.create_task(wire.handle_async_request(REQUEST))
        await asyncio.sleep(0)
        assert connection.written == b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"
        for piece in pieces:
            if not connection.aborted:
                wire.data_received(piece)
            await asyncio.sleep(0)
        if end and not connection.aborted:
            wire.connection_lost(None)
        try:
            response = await asked
            await response.aread()
        except httpx.TransportError as problem:
            assert wire.closed
            return problem
        return response

    return asyncio.run(whole())


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=40)), max_size=12))
def test_whatever_comes_is_an_answer_or_an_error_of_httpx(pieces):
    found = answer(*pieces)
    assert isinstance(found, httpx.TransportError) or (found.status_code >= 200 and len(found.content) <= BODY_LIMIT)


@given(st.lists(st.integers(1, 60), max_size=8))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(cuts):
    text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    found = answer(*(text[start:end] for start, end in itertools.pairwise(places)), end=False)
    assert isinstance(found, httpx.Response)
    assert (found.status_code, found.content) == (200, b"hello")
