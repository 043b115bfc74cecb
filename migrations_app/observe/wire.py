"""A transport for httpx that costs a third of its own: one kept connection, and the whole answer in one piece.

For polls alone: GET without a body, HTTP/1.1, one request at a time. What an answer may do is bounded by HEAD_LIMIT,
BODY_LIMIT and RAW_LIMIT; its time by whoever waits. Errors are httpx's own. Parsing is llhttp's (httptools), which
refuses what is ambiguous; TLS is asyncio's. No Django.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum

import httptools
import httpx

HEAD_LIMIT = 64 * 1024  # bytes until the head of the answer is whole, heads of 1xx before it included
BODY_LIMIT = 64 * 1024  # bytes of a body
RAW_LIMIT = 1024 * 1024  # bytes in all, with the lengths of chunks and trailers


class AnswerTooLong(httpx.TransportError):
    """More came than is read."""


class Doing(Enum):
    """Where a poll is."""

    LOOK_UP = "looking up the host"
    CONNECT = "connecting"
    WAIT = "waiting for the answer"


@dataclass(slots=True)
class Progress:
    """How far one poll has come. Moments are of time.perf_counter, 0 for what has not come."""

    doing: Doing = Doing.LOOK_UP
    connected: float = 0.0  # stays 0 on a kept connection
    first_byte: float = 0.0
    status: int | None = None


class _Body(httpx.AsyncByteStream):
    """A body that has come."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


class Wire(httpx.AsyncBaseTransport, asyncio.Protocol):
    """Connects once to `address` as it stands. `name` is who the TLS certificate must be of; without `tls` it is plain.

    When it is `closed` there is no more to ask of it. `progress` may be exchanged between requests.
    """

    _parser: httptools.HttpResponseParser
    _headers: list[tuple[bytes, bytes]]
    _body: bytearray
    _received: int  # bytes
    _status: int
    _final: bool  # the head of the answer itself has come
    _to_the_end: bool  # only the end of the connection ends it
    _complete: bool
    _keep: bool

    def __init__(self, address: str, port: int, *, tls: ssl.SSLContext | None = None, name: str = "") -> None:
        self._address, self._port, self._tls, self._name = address, port, tls, name
        self.progress = Progress()
        self._transport: asyncio.Transport | None = None
        self._connected = False  # ever
        self._answered: asyncio.Future[None] | None = None  # of the request that is out
        self._begin()

    @property
    def closed(self) -> bool:
        return self._connected and self._transport is None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ConnectError; RemoteProtocolError; ReadError; AnswerTooLong. Cancelled, it hangs up."""
        transport = self._transport or await self._connect()
        self._begin()
        self.progress.doing = Doing.WAIT
        self._answered = asyncio.get_running_loop().create_future()
        try:
            transport.write(_head(request))
            await self._answered
        finally:
            self._answered = None
            if not self._complete or not self._keep:
                self._hang_up()
        return httpx.Response(self._status, headers=self._headers, stream=_Body(bytes(self._body)), request=request)

    async def aclose(self) -> None:
        self._hang_up()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._received = self._status = 0
        self._final = self._to_the_end = self._complete = self._keep = False

    async def _connect(self) -> asyncio.Transport:
        self.progress.doing = Doing.CONNECT
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self,
                self._address,
                self._port,
                ssl=self._tls,
                server_hostname=self._name if self._tls else None,
            )
        except OSError as problem:
            raise httpx.ConnectError(str(problem)) from problem
        if self._transport is None:
            raise httpx.ConnectError("the connection was closed at once")
        return self._transport

    def _hang_up(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _fail(self, problem: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(problem)

    def _succeed(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    # -- of asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.progress.connected, self._connected = time.perf_counter(), True
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if isinstance(exc, OSError):
            problem: Exception = httpx.ReadError(str(exc))
            problem.__cause__ = exc
        elif not self._final:
            problem = httpx.RemoteProtocolError("hung up without an answer")
            if self._received:
                problem = httpx.RemoteProtocolError("hung up in the middle of its answer")
        elif self._to_the_end:
            self._complete = True
            self._succeed()
            return
        else:
            problem = httpx.RemoteProtocolError("hung up in the middle of its answer")
        self._fail(problem)

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done():
            self._hang_up()  # nobody asked: whatever it is would be taken for the next answer
            return
        if not self.progress.first_byte:
            self.progress.first_byte = time.perf_counter()
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(httpx.RemoteProtocolError("it changes to another protocol"))
        except httptools.HttpParserError as problem:
            if not self._complete:
                self._fail(httpx.RemoteProtocolError(f"what came back is not HTTP ({problem})"))
            self._keep = False
        if not self._complete and self._received > (RAW_LIMIT if self._final else HEAD_LIMIT):
            self._fail(
                AnswerTooLong(f"the answer is longer than {(RAW_LIMIT if self._final else HEAD_LIMIT) // 1024} kB")
            )

    # -- of httptools -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # a second answer to one question

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._complete:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []  # the answer itself is to come
            return
        self._final, self._status, self.progress.status = True, status, status
        names = {name.lower() for name, _ in self._headers}
        self._to_the_end = not names & {b"content-length", b"transfer-encoding"}

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        self._body += body
        if len(self._body) > BODY_LIMIT:
            self._fail(AnswerTooLong(f"the answer is longer than {BODY_LIMIT // 1024} kB"))

    def on_message_complete(self) -> None:
        if self._complete or not self._final:
            return
        self._complete, self._keep = True, self._parser.should_keep_alive()
        self._succeed()


def _head(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % pair for pair in request.headers.raw]
    return b"\r\n".join([*lines, b"", b""])
