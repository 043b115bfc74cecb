"""The two sides of the estate as one small process: an HTTP server for each name, on a free port.

`python -m tests.faults.side monolith rag ...` prints one line of JSON, name -> port, and then answers until it ends.
Every answer tells who gave it, and when the request came in by CLOCK_MONOTONIC, which all processes share. The header
`x-delay` makes it wait that many seconds first.

`/behave?status=500&delay=0.5&health=200,503`, asked of a name's own port, makes it misbehave from then on; what is not
named is well again. `status` and `delay` (seconds) are of every answer but those of /health, whose statuses `health`
lists: one for each question, over and over.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

REASONS = {200: "OK", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass
class Side:
    name: str
    status: int = 200
    delay: float = 0.0
    health: Iterator[int] = field(default_factory=lambda: itertools.repeat(200))

    def behave(self, query: str) -> None:
        told = {key: values[-1] for key, values in parse_qs(query).items()}
        self.status, self.delay = int(told.get("status", 200)), float(told.get("delay", 0))
        self.health = itertools.cycle([int(status) for status in told.get("health", "200").split(",")])

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                path = head[0].split(" ")[1]
                came = time.monotonic()
                headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
                got = len(await reader.readexactly(int(headers.get("content-length") or 0)))
                status = await self._status(path, float(headers.get("x-delay") or 0))
                body = json.dumps({"who": self.name, "path": path, "length": got, "came": came}).encode()
                fields = f"content-type: application/json\r\nx-upstream: {self.name}\r\ncontent-length: {len(body)}"
                writer.write(f"HTTP/1.1 {status} {REASONS[status]}\r\n{fields}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _status(self, path: str, delay: float) -> int:
        asked = urlsplit(path)
        if asked.path == "/behave":
            self.behave(asked.query)
            return 200
        if asked.path == "/health":
            return next(self.health)
        await asyncio.sleep(delay + self.delay)
        return self.status


async def main(names: list[str]) -> None:
    ports = {}
    for name in names:
        server = await asyncio.start_server(Side(name).answer, "127.0.0.1", 0)
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
