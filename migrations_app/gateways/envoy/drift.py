"""Where what runs differs from what was applied, in sentences that name it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from migrations_app.gateways.base import Side
from migrations_app.gateways.envoy.bootstrap import FAILOVER, METADATA
from migrations_app.gateways.envoy.testers import hidden, is_tester, secrets

Json = dict[str, Any]

_MOST_SENTENCES = 20


def differences(
    *, clusters: dict[str, Json], routes: Json | None, wanted_clusters: dict[str, Json], wanted_routes: Json
) -> tuple[str, ...]:
    """Sentences, the most telling first; empty when the two are equal."""
    if clusters == wanted_clusters and routes == wanted_routes:
        return ()
    if known := secrets(routes) | secrets(wanted_routes):
        routes, wanted_routes = hidden(routes, known), hidden(wanted_routes, known)
    found = [*_routes(routes, wanted_routes), *_clusters(clusters, wanted_clusters)]
    if known and not found:
        found = ["the secret of testers runs as another one than was applied"]
    if len(found) > _MOST_SENTENCES:
        found[_MOST_SENTENCES:] = [f"and {len(found) - _MOST_SENTENCES} more differences"]
    return tuple(found)


def weights(routes: Json | None) -> dict[str, int]:
    """Flag -> per cent on the new side, read from where the routes really go. The first route of a flag decides."""
    found: dict[str, int] = {}
    for route in _listed(routes):
        flag = _dig(route, "metadata", "filter_metadata", METADATA, "flag")
        cluster = _dig(route, "route", "cluster")
        if isinstance(flag, str) and flag and isinstance(cluster, str):
            share = _share(route) if cluster.endswith((f".{Side.SERVICE}", f".{FAILOVER}")) else 0
            found.setdefault(flag, 100 if share is None else share)
    return found


def _routes(running: Json | None, wanted: Json) -> Iterator[str]:
    if running is None:
        yield "the gateway runs no route table of ours"
        return
    now, before = _by_prefix(running), _by_prefix(wanted)
    for prefix in before:
        if prefix not in now:
            yield f"route {prefix} is missing, applied was {_targets(before[prefix])}"
        elif (runs := _targets(now[prefix])) != (applied := _targets(before[prefix])):
            yield f"route {prefix} runs to {runs}, applied was {applied}"
        elif len(now[prefix]) != len(before[prefix]):
            yield f"route {prefix} runs as {len(now[prefix])} rules, applied were {len(before[prefix])}"
        else:
            for index, (one, other) in enumerate(zip(now[prefix], before[prefix], strict=True)):
                yield from _unequal(f"route {prefix} ({other.get('name', index)})", one, other)
    for prefix in now:
        if prefix not in before:
            yield f"route {prefix} runs to {_targets(now[prefix])}, applied was nothing"
    if list(now) != list(before) and set(now) == set(before):
        yield "the routes run in another order than was applied"
    yield from _unequal("the route table", _frame(running), _frame(wanted))


def _clusters(running: dict[str, Json], wanted: dict[str, Json]) -> Iterator[str]:
    for name, cluster in wanted.items():
        if name not in running:
            yield f"cluster {name} is missing"
        elif (runs := _address(running[name])) != (applied := _address(cluster)):
            yield f"cluster {name} runs to {runs}, applied was {applied}"
        else:
            yield from _unequal(f"cluster {name}", running[name], cluster)
    for name in running:
        if name not in wanted:
            yield f"cluster {name} runs but was not applied"


def _unequal(where: str, running: Any, wanted: Any, path: str = "") -> Iterator[str]:
    if running == wanted:
        return
    if isinstance(running, dict) and isinstance(wanted, dict):
        for key in sorted({*running, *wanted}):
            yield from _unequal(where, running.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif isinstance(running, list) and isinstance(wanted, list) and len(running) == len(wanted):
        for index, (one, other) in enumerate(zip(running, wanted, strict=True)):
            yield from _unequal(where, one, other, f"{path}[{index}]")
    else:
        yield f"{where}: {path} runs as {_short(running)}, applied was {_short(wanted)}"


def _listed(routes: Json | None) -> list[Json]:
    hosts = (routes or {}).get("virtual_hosts", [])
    return [route for host in hosts for route in host.get("routes", [])]


def _by_prefix(routes: Json) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for route in _listed(routes):
        match = route.get("match", {})
        prefix = next((match[key] for key in ("path_separated_prefix", "prefix", "path") if key in match), "?")
        found.setdefault(str(prefix), []).append(route)
    return found


def _targets(routes: list[Json]) -> str:
    """Where the routes of one prefix go, in order: `30 % auth.service, auth.monolith`."""
    found: list[str] = []
    for route in (route for route in routes if not is_tester(route)):
        cluster = _dig(route, "route", "cluster")
        target = (
            str(cluster) if cluster else next((key for key in ("direct_response", "redirect") if key in route), "?")
        )
        share = _share(route)
        found.append(target if share is None else f"{share} % {target}")
    return ", ".join(dict.fromkeys(found))


def _share(route: Json) -> int | None:
    """Per cent of the requests that it matches, None for all that are left by the routes before it."""
    share = _dig(route, "match", "runtime_fraction")
    if isinstance(share, dict):
        return int(_dig(share, "default_value", "numerator") or 0)
    ranges = [header["range_match"] for header in _dig(route, "match", "headers") or [] if "range_match" in header]
    return int(_dig(ranges[0], "end") or 0) if ranges else None


def _address(cluster: Json) -> str:
    endpoints = _dig(cluster, "load_assignment", "endpoints") or []
    found = [
        _dig(endpoint, "endpoint", "address", "socket_address")
        for group in endpoints
        for endpoint in group.get("lb_endpoints", [])
    ]
    return ", ".join(f"{one.get('address')}:{one.get('port_value')}" for one in found if isinstance(one, dict))


def _frame(routes: Json) -> Json:
    hosts = [{key: value for key, value in host.items() if key != "routes"} for host in routes.get("virtual_hosts", [])]
    return {**routes, "virtual_hosts": hosts}


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
