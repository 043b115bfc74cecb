"""Load clients that cost little and hide nothing.

Requests are encoded beforehand. Nothing is retried: a connection that is refused, reset or closed before the end of an
answer, an answer of 5xx, and an answer that does not come are each one lost request, counted by kind.

- `Connection`: one request at a time, for whoever wants each answer.
- `pace`: one connection at a steady pace.
- `hammer` (in `bench.hammer`): many connections, each with the next request as soon as it has an answer.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

HOST = "127.0.0.1"
ANSWER_WITHIN = 5.0  # seconds after which a request counts as lost


class Lost(Exception):
    """A request that got no usable answer. The text is the kind: refused, reset, cut off, no answer, 503..."""


class Answer(NamedTuple):
    """`sent` and `received` are on time.monotonic's clock, in seconds: the same one in all processes of a machine."""

    status: int
    head: bytes
    body: bytes
    sent: float
    received: float

    def header(self, name: str) -> str:
        """The first header of this name, empty when there is none."""
        wanted = name.lower()
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == wanted:
                return value.strip()
        return ""


@dataclass
class Tally:
    """What became of the requests. `latencies` in seconds, of answered requests alone."""

    answered: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    latencies: array[float] = field(default_factory=lambda: array("d"))

    @property
    def requests(self) -> int:
        return self.answered + self.lost.total()

    def add(self, status: int, seconds: float) -> None:
        if status >= 500:
            self.lost[str(status)] += 1
        else:
            self.answered += 1
            self.latencies.append(seconds)


def encode(method: str, path: str, *, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A request as it goes over the wire."""
    named = {"host": HOST, **dict(headers)}
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in named.items())]
    if body or method not in {"GET", "HEAD"}:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def whole_answer(buffer: bytes) -> int:
    """The length of the answer at the front of the buffer, 0 while it is not all there.

    Raises Lost for an answer without a length: none of the servers under test sends one.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = buffer[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        if head[9:12] in {b"204", b"304"}:
            return end + 4
        raise Lost("no length")
    stop = head.find(b"\r\n", at + 17)
    total = end + 4 + int(head[at + 17 : stop if stop >= 0 else end])
    return total if len(buffer) >= total else 0


class Connection(asyncio.Protocol):
    """One connection, one request at a time. Not to be used again after Lost."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[Answer] | None = None
        self._sent = 0.0
        self.open = False

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Raises Lost when the connection is refused or not taken in time."""
        loop = asyncio.get_running_loop()
        try:
            _, made = await asyncio.wait_for(loop.create_connection(cls, HOST, port), ANSWER_WITHIN)
        except TimeoutError as error:
            raise Lost("no answer") from error
        except OSError as error:
            raise Lost("refused" if isinstance(error, ConnectionRefusedError) else "reset") from error
        return made

    async def request(self, payload: bytes, *, within: float = ANSWER_WITHIN) -> Answer:
        """Send, and wait for the whole answer, whatever its status. Raises Lost."""
        if not self.open or self._transport is None:
            raise Lost("reset")
        self._waiting = asyncio.get_running_loop().create_future()
        self._sent = time.monotonic()
        self._transport.write(payload)
        try:
            return await asyncio.wait_for(self._waiting, within)
        except TimeoutError as error:
            self.close()
            raise Lost("no answer") from error

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._buffer += data
        try:
            length = whole_answer(self._buffer)
        except Lost as error:
            self._fail(error)
            self.close()
            return
        if length and self._waiting is not None and not self._waiting.done():
            raw, self._buffer = self._buffer[:length], self._buffer[length:]
            head, _, body = raw.partition(b"\r\n\r\n")
            if b"\r\nconnection: close" in head.lower():
                self.open = False
            self._waiting.set_result(Answer(int(head[9:12]), head, body, self._sent, now))

    def eof_received(self) -> bool:
        self.open = False
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self.open = False
        self._fail(Lost("cut off" if self._buffer else "reset"))

    def _fail(self, error: Lost) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


async def pace(
    port: int,
    payloads: Sequence[bytes],
    *,
    every: float,
    stop: asyncio.Event,
    tally: Tally,
    seen: Callable[[Answer], None] | None = None,
) -> None:
    """Send a request every so many seconds, in turn, until `stop`; a slow answer holds the next request up.

    A request that is due while nothing listens is a lost request: a real client would have sent it too. `seen` gets
    every answer below 500.
    """
    connection: Connection | None = None
    due, index = time.monotonic(), 0
    while not stop.is_set():
        try:
            if connection is None or not connection.open:
                connection = await Connection.to(port)
            answer = await connection.request(payloads[index % len(payloads)])
        except Lost as error:
            tally.lost[str(error)] += 1
            connection = None
        else:
            tally.add(answer.status, answer.received - answer.sent)
            if seen is not None and answer.status < 500:
                seen(answer)
        index += 1
        due = max(due + every, time.monotonic() - every)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    if connection is not None:
        connection.close()
