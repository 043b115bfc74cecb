"""The interface of a gateway adapter, and the frozen values that go in and come out of it.

No Django in this package: an adapter can be run, tested and reasoned about without a database. `contract suite`:
tests/gateways/test_contract.py runs the same tests on every adapter, each against its real gateway.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MONOLITH_WEIGHT = 0  # per cent of a flag's traffic on the new side: none
SERVICE_WEIGHT = 100  # per cent of a flag's traffic on the new side: all

# Upper bounds, in milliseconds and inclusive, of the ranges in which answers are counted by how long they took.
LATENCY_BOUNDS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000, 30000)
NO_LATENCY = (0,) * (len(LATENCY_BOUNDS) + 1)  # one range more, for what took longer than all of them


class Side(StrEnum):
    """Which side of the migration serves a request."""

    MONOLITH = "monolith"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address of an upstream: a host name or IP address, and a port from 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """One path prefix and where its traffic goes.

    `weight` is the share of requests, 0-100 %, that goes to the service at `upstream` with `strip` taken off the front
    of the path (`/api/auth/login` -> `/auth/login`); the rest goes to the monolith with the path unchanged.
    """

    service: str
    flag: str
    prefix: str
    upstream: Address
    weight: int
    strip: str = "/api"
    health_path: str = "/health"
    timeout: float = 15.0  # seconds for the whole request, retries included

    def side(self) -> Side | None:
        """The one side that serves the route, or None while it is split."""
        return {MONOLITH_WEIGHT: Side.MONOLITH, SERVICE_WEIGHT: Side.SERVICE}.get(self.weight)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All weights at one generation: everything a gateway needs to know. Routes are unique by prefix.

    Everything that no route matches goes to the monolith.
    """

    plan: str
    generation: int
    monolith: Address
    routes: tuple[Route, ...]

    def weights(self) -> dict[str, int]:
        """Flag key -> weight."""
        return {route.flag: route.weight for route in self.routes}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A routing table in the gateway's own language. `files`: path relative to the gateway's folder -> bytes."""

    generation: int
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Observed:
    """What the gateway says it runs, read back from the gateway itself.

    `generation` is None when the gateway does not answer or runs nothing of ours; `error` then says why in a sentence.
    `drift` lists, a sentence each, where what runs, or what lies in the gateway's folder for its next start, differs
    from what was last applied; it is empty when the two agree.
    """

    generation: int | None
    weights: Mapping[str, int] = field(default_factory=dict)
    drift: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of an `apply` that the gateway confirmed. `changed` is False when it already ran exactly this.

    `replaced` lists, a sentence each, what lay in the gateway's folder that nobody had applied, and lies there no more.
    """

    generation: int
    changed: bool
    milliseconds: float  # from the call to the gateway's own confirmation
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SideTraffic:
    """Counters since the gateway started (a restart resets them): requests sent to one side of one service.

    `errors` are answers of 5xx and requests that got no answer, `client_errors` answers of 4xx. `retries` are requests
    that were sent a second time; they are one request all the same. `failovers` are requests meant for the new side
    that the monolith answered instead: they are among the new side's `requests` and its `errors`, and the old side has
    none of them.

    `latency` counts the answers by LATENCY_BOUNDS, one more for what is above all; what got no answer from upstream is
    in none of them, and the counts may be a second or two behind `requests`. Empty when the gateway counts by other
    bounds, or not at all.
    """

    requests: int
    errors: int
    latency: tuple[int, ...] = NO_LATENCY
    client_errors: int = 0
    retries: int = 0
    failovers: int = 0

    def __add__(self, other: SideTraffic) -> SideTraffic:
        """Both together. Response times that one of the two does not tell are not known of the sum either."""
        known = bool(self.latency and other.latency)
        return SideTraffic(
            self.requests + other.requests,
            self.errors + other.errors,
            tuple(a + b for a, b in zip(self.latency, other.latency, strict=True)) if known else (),
            self.client_errors + other.client_errors,
            self.retries + other.retries,
            self.failovers + other.failovers,
        )


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do. What it cannot do it declares here; it never passes over it in silence."""

    split: bool  # weights between 0 and 100
    traffic: bool  # counters per service and side
    survives_restart: bool  # restarts from its last good configuration without us
    validates: bool = True  # asks the gateway's own validator before a configuration of a new shape is handed over


class Gateway(ABC):
    """A gateway that runs routing tables. All calls are synchronous, bounded in time, and safe to repeat.

    Errors are those of `gateways.errors` alone; a library's exceptions stop here.
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @abstractmethod
    def render(self, table: RoutingTable) -> Rendered:
        """Pure: the same table gives the same bytes. Raises InvalidTable, naming the route and the field."""

    @abstractmethod
    def check(self, rendered: Rendered) -> None:
        """Ask whether the gateway would take this, and change nothing. Raises Rejected with its own reason.

        Where `capabilities.validates` is False, only what can be told without the gateway's validator is told.
        """

    @abstractmethod
    def apply(self, rendered: Rendered) -> Applied:
        """Make the gateway run this and wait until it says so itself.

        Compares first: a table that already runs is confirmed without a write. Raises StaleGeneration when the gateway
        already has a higher generation (nothing is written); Rejected when the gateway refuses the configuration (what
        ran before keeps running); NotConfirmed when it was written but the gateway did not confirm it in time.
        """

    @abstractmethod
    def observe(self) -> Observed:
        """What runs now. Never raises for a gateway that is away: that is an Observed with an error."""

    @abstractmethod
    def traffic(self) -> dict[tuple[str, Side], SideTraffic]:
        """Counters by (service key, side); by ("", Side.MONOLITH) what no route matches. Raises Unreachable."""

    def housekeep(self) -> bool:
        """Keep what the gateway and its writers leave behind from growing. To be called every minute or so.

        Whether anything was done; by default there is nothing to do. Never touches what runs. Raises Unreachable when
        the gateway did not take part (the next call makes up for it), FolderBusy and FolderUnusable.
        """
        return False
