"""Back to the old side without a database: at every gateway that the settings name, all at once."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from migrations_app.gateways.errors import GatewayError

from .adapters import Known
from .desired import name_of


@dataclass(frozen=True, slots=True)
class Panicked:
    """What came of it at one gateway. Confirmed by the gateway itself unless there is an `error`."""

    gateway: Known
    milliseconds: float
    generation: int | None = None
    error: str = ""


def panic(gateways: Collection[Known], flags: Collection[str] | None, *, by: str, why: str = "") -> list[Panicked]:
    """Pin these flags, by default all, at each gateway. Never raises; one that hangs holds up no other."""

    def one(gateway: Known) -> Panicked:
        begun = time.perf_counter()
        try:
            generation, error = gateway.adapter.panic(flags, by=by, why=why).generation, ""
        except GatewayError as problem:
            generation, error = None, str(problem)
        return Panicked(gateway, (time.perf_counter() - begun) * 1000, generation, error)

    with ThreadPoolExecutor(max_workers=max(len(gateways), 1)) as threads:
        return list(threads.map(one, gateways))


def flags_of_week(gateways: Collection[Known], number: int) -> tuple[str, ...]:
    """As the rollback scripts beside the gateways have them; empty when none of them knows the week."""
    for gateway in gateways:
        try:
            found = next((one.flags for one in gateway.adapter.scripts() if one.name == name_of(number)), None)
        except GatewayError:
            continue
        if found:
            return found
    return ()


def flags_known(gateways: Collection[Known]) -> frozenset[str] | None:
    """Of the tables that were applied last; None when nobody can tell."""
    tables = []
    for gateway in gateways:
        try:
            tables.append(gateway.adapter.last_applied())
        except GatewayError:
            continue
    found = [{route.flag for route in table.routes} for table in tables if table]
    return frozenset().union(*found) if found else None
