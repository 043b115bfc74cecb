"""Calls to several gateways at once, so that one that hangs holds up nobody but itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

GRACE = 0.05  # seconds that are waited for a gateway that did not answer the last time, once all others have

T = TypeVar("T")


class SideBySide(Generic[T]):
    """Rounds of one call for each gateway, by its primary key, each in a thread of its own.

    A call uses no database: its thread has no connection, and the caller writes what came of it. A call that is not
    waited for goes on until its own time-outs; what came of it comes with a later round of the same process, and until
    then no further one is begun for that gateway. Rounds of one object are not to be made by several threads at once,
    unless all of them wait for everything.
    """

    def __init__(self) -> None:
        self._late: dict[tuple[int, int], Future[T]] = {}  # by process: a fork has no threads

    def round(
        self, calls: Mapping[int, Callable[[], T]], *, wait_for: Collection[int] | None = None
    ) -> Iterator[tuple[int, Future[T]]]:
        """What came of each call, as they end. `wait_for`: all unless told; of the others, what comes within GRACE."""
        process = os.getpid()
        running: dict[Future[T], int] = {}
        threads = ThreadPoolExecutor(max(len(calls), 1), thread_name_prefix="gateway")
        try:
            for key, call in calls.items():
                late = self._late.get((process, key))
                if late is not None:
                    if not late.done():
                        continue
                    del self._late[process, key]
                    yield key, late
                running[threads.submit(call)] = key
            while running:
                patient = wait_for is None or any(key in wait_for for key in running.values())
                done, _ = wait(running, timeout=None if patient else GRACE, return_when=FIRST_COMPLETED)
                if not done:
                    break
                for future in done:
                    yield running.pop(future), future
        finally:
            self._late |= {(process, key): future for future, key in running.items()}
            threads.shutdown(wait=False)
