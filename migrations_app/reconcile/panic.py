"""Back to the old side without a database: at every gateway that the settings name, all at once.

Each gateway has a thread of its own, which ends with the process: a folder that hangs may hold it for ever.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from migrations_app.gateways.errors import GatewayError

from .adapters import Known
from .desired import name_of

# Seconds. A folder that is well tells in milliseconds what it knows; who pins waits for the lock and for the gateway.
TELLS_WITHIN = 1.0
PINS_WITHIN = 8.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Panicked:
    """What came of it at one gateway, by its `name`. Confirmed by the gateway itself unless there is an `error`."""

    gateway: Known
    name: str
    milliseconds: float
    generation: int | None = None
    error: str = ""


def panic(gateways: Collection[Known], flags: Collection[str] | None, *, by: str, why: str = "") -> Iterator[Panicked]:
    """Pin these flags, by default all, at each gateway; what came of it, as they end. Never raises.

    One that hangs holds up no other, and is told after PINS_WITHIN.
    """
    begun = time.perf_counter()

    def one(gateway: Known) -> Panicked:
        generation, error = None, ""
        try:
            generation = gateway.adapter.panic(flags, by=by, why=why).generation
        except GatewayError as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the other gateways are told
            error = repr(problem)
        milliseconds = (time.perf_counter() - begun) * 1000
        return Panicked(gateway, gateway.name(), milliseconds, generation, error)

    def late(gateway: Known) -> Panicked:
        # Nothing more is read of it.
        name, milliseconds = gateway.key or str(gateway.folder), (time.perf_counter() - begun) * 1000
        return Panicked(gateway, name, milliseconds, error="no end of it in time; its folder may hang")

    return (done or late(gateway) for gateway, done in _each(gateways, one, within=PINS_WITHIN))


def flags_of_week(gateways: Collection[Known], number: int) -> tuple[str, ...]:
    """As the rollback scripts beside the gateways have them; empty when none of them knows the week."""

    def one(gateway: Known) -> tuple[str, ...]:
        try:
            return next((script.flags for script in gateway.adapter.scripts() if script.name == name_of(number)), ())
        except GatewayError:
            return ()

    found = {gateway.folder: flags for gateway, flags in _each(gateways, one, within=TELLS_WITHIN)}
    return next((flags for gateway in gateways if (flags := found[gateway.folder])), ())


def flags_known(gateways: Collection[Known]) -> frozenset[str] | None:
    """Of the tables that were applied last; None when nobody can tell, or somebody does not in time."""

    def one(gateway: Known) -> frozenset[str]:
        try:
            table = gateway.adapter.last_applied()
        except GatewayError:
            return frozenset()
        return frozenset(route.flag for route in table.routes) if table else frozenset()

    found = [flags for _gateway, flags in _each(gateways, one, within=TELLS_WITHIN)]
    known = frozenset().union(*(flags or () for flags in found))
    return known if known and None not in found else None


def _each(gateways: Collection[Known], act: Callable[[Known], T], *, within: float) -> Iterator[tuple[Known, T | None]]:
    """Begins at once. What `act` gives for each, as they end; None for those that have not after so many seconds."""
    done: queue.Queue[tuple[Known, T]] = queue.Queue()
    for gateway in gateways:
        run = threading.Thread(target=lambda one: done.put((one, act(one))), args=(gateway,), daemon=True)
        run.start()
    until = time.monotonic() + within

    def ends() -> Iterator[tuple[Known, T | None]]:
        waiting = list(gateways)
        while waiting:
            try:
                gateway, result = done.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            waiting.remove(gateway)
            yield gateway, result
        yield from ((gateway, None) for gateway in waiting)

    return ends()
