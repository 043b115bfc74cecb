"""The interface of a gateway adapter, and the frozen values that go in and come out of it.

No Django in this package: an adapter can be run, tested and reasoned about without a database. `contract suite`:
tests/gateways/contract runs the same tests on every adapter, each against its real gateway.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from migrations_app.gateways.errors import FolderUnusable, NotConfirmed, Obsolete, Pinned, StaleGeneration

MONOLITH_WEIGHT = 0  # per cent of a flag's traffic on the new side: none
SERVICE_WEIGHT = 100  # per cent of a flag's traffic on the new side: all

# Upper bounds, in milliseconds and inclusive, of the ranges in which answers are counted by how long they took.
LATENCY_BOUNDS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000, 30000)
NO_LATENCY = (0,) * (len(LATENCY_BOUNDS) + 1)  # one range more, for what took longer than all of them


# A request with this header, its side and the table's secret, `service SECRET`, is sent to that side.
TESTER_HEADER = "x-switchyard-side"


_OVERTAKEN = 5  # tries of a panic that another apply, or another panic, gets in before


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

    With `failover` the monolith answers at once, with the path unchanged, what is meant for a service that is down:
    that refuses the connection, does not answer within a third of `timeout`, or answers 5xx. A write (any request but
    GET and HEAD) is only answered so when it was not sent to the service before. `failover` is one for all routes of a
    service.

    `write_weight` is the share of writes that goes to the service, where it is not that of all requests: reads can move
    before writes. None is the same as `weight`.
    """

    service: str
    flag: str
    prefix: str
    upstream: Address
    weight: int
    strip: str = "/api"
    health_path: str = "/health"
    timeout: float = 15.0  # seconds for the whole request, retries included
    failover: bool = True  # the gateway lets the monolith answer what the service does not
    write_weight: int | None = None  # per cent

    @property
    def writes(self) -> int:
        """The share of writes, 0-100 %, that goes to the service."""
        return self.weight if self.write_weight is None else self.write_weight

    @property
    def on(self) -> bool:
        """Whether any request is meant for the service."""
        return self.weight > MONOLITH_WEIGHT or self.writes > MONOLITH_WEIGHT

    def side(self) -> Side | None:
        """The one side that serves the route, or None while it is split: also when reads and writes differ."""
        sides = {MONOLITH_WEIGHT: Side.MONOLITH, SERVICE_WEIGHT: Side.SERVICE}
        return sides.get(self.weight) if self.weight == self.writes else None


@dataclass(frozen=True, slots=True)
class Sticky:
    """What tells users apart: the value of a header, of a cookie, or of a claim of the bearer token. One of the three.

    The token is not verified: it only chooses a side.
    """

    header: str = ""
    cookie: str = ""
    jwt_claim: str = ""

    def __str__(self) -> str:
        kinds = (("header", self.header), ("cookie", self.cookie), ("claim", self.jwt_claim))
        return ", ".join(f"{kind} {name}" for kind, name in kinds if name)


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests that are counted by themselves: those to `path` and below it, of one method or, without one, of all.

    `path` is the prefix of a route, or lies below one. A request is counted once, by the longest path that has it, and
    there by its method where that is named.
    """

    path: str
    method: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}" if self.method else self.path

    def holds(self, other: Counted) -> bool:
        """Whether what the other counts belongs to this, too."""
        return f"{other.path}/".startswith(f"{self.path.rstrip('/')}/") and self.method in {"", other.method}


def counted_apart(wanted: Iterable[Counted]) -> tuple[Counted, ...]:
    """All that has to be counted so that each that is wanted is a sum of some, the most special first.

    Who wants the POSTs of a path also needs those of the paths below it that are counted by themselves.
    """
    asked = set(wanted)
    more = {
        Counted(inner.path, outer.method)
        for outer in asked
        for inner in asked
        if outer.method and Counted(outer.path).holds(inner)
    }
    return tuple(sorted(asked | more, key=lambda one: (-len(one.path), one.path, not one.method, one.method)))


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All weights at one generation: everything a gateway needs to know. Routes are unique by prefix.

    Everything that no route matches goes to the monolith. With `sticky` a user stays on the same side of a split while
    its weight is the same, and a higher weight moves nobody back; with None, and for requests that have not got what it
    names, each request is split at random.

    With a `tester_secret` a request whose header TESTER_HEADER has a side and the secret is sent to that side, whatever
    the weight. That side answers it or nobody does, also with failover. It is counted nowhere, and what becomes of it
    makes no difference to where users are sent. Every other value is ignored, and no upstream ever sees the header. The
    secret is told nowhere: neither by the gateway's answers, nor in errors and sentences about drift.

    What `counted` names is told by `Gateway.traffic_of_routes`.
    """

    plan: str
    generation: int
    monolith: Address
    routes: tuple[Route, ...]
    sticky: Sticky | None = None
    tester_secret: str = field(default="", repr=False)
    counted: tuple[Counted, ...] = ()

    def weights(self) -> dict[str, int]:
        """Flag key -> weight, of reads where writes have another."""
        return {route.flag: route.weight for route in self.routes}


