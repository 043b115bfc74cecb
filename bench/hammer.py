"""Many connections that are always busy, with as few steps for each answer as there can be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from bench.load import ANSWER_WITHIN, HOST, Lost, Tally, whole_answer

RECONNECT_AFTER = 0.01  # seconds that a server which refuses a connection is left alone


class _Hammer(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: _Run, index: int) -> None:
        self._run = run
        self._index = index
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.in_flight = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        buffer = self._buffer + data if self._buffer else data
        try:
            length = whole_answer(buffer)
        except Lost as error:
            self._lose(str(error))
            return
        if not length:
            self._buffer = buffer
            return
        self._buffer = b""
        self.in_flight = False
        if now <= self._run.until:
            self._run.tally.add(int(buffer[9:12]), now - self._sent)
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if self.in_flight:
            self._lose("cut off" if self._buffer else "reset")
        if not self._run.over():
            self._run.connect_again(self._index)

    def close(self) -> None:
        if self.in_flight:
            self._lose("no answer")
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        if self._run.over() or self._transport is None:
            return
        self.in_flight = True
        payloads = self._run.payloads
        self._index += 1
        self._sent = time.monotonic()
        self._transport.write(payloads[self._index % len(payloads)])

    def _lose(self, kind: str) -> None:
        self._run.tally.lost[kind] += 1
        self.in_flight = False
        if self._transport is not None:
            self._transport.abort()


@dataclass
class _Run:
    port: int
    payloads: Sequence[bytes]
    until: float
    tally: Tally = field(default_factory=Tally)
    connections: list[_Hammer] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def over(self) -> bool:
        return time.monotonic() > self.until

    def connect_again(self, index: int) -> None:
        task = asyncio.get_running_loop().create_task(self.connect(index))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def connect(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        while not self.over():
            try:
                _, made = await loop.create_connection(lambda: _Hammer(self, index), HOST, self.port)
            except OSError:
                self.tally.lost["refused"] += 1
                await asyncio.sleep(RECONNECT_AFTER)
            else:
                self.connections.append(made)
                return


async def hammer(port: int, payloads: Sequence[bytes], *, connections: int, seconds: float) -> Tally:
    """Keep `connections` busy for so many seconds. Answers that come later are waited for, but not counted."""
    run = _Run(port, payloads, until=time.monotonic() + seconds)
    await asyncio.gather(*(run.connect(index) for index in range(connections)))
    await asyncio.sleep(max(0.0, run.until - time.monotonic()))
    grace = time.monotonic() + ANSWER_WITHIN
    while any(one.in_flight for one in run.connections) and time.monotonic() < grace:
        await asyncio.sleep(0.01)
    for one in run.connections:
        one.close()
    for task in list(run.tasks):
        await task
    return run.tally
