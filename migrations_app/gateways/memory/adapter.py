"""A gateway in this process, with the semantics of a real one: fence, read-back, drift, outage, restart."""

from __future__ import annotations

import base64
import json
import threading
import time
import zlib
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.cookies import SimpleCookie

from migrations_app.gateways.base import (
    LATENCY_BOUNDS,
    TESTER_HEADER,
    Address,
    Applied,
    Capabilities,
    Counted,
    Gateway,
    Journal,
    JournalLine,
    Observed,
    Pin,
    Rendered,
    RollbackScript,
    Route,
    RouteTraffic,
    RoutingTable,
    Side,
    SideTraffic,
    Sticky,
    counted_apart,
    with_pins,
)
from migrations_app.gateways.errors import NotConfirmed, Pinned, Rejected, StaleGeneration, Unreachable
from migrations_app.gateways.notes import as_values, from_values
from migrations_app.gateways.pins import LIFTED, PINNED, Entry, line_of, parse_journal
from migrations_app.gateways.tables import check, longest_first, owner

TABLE_FILE = "table.json"
_READS = ("GET", "HEAD")
_GOLDEN_STEP = 0.6180339887498949  # spreads a split evenly and always in the same way


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one request: the upstream that got it and the path that it saw there."""

    address: Address
    path: str
    service: str  # empty for what no route matched
    side: Side  # the one that it was meant for
    failed: bool = False  # it got no good answer


class MemoryGateway(Gateway):
    """Thread-safe. `answers` set to False is an outage: what is applied meanwhile runs once it is True again.

    `refuses`, when not empty, is the reason for which the next tables are rejected. `down` has the services that take
    no connections at present, `lost` those whose requests the monolith fails when they fail over. `journaled` is the
    journal of pins as it would lie in a folder.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._answers = True
        self._applied: Rendered | None = None
        self._folder: dict[str, bytes] = {}
        self._running: RoutingTable | None = None
        self._counters: dict[tuple[str, Side], SideTraffic] = {}
        self._apart: dict[tuple[str, Counted, Side], RouteTraffic] = {}
        self._requests = 0
        self._pins: dict[str, Pin] = {}
        self._scripts: tuple[RollbackScript, ...] = ()
        self._called = ""
        self.journaled = b""
        self.refuses = ""
        self.down: set[str] = set()
        self.lost: set[str] = set()
        self.writes = 0  # how often a table was written

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(split=True, traffic=True, survives_restart=True)

    @property
    def answers(self) -> bool:
        """Whether the gateway is up."""
        return self._answers

    @answers.setter
    def answers(self, up: bool) -> None:
        with self._lock:
            if up and not self._answers:
                self.restart()
            self._answers = up

    def render(self, table: RoutingTable) -> Rendered:
        check(table)
        content = json.dumps(as_values(table), sort_keys=True).encode()
        return Rendered(generation=table.generation, files={TABLE_FILE: content})

    def check(self, rendered: Rendered) -> None:
        with self._lock:
            _parse(rendered.files)
            if self.refuses:
                raise Rejected(self.refuses)

    def apply(self, rendered: Rendered) -> Applied:
        started = time.perf_counter()
        with self._lock:
            current = self._applied.generation if self._applied else 0
            if rendered.generation < current:
                raise StaleGeneration(rendered.generation, current)
            table = _parse(rendered.files)
            if pinned := {route.flag for route in table.routes if route.on and route.flag in self._pins}:
                raise Pinned(pinned)
            if self._answers and self._folder == rendered.files and self._running == table:
                return Applied(rendered.generation, changed=False, milliseconds=_since(started))
            if self.refuses:
                raise Rejected(self.refuses)
            edited = self._applied is not None and self._folder != self._applied.files
            replaced = (f"the file {TABLE_FILE} had been changed",) if edited else ()
            self._applied, self._folder = rendered, dict(rendered.files)
            self.writes += 1
            if not self._answers:
                late = NotConfirmed(f"generation {rendered.generation} is written, but the gateway does not answer")
                late.replaced = replaced
                raise late
            self._running = table
            return Applied(rendered.generation, changed=True, milliseconds=_since(started), replaced=replaced)

    def observe(self) -> Observed:
        with self._lock:
            if self._applied is None:
                return Observed(generation=None, error="nothing was applied to this gateway yet")
            drift = []
            if self._folder != self._applied.files:
                drift.append(f"the file {TABLE_FILE} was changed: the gateway would load that when it starts again")
            if not self._answers:
                return Observed(generation=None, drift=tuple(drift), error="the gateway does not answer")
            if self._running is None:
                return Observed(generation=None, drift=tuple(drift), error="the gateway runs nothing of ours")
            applied = _parse(self._applied.files)
            if self._running != with_pins(applied, self._pins):  # else a pin was obeyed without us
                drift = [*_differences(self._running, applied), *drift]
            return Observed(self._running.generation, self._running.weights(), tuple(drift))

    def traffic(self) -> dict[tuple[str, Side], SideTraffic]:
        with self._lock:
            if not self._answers:
                raise Unreachable("the gateway does not answer")
            routes = self._running.routes if self._running else ()
            silent = {(route.service, side): SideTraffic(0, 0) for route in routes for side in Side}
            return {("", Side.MONOLITH): SideTraffic(0, 0)} | silent | self._counters

    def traffic_of_routes(self) -> dict[tuple[str, Counted, Side], RouteTraffic]:
        with self._lock:
            if not self._answers:
                raise Unreachable("the gateway does not answer")
            table = self._running
            silent = {
                (route.service, one, side): RouteTraffic()
                for one in (counted_apart(table.counted) if table else ())
                if table and (route := owner(one, table.routes))
                for side in Side
            }
            return silent | self._apart

    def failing_over(self) -> dict[str, str]:
        with self._lock:
            if not self._answers:
                raise Unreachable("the gateway does not answer")
            routes = self._running.routes if self._running else ()
            meant = {route.service for route in routes if route.failover and route.on}
            return dict.fromkeys(sorted(meant & self.down), "it takes no connections")

    def pins(self) -> tuple[Pin, ...]:
        with self._lock:
            return tuple(self._pins[flag] for flag in sorted(self._pins))

    def pin(self, flags: Collection[str], *, by: str, why: str = "") -> JournalLine:
        with self._lock:
            now = datetime.now(UTC)
            self._pins |= {flag: Pin(flag, by, now, why) for flag in flags}
            return self._note(Entry(PINNED, now, self._generation(), tuple(flags), by, why))

    def _let_go(self, flags: Collection[str], *, by: str, why: str) -> JournalLine:
        with self._lock:
            for flag in flags:
                self._pins.pop(flag, None)
            return self._note(Entry(LIFTED, datetime.now(UTC), self._generation(), tuple(flags), by, why))

    def journal(self) -> Journal:
        with self._lock:
            return parse_journal(self.journaled)

    def journal_size(self) -> int:
        with self._lock:
            return len(self.journaled)

    def last_applied(self) -> RoutingTable | None:
        with self._lock:
            return _parse(self._applied.files) if self._applied else None

    def keep_scripts(self, scripts: Collection[RollbackScript], *, called: str = "") -> bool:
        """There is no shell in here; it only remembers them."""
        with self._lock:
            before = self._scripts, self._called
            self._scripts, self._called = tuple(scripts), called
            return before != (self._scripts, self._called)

    def called(self) -> str:
        with self._lock:
            return self._called

    def scripts(self) -> tuple[RollbackScript, ...]:
        with self._lock:
            return self._scripts

    def serve(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        failed: bool = False,
        status: int = 200,
        milliseconds: float = 1.0,
    ) -> Served:
        """Route one request and count it. Raises Unreachable.

        `headers` by name in lower case. `failed`: the upstream answers with 5xx, which counts as an error; `status` is
        what it answers otherwise. `milliseconds` is how long the answer took.
        """
        with self._lock:
            if not self._answers or self._running is None:
                raise Unreachable("the gateway does not answer")
            bare, question, query = path.partition("?")
            for route in longest_first(self._running.routes):
                if f"{bare}/".startswith(f"{route.prefix.rstrip('/')}/"):
                    one = _one(failed, status, milliseconds)
                    request = _Request(bare, question + query, method, headers or {}, failed, one)
                    if side := _chosen(self._running, request):
                        return self._sent(self._running, route, request, side)
                    served = self._serve(self._running, route, request)
                    self._count_apart(self._running, request, served, status)
                    return served
            self._count("", Side.MONOLITH, _one(failed, status, milliseconds))
            return Served(self._running.monolith, path, "", Side.MONOLITH, failed)

    def tamper(self, weights: Mapping[str, int]) -> None:
        """Change what runs behind the control plane's back."""
        with self._lock:
            if self._running is None:
                raise Unreachable("the gateway runs nothing of ours")
            routes = tuple(
                replace(route, weight=weights.get(route.flag, route.weight)) for route in self._running.routes
            )
            self._running = replace(self._running, routes=routes)

    def tamper_folder(self, content: bytes | None) -> None:
        """Change, or with None delete, what lies ready for the next start. What runs stays as it is."""
        with self._lock:
            self._folder = {} if content is None else {TABLE_FILE: content}

    def restart(self) -> None:
        """Start again from what lies ready; the counters begin at zero."""
        with self._lock:
            self._counters, self._apart = {}, {}
            try:
                self._running = with_pins(_parse(self._folder), self._pins)
            except Rejected:
                self._running = None

    def _generation(self) -> int:
        return self._applied.generation if self._applied else 0

    def _note(self, entry: Entry) -> JournalLine:
        self.journaled += f"{line_of(entry)}\n".encode()
        return parse_journal(self.journaled).lines[-1]

    def _serve(self, table: RoutingTable, route: Route, request: _Request) -> Served:
        self._requests += 1
        weight = route.weight if request.method in _READS else route.writes
        key = _key(table.sticky, request.headers) if table.sticky else ""
        place = zlib.crc32(key.encode()) % 100 if key else (self._requests * _GOLDEN_STEP) % 1 * 100
        if place >= weight:
            self._count(route.service, Side.MONOLITH, request.one)
            return self._sent(table, route, request, Side.MONOLITH)
        return self._serve_new(table, route, request)

    def _serve_new(self, table: RoutingTable, route: Route, request: _Request) -> Served:
        down = route.service in self.down
        if route.failover and (down or (request.failed and request.method in _READS)):
            # A service that is known to be down is not tried first.
            lost = route.service in self.lost
            one = SideTraffic(1, 1, retries=int(not down), failovers=1, failed_failovers=int(lost))
            self._count(route.service, Side.SERVICE, one)
            return Served(table.monolith, request.path + request.query, route.service, Side.SERVICE, lost)
        self._count(route.service, Side.SERVICE, SideTraffic(1, 1) if down else request.one)
        return self._sent(table, route, request, Side.SERVICE)

    def _sent(self, table: RoutingTable, route: Route, request: _Request, side: Side) -> Served:
        """To this side and no other; counted by nobody."""
        if side is Side.MONOLITH:
            return Served(table.monolith, request.path + request.query, route.service, side, request.failed)
        path = (request.path.removeprefix(route.strip) or "/") + request.query
        return Served(route.upstream, path, route.service, side, request.failed or route.service in self.down)

    def _count_apart(self, table: RoutingTable, request: _Request, served: Served, status: int) -> None:
        asked = Counted(request.path, request.method)
        for counted in counted_apart(table.counted):
            if counted.holds(asked) and owner(counted, table.routes) == owner(asked, table.routes):
                over = served.side is Side.SERVICE and served.address == table.monolith
                seen = max(500, status) if served.failed else 200 if over else status
                codes = {seen: 1} if seen >= 400 else {}
                key = (served.service, counted, served.side)
                one = RouteTraffic(1, codes, latency=request.one.latency)
                self._apart[key] = self._apart.get(key, RouteTraffic()) + one
                return

    def _count(self, service: str, side: Side, one: SideTraffic) -> None:
        self._counters[service, side] = self._counters.get((service, side), SideTraffic(0, 0)) + one


