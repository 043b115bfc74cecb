"""Clients that keep their connections, hide no failure by a retry, and remember every answer."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.faults.system import WEEK_1

BODIES = (1_000, 64_000, 1_000_000)  # bytes of a POST
LOOKS = 0.02  # seconds between two looks at what the gateway runs
DELAYS = (1.0, 1.5, 2.0)  # seconds that a slow request is in flight


@dataclass(frozen=True, slots=True)
class Answer:
    """`sent` and `came`: between these two moments (CLOCK_MONOTONIC) the gateway chose the side that is `who`."""

    service: str
    kind: str
    who: str
    sent: float
    came: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that went wrong, between these two moments; `said` is what came instead of its answer."""

    service: str
    kind: str
    said: str
    sent: float
    ended: float

    def __str__(self) -> str:
        return f"{self.kind} to {self.service}: {self.said}"


class Load:
    """Steady requests to the prefixes of week 1. Each client is a kind of request and a service.

    `tables`: the generation and the weights that the gateway told, one after the other, over one connection.
    """

    def __init__(self, port: int, pause: float, clients: Sequence[tuple[str, str]]) -> None:
        self.answers: list[Answer] = []
        self.failures: list[Failure] = []
        self.tables: list[tuple[int, dict[str, int]]] = []
        self._port, self._pause = port, pause
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=client, daemon=True) for client in clients]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every request in flight end."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def count(self, kind: str = "") -> int:
        return sum(answer.kind.endswith(kind) for answer in self.answers)

    def _watch(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        over = False
        while not over:
            over = self._over.wait(LOOKS)  # once more after the end
            try:
                connection.request("GET", "/routing-status")
                told = json.loads(connection.getresponse().read())
                self.tables.append((told["generation"], told["weights"]))
            except (OSError, http.client.HTTPException):
                connection.close()  # the gateway is away, which the clients tell
        connection.close()

    def _client(self, kind: str, service: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        path = f"{WEEK_1[service]}/1"
        for size, delay in zip(itertools.cycle(BODIES), itertools.cycle(DELAYS), strict=False):
            if self._over.is_set():
                break
            body = b"x" * size if kind.endswith("write") else None
            headers = {"x-delay": str(delay)} if kind.startswith("slow") else {}
            sent = time.monotonic()
            try:
                connection.request("POST" if body else "GET", path, body=body, headers=headers)
                response = connection.getresponse()
                text = response.read()
                said = json.loads(text) if response.status == 200 else {}
                if said.get("length") != len(body or b""):
                    failed = f"{response.status} {text[:200]!r}"
                    self.failures.append(Failure(service, kind, failed, sent, time.monotonic()))
                else:
                    self.answers.append(Answer(service, kind, said["who"], sent, said["came"]))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(Failure(service, kind, repr(error), sent, time.monotonic()))
                connection.close()
            self._over.wait(self._pause)
        connection.close()


EVERYBODY = tuple((kind, service) for kind in ("read", "write", "slow read", "slow write") for service in WEEK_1)


@contextmanager
def load_on(port: int, *, pause: float = 0.03, clients: Sequence[tuple[str, str]] = EVERYBODY) -> Iterator[Load]:
    """`pause`: seconds between an answer and the client's next request; the processors are for the product as well."""
    load = Load(port, pause, clients)
    load.start()
    try:
        yield load
    finally:
        load.stop()
