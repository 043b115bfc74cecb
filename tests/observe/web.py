"""Real servers that misbehave in every way, and lines that poll them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from migrations_app.observe.networks import Networks
from migrations_app.observe.polls import Line, Lines, PollResult, Target
from tests.demo.clock import Clock

# A key and a certificate that it signed itself, of the host service.test. Nothing but these tests trusts it.
CERTIFICATE = Path(__file__).parent / "service.test.pem"
TIMEOUT = 60.0  # seconds; only ever waited for on a clock on which they pass at once
LOOPBACK = ("127.0.0.0/8", "::1/128")


def head(status: str, length: int | None = 2, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *([f"content-length: {length}"] if length is not None else []), *more]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def serving(
    *pieces: bytes,
    hold: bool = False,
    asked: Callable[[bytes], object] = bool,
    tls: ssl.SSLContext | None = None,
    reset: bool = False,
) -> Iterator[int]:
    """A server that answers every connection with these bytes, and may never close; yields its port.

    `asked` is called with each request, before it is answered. With `reset` the connection is broken off at the end.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    open_sockets: list[socket.socket] = []

    def answer(plain: socket.socket) -> None:
        connection = plain
        try:
            connection = tls.wrap_socket(plain, server_side=True) if tls else plain
            open_sockets.append(connection)
            asked(connection.recv(65536))
            for piece in pieces:
                connection.sendall(piece)
            if hold:
                stop.wait()
        except OSError:
            pass  # the poller hung up, as it should
        finally:
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_sockets.append(connection)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.close()
        for connection in open_sockets:
            connection.close()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def beside(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    """A server on the loop of the poll itself; yields its port. It has let go of every connection at the end."""
    handled: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handled.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await handler(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in handled:
            task.cancel()
        await asyncio.gather(*handled, return_exceptions=True)
        await asyncio.sleep(0)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def target(port: int, *, host: str = "127.0.0.1", scheme: str = "http", key: str = "auth", **how: Any) -> Target:
    return Target(key, f"{scheme}://{host}:{port}/health", **({"timeout": TIMEOUT} | how))


def trusting() -> ssl.SSLContext:
    """What trusts the certificate of service.test."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_verify_locations(CERTIFICATE)
    return context


def lines(*networks: str, tls: ssl.SSLContext | None = None) -> Lines:
    return Lines(Networks(networks or LOOPBACK), tls or httpx.create_ssl_context(trust_env=False))


def poll(
    wanted: Target, *, times: int = 1, shared: Lines | None = None, outside: Callable[[], bool] | None = None
) -> list[PollResult]:
    """One line polls so many times. With `outside` its time is that of a Clock, which see."""

    async def all_of_it() -> list[PollResult]:
        line = Line(wanted, shared or lines())
        try:
            return [await line.poll() for _ in range(times)]
        finally:
            await line.close()

    return run(all_of_it(), outside)


def run(work: Coroutine[Any, Any, Any], outside: Callable[[], bool] | None = None) -> Any:
    with asyncio.Runner(loop_factory=(lambda: Clock(outside)) if outside else None) as runner:
        return runner.run(work)