@dataclass(frozen=True, slots=True)
class Pin:
    """Holds one flag on the old side, whatever a table says, until somebody lifts it.

    It lies with the gateway and not in the database: see docs/decisions/0012-pins.md. `at` is None when nobody knows.
    """

    flag: str
    by: str = ""
    at: datetime | None = None
    why: str = ""

    def words(self) -> str:
        """`by anna since 2026-11-22 03:12 UTC: why`, as far as anybody knows."""
        since = f" since {self.at:%Y-%m-%d %H:%M} UTC" if self.at else ""
        return f"by {self.by or 'somebody'}{since}{f': {self.why}' if self.why else ''}".rstrip(".")


def with_pins(table: RoutingTable, pinned: Collection[str]) -> RoutingTable:
    """The table with these flags on the old side, reads and writes. Pure; flags that it has not got are passed over."""
    if not any(route.on and route.flag in pinned for route in table.routes):
        return table
    routes = (
        replace(route, weight=MONOLITH_WEIGHT, write_weight=None) if route.flag in pinned else route
        for route in table.routes
    )
    return replace(table, routes=tuple(routes))


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One line of a gateway's journal of pins, without its end.

    `nth` tells it from the same line further up: 0 for the first of them. `end`: how many bytes of the journal are over
    after it.
    """

    text: str
    nth: int = 0
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Journal:
    """What was done with a gateway's pins: its whole lines, and their `size` in bytes. It only ever grows."""

    lines: tuple[JournalLine, ...] = ()
    size: int = 0

    def after(self, read: int) -> tuple[JournalLine, ...]:
        """Those that who has read so many bytes has not read. All of a journal that is shorter: it is another one."""
        return tuple(line for line in self.lines if line.end > read or self.size < read)