@dataclass(frozen=True, slots=True)
class _Request:
    path: str
    query: str  # with its question mark
    method: str
    headers: Mapping[str, str]
    failed: bool
    one: SideTraffic  # itself, as it counts when it is answered by whom it was meant for


def _chosen(table: RoutingTable, request: _Request) -> Side | None:
    """The side that a tester asks for; None for everybody else."""
    asked = request.headers.get(TESTER_HEADER) if table.tester_secret else None
    return next((side for side in Side if asked == f"{side} {table.tester_secret}"), None)


def _key(sticky: Sticky, headers: Mapping[str, str]) -> str:
    """What tells the user apart, empty when the request has not got it."""
    if sticky.header:
        return headers.get(sticky.header.lower(), "")
    if sticky.cookie:
        found = SimpleCookie(headers.get("cookie", ""))
        return found[sticky.cookie].value if sticky.cookie in found else ""
    try:
        payload = headers.get("authorization", "").split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=="))[sticky.jwt_claim])
    except (IndexError, ValueError, KeyError, TypeError):
        return ""


def _one(failed: bool, status: int, milliseconds: float) -> SideTraffic:
    own = bisect_left(LATENCY_BOUNDS, milliseconds)
    latency = tuple(int(position == own) for position in range(len(LATENCY_BOUNDS) + 1))
    return SideTraffic(1, int(failed), latency, client_errors=int(not failed and 400 <= status < 500))


def _parse(files: Mapping[str, bytes]) -> RoutingTable:
    try:
        return from_values(json.loads(files[TABLE_FILE]))
    except (KeyError, ValueError, TypeError) as error:
        raise Rejected(f"the rendered files are not a routing table of ours: {error!r}") from error


def _differences(running: RoutingTable, applied: RoutingTable) -> list[str]:
    found = []
    now = {route.prefix: route for route in running.routes}
    for route in applied.routes:
        if now.get(route.prefix) != route:
            found.append(f"route {route.prefix} runs as {now.get(route.prefix)}, applied was {route}")
    if running.sticky != applied.sticky:
        found.append(f"users are told apart by {running.sticky}, applied was {applied.sticky}")
    if not found and running != applied:
        found.append(f"the gateway runs generation {running.generation}, applied was {applied.generation}")
    return found


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
