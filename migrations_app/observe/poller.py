"""The resident poller: polls on an event loop in a thread of their own, and writes what they found from this one.

A Celery task runs it for some minutes and is then sent again (migrations_app.tasks): what it keeps in memory, above all
its connections and its schedule, costs too much to be made for each round.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import Self

import httpx
import uvloop
from django.conf import settings
from django.db import OperationalError, connection

from migrations_app.observe.connectivity import Connectivity, Word
from migrations_app.observe.health import current_targets, cut_off, store_of_plan
from migrations_app.observe.lateness import Lateness
from migrations_app.observe.networks import Networks
from migrations_app.observe.polls import Lines, PollResult, Target
from migrations_app.observe.schedule import Ended, Schedule

WRITE_EVERY = 0.4  # seconds
GATEWAY_WITHIN = 1.0  # seconds that the gateway gets to answer when nothing else does
LOOKUPS = 64  # threads that ask the name server; each name has at most one, so that a hanging one holds up no other
UNWRITTEN = 50_000  # results that are kept while PostgreSQL takes none, some 100 s of 500 targets
logger = logging.getLogger(__name__)


class Poller:
    """Polls from its making to the end of its block, in a thread with an event loop."""

    def __init__(self, networks: Iterable[str], gateway_url: str) -> None:
        self._networks = Networks(networks)
        self._gateway_url = f"{gateway_url.rstrip('/')}/health"
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._ended: deque[Ended] = deque()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health polls", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schedule: Schedule | None = None
        self._main: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._loop is not None and self._main is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def follow(self, targets: list[Target]) -> None:
        """Poll these from now on."""
        if self._loop is not None and self._schedule is not None:
            self._loop.call_soon_threadsafe(self._schedule.follow, targets)

    def take(self) -> list[Ended]:
        """The polls that have ended since the last call, in the order of their ends."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    @property
    def skipped(self) -> int:
        """Polls that have not begun, because the last one of their target was still out."""
        return self._schedule.skipped if self._schedule else 0

    def ask_gateway(self) -> Future[tuple[float, bool]]:
        """When it was asked, of the loop's clock, and whether anything came back."""
        if self._loop is None:
            raise RuntimeError("the poller has not begun")
        return asyncio.run_coroutine_threadsafe(self._ask_gateway(), self._loop)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._poll())
        except asyncio.CancelledError:
            pass  # told to end
        finally:
            self._ready.set()

    async def _poll(self) -> None:
        lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._schedule = Schedule(Lines(self._networks, self._tls, lookups), self._ended.append)
        self._ready.set()
        try:
            await self._schedule.run()
        finally:
            lookups.shutdown(wait=False, cancel_futures=True)

    async def _ask_gateway(self) -> tuple[float, bool]:
        asked = asyncio.get_running_loop().time()
        try:
            async with (
                asyncio.timeout(GATEWAY_WITHIN),
                httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as client,  # noqa: S113  # the deadline is above
                client.stream("GET", self._gateway_url),
            ):
                return asked, True
        except (TimeoutError, httpx.TransportError, OSError) as problem:
            return asked, isinstance(problem, httpx.RemoteProtocolError)


class Judge:
    """Tells failures of targets from a poller that is cut off; keeps the results in doubt until it can."""

    def __init__(self, ask_gateway: Callable[[], Future[tuple[float, bool]]]) -> None:
        self._ask_gateway = ask_gateway
        self._seen = Connectivity()
        self._doubted: list[Ended] = []
        self._asked: Future[tuple[float, bool]] | None = None

    def settle(self, ended: Iterable[Ended], targets: Iterable[Target]) -> list[tuple[Target, PollResult]]:
        """The results that can be told by now, each target's in their order. `targets` are those of now."""
        keys = {target.key for target in targets}
        waiting = [*self._doubted, *(new := list(ended))]
        for one in new:
            if one.result.answered:
                self._seen.answered(one.ended)
            else:
                self._seen.silent(one.target.key, one.ended)
        self._hear_gateway()
        told = self._tell(waiting, keys)
        if (self._doubted or self._seen.cut_off) and self._asked is None:
            self._asked = self._ask_gateway()
            self._hear_gateway(0.1)  # it mostly answers at once
            told += self._tell(self._doubted, keys)
        return told

    def _tell(self, waiting: list[Ended], keys: set[str]) -> list[tuple[Target, PollResult]]:
        told, self._doubted = [], list[Ended]()
        for one in waiting:
            if one.result.answered or not one.result.asked:
                told.append((one.target, one.result))
                continue
            word = self._seen.judge(one.target.key, one.begun, keys)
            if word is Word.IN_DOUBT:
                self._doubted.append(one)
            else:
                told.append((one.target, one.result if word is Word.OF_TARGET else cut_off(one.result)))
        return told

    def _hear_gateway(self, seconds: float = 0.0) -> None:
        if self._asked is None:
            return
        try:
            asked, answered = self._asked.result(timeout=seconds)
        except NotYet:
            return
        self._asked = None
        if answered:
            self._seen.answered(asked)
        else:
            self._seen.gateway_silent(asked)


def run(stopping: Callable[[], bool], *, seconds: float, after_write: Callable[[], object]) -> None:
    """Poll what the plan names until `stopping` says so or the time is over. `after_write` is called after each write.

    Raises DatabaseError when PostgreSQL has gone away: the lock that makes this poller the only one went with it.
    """
    until = time.monotonic() + seconds
    with Poller(settings.HEALTH_NETWORKS, settings.GATEWAY_URL) as poller:
        judge, targets = Judge(poller.ask_gateway), current_targets()
        unwritten: deque[tuple[Target, PollResult]] = deque(maxlen=UNWRITTEN)
        poller.follow(targets)
        lateness, skipped, last = Lateness(), 0, False
        while not last:
            last = _pause(stopping, until)
            if not poller.running:
                raise RuntimeError("the thread of the polls has ended")
            ended, before = poller.take(), skipped
            skipped = poller.skipped
            lateness.count((one.late for one in ended), skipped - before)
            unwritten.extend(judge.settle(ended, targets))
            try:
                now, wrote = store_of_plan(unwritten, lateness), bool(unwritten)
                unwritten.clear()
                if wrote:
                    lateness = Lateness()
                    after_write()
            except OperationalError as problem:
                if not connection.is_usable():
                    raise
                # A lock or a time limit: nothing is lost, it is tried again.
                logger.warning("polls are not written yet: %s", problem)
                continue
            if now != targets:
                targets = now
                poller.follow(targets)


def _pause(stopping: Callable[[], bool], until: float) -> bool:
    """Wait until the next write; whether it is the last one."""
    end = time.monotonic() + WRITE_EVERY
    while (now := time.monotonic()) < end:
        if stopping() or now > until:
            return True
        time.sleep(min(0.1, end - now))
    return False
