"""The two sides of the estate as one small process: an HTTP server for each name, on a free port.

`python -m tests.faults.side monolith rag ...` prints one line of JSON, name -> port, and then answers until it ends.
Every answer tells who gave it, and when the request came in by CLOCK_MONOTONIC, which all processes share. The header
`x-delay` makes it wait that many seconds first.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


async def answer(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            came = time.monotonic()
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
            got = len(await reader.readexactly(int(headers.get("content-length") or 0)))
            await asyncio.sleep(float(headers.get("x-delay") or 0))
            body = json.dumps({"who": name, "path": path, "length": got, "came": came}).encode()
            fields = f"content-type: application/json\r\nx-upstream: {name}\r\ncontent-length: {len(body)}"
            writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def main(names: list[str]) -> None:
    ports = {}
    for name in names:
        server = await asyncio.start_server(lambda *pair, name=name: answer(name, *pair), "127.0.0.1", 0)
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
