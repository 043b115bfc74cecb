"""What every adapter asks of a routing table before it renders it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from migrations_app.gateways.base import TESTER_HEADER, Address, Counted, Route, RoutingTable, Sticky
from migrations_app.gateways.errors import InvalidTable

# Answered by the gateway itself: no route may take them over.
OWN_PATHS = ("/health", "/routing-status", "/services/discovery")

# Patterns for a whole value, in what Python and PostgreSQL read alike: the database refuses the same rows.
NAME = r"[A-Za-z0-9_-]+"  # no dot: names are parts of the names of counters, which dots separate
# What may stand in a prefix after the gateway's own path normalisation; anything else would never match.
PREFIX = r"(/|(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+)"
DOT_SEGMENT = r"/[.][.]?(/|$)"  # found anywhere: normalised away, so it would never match either
HOST = r"[A-Za-z0-9._:-]+"
HEADER_NAME = r"[A-Za-z0-9!#$&'*+.^_`|~-]{1,100}"  # also of cookies and claims
# Headers that only the gateway may set. Servers that fold '-' and '_' together would otherwise take `x_side` for ours.
OWN_HEADERS = (
    r"x[-_](envoy[-_].*|side|served[-_]by[-_]side|shadow|user[-_]id|switchyard[-_]bucket)",
    r"x_switchyard[-_]side|x-switchyard_side",  # but not TESTER_HEADER itself, which routes ask for
)
HARD_TO_GUESS = r"[A-Za-z0-9._~-]{16,200}"
METHOD = r"[A-Z]{1,20}"
MIN_TIMEOUT, MAX_TIMEOUT = 0.1, 3600.0  # seconds; Envoy takes less than a millisecond for no limit at all


def check(table: RoutingTable) -> None:
    """Raise InvalidTable for the first thing that no gateway could express, naming the route and the field."""
    if table.generation < 0:
        raise InvalidTable(f"generation {table.generation} is negative")
    _check_address("the monolith", "address", table.monolith)
    if table.tester_secret and not re.fullmatch(HARD_TO_GUESS, table.tester_secret):
        raise InvalidTable("tester_secret must have 16 to 200 letters, digits and . _ ~ -")  # which does not tell it
    if table.sticky is not None:
        check_sticky(table.sticky)
    prefixes: set[str] = set()
    flags: dict[str, Route] = {}
    services: dict[str, Route] = {}
    for route in table.routes:
        _check_route(route)
        where = f"route {route.prefix}"
        if route.prefix in prefixes:
            raise InvalidTable(f"{where}: the prefix appears twice")
        prefixes.add(route.prefix)
        first = flags.setdefault(route.flag, route)
        if (first.weight, first.writes, first.service) != (route.weight, route.writes, route.service):
            raise InvalidTable(f"{where}: flag {route.flag} has another weight or service on route {first.prefix}")
        first = services.setdefault(route.service, route)
        if (first.upstream, first.flag) != (route.upstream, route.flag):
            raise InvalidTable(f"{where}: service {route.service} has another upstream or flag on route {first.prefix}")
        if (first.failover, first.health_path) != (route.failover, route.health_path):
            told = f"service {route.service} has another failover or health_path on route {first.prefix}"
            raise InvalidTable(f"{where}: {told}")
    for one in table.counted:
        _check_counted(one, table.routes)


def owner(counted: Counted, routes: Iterable[Route]) -> Route | None:
    """The route that requests to the path take."""
    holders = [route for route in routes if Counted(route.prefix).holds(Counted(counted.path))]
    return max(holders, key=lambda route: len(route.prefix), default=None)


def longest_first(routes: tuple[Route, ...]) -> list[Route]:
    """Routes in the order in which a gateway must try them: a longer prefix wins over a shorter one."""
    return sorted(routes, key=lambda route: (-len(route.prefix), route.prefix))


def stripped(route: Route) -> str:
    """The prefix as the service sees it: `/api/auth` with strip `/api` gives `/auth`. Empty when nothing is left."""
    return route.prefix.removeprefix(route.strip)


def _check_route(route: Route) -> None:
    where = f"route {route.prefix}"
    if not re.fullmatch(PREFIX, route.prefix) or re.search(DOT_SEGMENT, route.prefix):
        raise InvalidTable(f"{where}: prefix {route.prefix!r} must be plain path segments that begin with '/'")
    if route.prefix in OWN_PATHS:
        raise InvalidTable(f"{where}: prefix {route.prefix} is answered by the gateway itself")
    if not re.fullmatch(NAME, route.service):
        raise InvalidTable(f"{where}: service {route.service!r} may have letters, digits, '_' and '-' only")
    if not re.fullmatch(NAME, route.flag):
        raise InvalidTable(f"{where}: flag {route.flag!r} may have letters, digits, '_' and '-' only")
    if type(route.weight) is not int or not 0 <= route.weight <= 100:
        raise InvalidTable(f"{where}: weight {route.weight!r} is not a whole number from 0 to 100")
    if route.write_weight is not None and (type(route.write_weight) is not int or not 0 <= route.write_weight <= 100):
        raise InvalidTable(f"{where}: write_weight {route.write_weight!r} is not a whole number from 0 to 100")
    if route.strip and not (route.strip.startswith("/") and f"{route.prefix}/".startswith(f"{route.strip}/")):
        raise InvalidTable(f"{where}: strip {route.strip!r} is not the beginning of the prefix, in whole segments")
    if not MIN_TIMEOUT <= route.timeout <= MAX_TIMEOUT:
        reach = f"from {MIN_TIMEOUT:g} to {MAX_TIMEOUT:g} seconds"
        raise InvalidTable(f"{where}: timeout {route.timeout!r} is not {reach}")
    if not route.health_path.startswith("/"):
        raise InvalidTable(f"{where}: health_path {route.health_path!r} does not begin with '/'")
    _check_address(where, "upstream", route.upstream)


def check_sticky(sticky: Sticky) -> None:
    """Raises InvalidTable, which begins with `sticky: `."""
    named = [name for name in (sticky.header, sticky.cookie, sticky.jwt_claim) if name]
    if len(named) != 1:
        raise InvalidTable(f"sticky: one of header, cookie and jwt_claim must be named, not {len(named)}")
    if not re.fullmatch(HEADER_NAME, named[0]):
        raise InvalidTable(f"sticky: {named[0]!r} may have letters, digits and !#$&'*+.^_`|~- only")
    removed = (*OWN_HEADERS, TESTER_HEADER)
    if sticky.header and any(re.fullmatch(pattern, sticky.header.lower()) for pattern in removed):
        raise InvalidTable(f"sticky: header {sticky.header} is one that the gateway removes")


def _check_counted(counted: Counted, routes: tuple[Route, ...]) -> None:
    if not re.fullmatch(PREFIX, counted.path) or re.search(DOT_SEGMENT, counted.path):
        raise InvalidTable(f"counted: {counted.path!r} must be plain path segments that begin with '/'")
    if counted.path in OWN_PATHS:
        raise InvalidTable(f"counted: {counted.path} is answered by the gateway itself")
    if counted.method and not re.fullmatch(METHOD, counted.method):
        raise InvalidTable(f"counted: {counted.method!r} is not a method such as POST")
    if owner(counted, routes) is None:
        raise InvalidTable(f"counted: {counted.path} is within no route")


def _check_address(where: str, field: str, address: Address) -> None:
    if not re.fullmatch(HOST, address.host):
        raise InvalidTable(f"{where}: {field} has no valid host: {address.host!r}")
    if not 1 <= address.port <= 65535:
        raise InvalidTable(f"{where}: {field} has port {address.port}, which is not from 1 to 65535")
