"""`python -m bench.upstreams PORT=NAME ...`: the monolith and the services of a benchmark, small and fast.

All listen on 127.0.0.1 in one process until SIGTERM. Every request gets the same answer, which names its side
(`monolith` or `service`) in `x-side` and the server in `x-served-by`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from typing import cast

import httptools
import uvloop

HOST = "127.0.0.1"
MONOLITH = "monolith"
_PADDING = "x" * 180  # a body of a usual size for a JSON answer of one object


def answer(name: str) -> bytes:
    """The answer of the server of this name, as it goes over the wire."""
    side = "monolith" if name == MONOLITH else "service"
    body = json.dumps({"served_by": name, "side": side, "data": _PADDING}).encode()
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        f"x-side: {side}\r\nx-served-by: {name}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Upstream(asyncio.Protocol):
    """One connection; the callbacks are httptools'."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.abort()

    def on_message_complete(self) -> None:
        if self._transport is not None:
            self._transport.write(self._reply)


async def serve(servers: Mapping[int, str]) -> None:
    """Listen on every port until SIGTERM or SIGINT. Raises OSError for a port that is taken."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    for port, name in servers.items():
        reply = answer(name)
        await loop.create_server(lambda reply=reply: Upstream(reply), HOST, port, backlog=1024)
    await stopped.wait()


def main(arguments: list[str]) -> int:
    """Exit status 0 after a signal, 2 for arguments that are not PORT=NAME."""
    try:
        servers = {int(port): name for port, _, name in (argument.partition("=") for argument in arguments)}
    except ValueError:
        servers = {}
    if not servers:
        print(__doc__.splitlines()[0])
        return 2
    uvloop.run(serve(servers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
