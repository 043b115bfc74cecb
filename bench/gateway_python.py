"""A Python gateway of the kind that Switchyard replaces. It is measured against, and never used by the product.

An ASGI reverse proxy on uvicorn (uvloop, httptools) and a pool of kept-alive httpx connections. It reads its routes
and flags from the environment when it starts, so every flip is a restart with another environment:

    ROUTES='[["/api/storage", "USE_STORAGE_SERVICE", "127.0.0.1:3014"]]' MONOLITH=127.0.0.1:3000
    USE_STORAGE_SERVICE=true PORT=8090 WORKERS=1 python -m bench.gateway_python

A prefix whose flag is `true` goes to its service without `/api`; everything else goes to the monolith as it is.
WORKERS above 1 are processes behind one port. The pool has httpx's own limits: with higher ones it is slower, because
httpx looks through the whole pool for each request. Each request is logged, as Switchyard's gateway does too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"host"}
)
_TIMEOUT = 15.0  # seconds
_STRIP = "/api"


class Gateway:
    """The ASGI application. `routes` are (prefix, base URL, what to take off the path), the longest prefix first."""

    def __init__(self, routes: list[tuple[str, str, str]], monolith: str) -> None:
        self._routes = [(prefix, prefix + "/", base, strip) for prefix, base, strip in routes]
        self._monolith = monolith
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._forward(scope, receive, send)

    def target(self, path: str) -> tuple[str, str]:
        """The base URL upstream of a request's path, and the path there."""
        for prefix, inside, base, strip in self._routes:
            if path == prefix or path.startswith(inside):
                return base, path.removeprefix(strip)
        return self._monolith, path

    async def _forward(self, scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [(key, value) for key, value in scope["headers"] if key not in _HOP_BY_HOP]
        base, path = self.target(scope["raw_path"].decode("latin-1"))
        query = scope["query_string"].decode("latin-1")
        client = self._pool()
        request = client.build_request(
            scope["method"], f"{base}{path}?{query}" if query else f"{base}{path}", headers=headers, content=body
        )
        try:
            response = await client.send(request, stream=True)
        except httpx.HTTPError as error:
            await _tell(send, 504 if isinstance(error, httpx.TimeoutException) else 502)
            return
        try:
            kept = [(key, value) for key, value in response.headers.raw if key.lower() not in _HOP_BY_HOP]
            await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()

    def _pool(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)
        return self._client


async def _tell(send: Send, status: int) -> None:
    body = b'{"error":"the upstream does not answer"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def from_environment() -> Gateway:
    """The application for uvicorn, with the flags as they are now."""
    found = []
    for prefix, flag, address in json.loads(os.environ["ROUTES"]):
        if os.environ.get(flag, "false") == "true":
            found.append((prefix, f"http://{address}", _STRIP))
    found.sort(key=lambda route: -len(route[0]))
    return Gateway(found, f"http://{os.environ['MONOLITH']}")


def main() -> None:
    """Run until SIGTERM, which lets running requests end first."""
    workers = int(os.environ.get("WORKERS", "1"))
    uvicorn.run(
        "bench.gateway_python:from_environment",
        factory=True,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        workers=workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        server_header=False,
        date_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
