"""An HTTP server of a test's own, which answers as it is told, well or badly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Told:
    """`hang` answers nothing until the test ends; `endless` sends the body again and again."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    endless: bool = False


@dataclass
class Web:
    host: str
    port: int
    asked: list[Asked]

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@contextmanager
def serving(answer: Callable[[Asked], Told]) -> Iterator[Web]:
    ended = threading.Event()
    requests: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = Asked(self.command, self.path, dict(self.headers), self.rfile.read(self._length()))
            requests.append(asked)
            told = answer(asked)
            if told.hang:
                ended.wait(30)
                return
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            if not told.endless:
                self.send_header("content-length", str(len(told.body)))
            self.end_headers()
            try:
                self.wfile.write(told.body)
                while told.endless and not ended.is_set():
                    self.wfile.write(told.body)
            except OSError:
                pass  # the check hung up, as it should

        do_POST = do_GET  # noqa: N815

        def _length(self) -> int:
            return int(self.headers.get("content-length", 0))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Web("127.0.0.1", server.server_port, requests)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
