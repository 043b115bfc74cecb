"""One reading for all who ask for it at the same time, and nobody waits for it longer than they want to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
ERROR_KEPT = 1.0  # seconds


class SharedReading(Generic[T]):
    """Calls `read` in a thread of its own, and gives its outcome to everybody who asks until it is `keep` seconds old.

    An error is kept for ERROR_KEPT at most.

    One that has not ended after `patience` seconds is given up, and another may begin: what it waits for may be gone
    for good. At most `most` of them are there at a time.
    """

    def __init__(self, read: Callable[[], T], *, keep: float, patience: float = 10.0, most: int = 3) -> None:
        self._read, self._keep, self._patience, self._most = read, keep, patience, most
        self._lock = threading.Lock()
        self._outcome: Future[T] | None = None
        self._begun = 0.0
        self._ended = 0.0
        self._running = 0

    def ask(self) -> Future[T]:
        """The outcome, or the promise of one: `result(seconds)` raises TimeoutError, or what `read` raised."""
        with self._lock:
            if self._outcome is None or self._is_old(self._outcome):
                self._outcome = Future()
                self._begun, self._running = time.monotonic(), self._running + 1
                threading.Thread(target=self._run, args=[self._outcome], name="reading", daemon=True).start()
            return self._outcome

    def _is_old(self, outcome: Future[T]) -> bool:
        now = time.monotonic()
        if outcome.done():
            keep = self._keep if outcome.exception() is None else min(self._keep, ERROR_KEPT)
            return now - self._ended >= keep
        return now - self._begun >= self._patience and self._running < self._most

    def _run(self, outcome: Future[T]) -> None:
        value, error = None, None
        try:
            value = self._read()
        except BaseException as problem:  # noqa: BLE001  # it is raised again in whoever asked
            error = problem
        with self._lock:
            self._running -= 1
            self._ended = time.monotonic()
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(value)  # type: ignore[arg-type]  # without an error it is what `read` gave