@dataclass(frozen=True, slots=True)
class RollbackScript:
    """What a gateway's rollback script moves back, one flag after the other: `week-3.sh`, "Week 3, Sign-in"."""

    name: str
    title: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A routing table in the gateway's own language. `files`: path relative to the gateway's folder -> bytes."""

    generation: int
    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Observed:
    """What the gateway says it runs, read back from the gateway itself.

    `generation` is None when the gateway does not answer or runs nothing of ours; `error` then says why in a sentence.
    Beside a generation it says what keeps the gateway from taking the next one.
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
    """Counters since the gateway started (a restart resets them): requests meant for one side of one service.

    Every request of a client is counted once, on the side that it was meant for; those of testers are not. `errors` are
    answers of 5xx and requests that got no answer, `client_errors` answers of 4xx, `retries` requests that were sent a
    second time.

    `failovers` (new side only) are requests meant for the new side that the monolith answered instead, whether the
    service was tried first or not, and whatever the monolith answered. Each is also one of the new side's `requests`
    and one of its `errors`: what was meant for it and not answered by it counts as failed, also where the client never
    noticed. It is in none of its `client_errors` and `latency`, and in nothing of the old side. So the service
    answered `requests` less `failovers`, and the monolith the old side's `requests` and the new side's `failovers`.
    `failed_failovers` are those of them that the monolith answered with 5xx, or not at all: clients saw them fail.

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
    failed_failovers: int = 0

    def __add__(self, other: SideTraffic) -> SideTraffic:
        """Both together. Response times that one of the two does not tell are not known of the sum either."""
        known = bool(self.latency and other.latency)
        latency = tuple(a + b for a, b in zip(self.latency, other.latency, strict=True)) if known else ()
        return SideTraffic(
            self.requests + other.requests,
            self.errors + other.errors,
            latency,
            self.client_errors + other.client_errors,
            self.retries + other.retries,
            self.failovers + other.failovers,
            self.failed_failovers + other.failed_failovers,
        )


@dataclass(frozen=True, slots=True)
class RouteTraffic:
    """Counters since the gateway started: requests to one `Counted`, meant for one side, as clients saw them answered.

    `codes`: status from 400 on -> answers. What got no answer has the status that the gateway gave in its stead. What
    failed over has the monolith's, on the side that it was meant for. `latency` as in `SideTraffic`.
    """

    requests: int = 0
    codes: Mapping[int, int] = field(default_factory=dict)
    retries: int = 0
    latency: tuple[int, ...] = NO_LATENCY

    def __add__(self, other: RouteTraffic) -> RouteTraffic:
        known = bool(self.latency and other.latency)
        latency = tuple(a + b for a, b in zip(self.latency, other.latency, strict=True)) if known else ()
        codes = {code: self.codes.get(code, 0) + other.codes.get(code, 0) for code in (*self.codes, *other.codes)}
        return RouteTraffic(self.requests + other.requests, codes, self.retries + other.retries, latency)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do. What it cannot do it declares here; it never passes over it in silence."""

    split: bool  # weights between 0 and 100
    traffic: bool  # counters per service and side
    survives_restart: bool  # restarts from its last good configuration without us
    validates: bool = True  # asks the gateway's own validator before a configuration of a new shape is handed over
    failover: bool = True  # answers from the monolith what a service does not, by itself
    sticky: bool = True  # keeps a user on one side of a split
    testers: bool = True  # sends testers to the side that they ask for


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
        ran before keeps running); NotConfirmed when it was written but the gateway did not confirm it in time; Pinned
        when it sends requests of a pinned flag to the new side (nothing is written).
        """

    @abstractmethod
    def observe(self) -> Observed:
        """What runs now. Never raises for a gateway that is away: that is an Observed with an error."""

    @abstractmethod
    def traffic(self) -> dict[tuple[str, Side], SideTraffic]:
        """Counters by (service key, side); ("", Side.MONOLITH) is what no route matches. Raises Unreachable."""

    @abstractmethod
    def traffic_of_routes(self) -> dict[tuple[str, Counted, Side], RouteTraffic]:
        """Counters of what the table that runs has `counted`, by service key, and side. Raises Unreachable."""

    @abstractmethod
    def failing_over(self) -> dict[str, str]:
        """Service key -> in words why the gateway now sends the monolith what is meant for it. Raises Unreachable.

        Empty when none does. Only of services that requests are meant for; a service of which single requests fail, and
        are answered by the monolith, is not in it.
        """

    def housekeep(self) -> bool:
        """Keep what the gateway and its writers leave behind from growing. To be called every minute or so.

        Whether anything was done; by default there is nothing to do. Never touches what runs. Raises Unreachable when
        the gateway did not take part (the next call makes up for it), FolderBusy and FolderUnusable.
        """
        return False

    @abstractmethod
    def pins(self) -> tuple[Pin, ...]:
        """The flags that are held on the old side, by key. Raises FolderUnusable."""

    @abstractmethod
    def pin(self, flags: Collection[str], *, by: str, why: str = "") -> JournalLine:
        """Hold these flags on the old side from now on, and note that in the journal.

        From here no `apply` sends their requests to the new side; what runs is left as it is. Raises FolderUnusable.
        """

    def lift(self, flags: Collection[str], *, by: str, why: str = "") -> JournalLine:
        """Let these flags go, and note that in the journal. What runs is left as it is, and will be.

        So what was applied last has to obey its pins first: else the gateway's next start, or the next panic, would
        send their requests to the new side again. Raises what `obey` does, and lifts nothing then; but that a gateway
        does not confirm holds up nobody: it starts with what is written.
        """
        with suppress(NotConfirmed):
            self.obey()
        return self._let_go(flags, by=by, why=why)

    @abstractmethod
    def _let_go(self, flags: Collection[str], *, by: str, why: str) -> JournalLine:
        """Lift, and note it. Raises FolderUnusable."""

    @abstractmethod
    def journal(self) -> Journal:
        """What was done with the pins; a last line that is not whole yet is left out. Raises FolderUnusable."""

    @abstractmethod
    def journal_size(self) -> int:
        """Of its whole journal, in bytes, also of a last line that is not whole. Raises FolderUnusable."""

    @abstractmethod
    def last_applied(self) -> RoutingTable | None:
        """The table that was handed over last; None when there was none, or the note of it is lost."""

    def panic(self, flags: Collection[str] | None = None, *, by: str, why: str = "") -> Applied:
        """Pin these flags, by default all, and run what was applied last with them on the old side.

        Needs nobody but the gateway. The generation stays, and what ran of other flags. Raises what `apply` does, and
        Obsolete when it is not known what was applied last; named flags are pinned then.
        """
        table = self.last_applied()
        if flags is None and table is not None:
            flags = sorted({route.flag for route in table.routes})
        problem: FolderUnusable | None = None
        try:
            if flags:
                self.pin(flags, by=by, why=why)
        except FolderUnusable as error:
            # Traffic goes back all the same; what is said then is that nothing keeps it there.
            problem = error
        try:
            applied = self.obey(flags or ())
        except Obsolete as unknown:
            raise problem or unknown from unknown
        if problem is not None:
            raise FolderUnusable(f"it runs the old side, but nothing keeps it there: {problem}") from problem
        return applied

    def obey(self, flags: Collection[str] = ()) -> Applied:
        """Run what was applied last with the pinned flags, and these, on the old side. Raises what `panic` does."""
        for _ in range(_OVERTAKEN):
            # Read after the pins were written: whatever is applied from then on obeys them.
            if (table := self.last_applied()) is None:
                break
            try:
                pinned = {*flags, *(pin.flag for pin in self.pins())}
                return self.apply(self.render(with_pins(table, pinned)))
            except (StaleGeneration, Pinned):
                continue
        raise Obsolete("it is not known what was applied last to this gateway, so that cannot be applied with the pins")

    def keep_scripts(self, scripts: Collection[RollbackScript], *, called: str = "") -> bool:
        """Have these rollback scripts lie ready, and no others, for the routes that were applied last.

        `called` is the key that the plan has for the gateway, for who asks when there is no database to ask.
        Whether any had to be written. By default a gateway has no such scripts. Raises FolderBusy, FolderUnusable.
        """
        return False

    def called(self) -> str:
        """The key that the plan has for it, as `keep_scripts` was told; else empty. Raises FolderUnusable."""
        return ""

    def scripts(self) -> tuple[RollbackScript, ...]:
        """Those that lie ready. Raises FolderUnusable."""
        return ()
