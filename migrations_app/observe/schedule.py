"""When each target is polled: each at its own interval, spread evenly, one poll of it at a time. No Django."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from migrations_app.observe.polls import Line, Lines, PollResult, Target

# Seconds between the moments at which polls begin. To wake up for each of 500 a second costs more than the polls.
GRID = 0.02
FIRST_WITHIN = 20.0  # seconds: a target with a longer interval is not left unknown for that long
SOON = 0.001  # seconds; what is due by then is due: moments on the grid are not exact, nor are clocks


@dataclass(frozen=True, slots=True)
class Ended:
    """A poll that has ended. Moments are of the loop's clock; `late` is how long after it was due it began, seconds."""

    target: Target
    result: PollResult
    begun: float
    ended: float
    late: float


@dataclass(eq=False, slots=True)
class _Entry:
    target: Target
    line: Line
    due: float
    poll: asyncio.Task[None] | None = None
    gone: bool = field(default=False)


class Schedule:
    """Runs on one event loop. `ended` is called for each poll that ends; of targets that were left none does."""

    def __init__(self, shared: Lines, ended: Callable[[Ended], None]) -> None:
        self._shared = shared
        self._ended = ended
        self._entries: dict[Target, _Entry] = {}
        self._heap: list[tuple[float, int, _Entry]] = []
        self._order = itertools.count()  # of entries that are due at the same moment
        self._wake = asyncio.Event()
        self._aside: set[asyncio.Task[None]] = set()
        self.skipped = 0  # polls that did not begin because the last one of their target was still out

    def follow(self, wanted: Iterable[Target]) -> None:
        """Poll these from now on. Those that are polled already keep their moments."""
        now, targets = asyncio.get_running_loop().time(), list(dict.fromkeys(wanted))
        for target in self._entries.keys() - set(targets):
            entry = self._entries.pop(target)
            entry.gone = True
            self._beside(self._leave(entry))
        new = [target for target in targets if target not in self._entries]
        for place, target in enumerate(new):
            due = now + min(target.interval, FIRST_WITHIN) * place / len(new)
            entry = _Entry(target, Line(target, self._shared), due)
            self._entries[target] = entry
            self._push(entry)
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled; then every line is closed and no poll is out."""
        try:
            while True:
                self._begin_due()
                await self._until_next()
        finally:
            for entry in self._entries.values():
                entry.gone = True
                self._beside(self._leave(entry))
            await asyncio.gather(*self._aside, return_exceptions=True)

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._heap, (entry.due, next(self._order), entry))

    def _begin_due(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._heap and self._heap[0][0] <= now + SOON:
            _, _, entry = heapq.heappop(self._heap)
            if entry.gone:
                continue
            if entry.poll is None:
                entry.poll = loop.create_task(self._poll(entry, max(0.0, now - entry.due)))
            else:
                self.skipped += 1
            # One that was missed altogether is not made up for.
            entry.due += entry.target.interval * (1 + math.floor((now + SOON - entry.due) / entry.target.interval))
            self._push(entry)

    async def _until_next(self) -> None:
        loop = asyncio.get_running_loop()
        self._wake.clear()
        timer = None
        if self._heap:
            timer = loop.call_at(math.ceil(self._heap[0][0] / GRID) * GRID, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _poll(self, entry: _Entry, late: float) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            result = await entry.line.poll()
        finally:
            entry.poll = None
        if not entry.gone:
            self._ended(Ended(entry.target, result, begun, loop.time(), late))

    async def _leave(self, entry: _Entry) -> None:
        if entry.poll is not None:
            entry.poll.cancel()
            await asyncio.gather(entry.poll, return_exceptions=True)
        await entry.line.close()

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
