"""`python -m bench.poll_targets PORT FILE`: what the poll benchmark polls, on one port, with a path for each target.

Answers 200 at once, and under /hang/ never. When it is asked to end it writes into FILE when each path was asked for:
JSON, path -> seconds of the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n" + b'{"status":"ok"}'
asked: dict[str, list[float]] = defaultdict(list)


class Target(asyncio.Protocol):
    """One connection. Its clients send one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by inheritance
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        path = self._received.split(b" ", 2)[1].decode()
        self._received = b""
        asked[path].append(time.monotonic())
        if not path.startswith("/hang/"):
            self._transport.write(ANSWER)


async def serve(port: int, file: Path) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(Target, "127.0.0.1", port, backlog=1024)
    await ended.wait()
    server.close()
    file.write_text(json.dumps(asked))


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
