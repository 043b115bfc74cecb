"""A routing table in Envoy's language: clusters (CDS) and routes (RDS) as JSON. Pure.

Everything is written in the exact form in which Envoy dumps it again (defaults left out, durations as `1.500s`), so
that what runs can be compared with what was asked for by plain equality.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from migrations_app.gateways import answers
from migrations_app.gateways.base import (
    MONOLITH_WEIGHT,
    SERVICE_WEIGHT,
    TESTER_HEADER,
    Address,
    Counted,
    Rendered,
    Route,
    RoutingTable,
    Side,
    Sticky,
    counted_apart,
)
from migrations_app.gateways.envoy import sticky as filters
from migrations_app.gateways.envoy import testers
from migrations_app.gateways.envoy.bootstrap import CDS_FILE, FAILOVER, METADATA, RDS_FILE, RETRY_UNSENT, ROUTE_TABLE
from migrations_app.gateways.errors import InvalidTable
from migrations_app.gateways.tables import check, longest_first, owner, stripped

Json = dict[str, Any]

STATUS_ROUTE = "own.routing-status"
REST = "rest"  # the route of what no other matches
VIRTUAL_HOST = "gateway"
SPLIT_EXAMPLE = 50  # per cent: stands for every weight between 0 and 100 where only the shape matters

_VARIANTS = (0, SPLIT_EXAMPLE, 100)
VARIANT_HOSTS: tuple[Json, ...] = tuple(  # of `every_variant`, without their routes
    {"name": f"{VIRTUAL_HOST}-{weight}", "domains": [f"{weight}.invalid"]} for weight in _VARIANTS
)
_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_V3 = "type.googleapis.com/envoy.extensions"
_MAX_BODY = 1048576  # bytes of an answer that the gateway gives by itself; Envoy's default is 4096
_REST_TIMEOUT = 60.0  # seconds, for what no route matches
_RETRY_READS = f"{RETRY_UNSENT},gateway-error,reset"
_FAIL_OVER_READS = f"{RETRY_UNSENT},5xx"  # the second try goes to the monolith, which may well do better
_READS: Json = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
_ONE_IS_ENOUGH = 100_000  # per cent: one address of a thousand counts as all of them
# Envoy's default of 3 concurrent retries turns a short outage into thousands of errors.
_CIRCUIT_BREAKERS: Json = {
    "thresholds": [{"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 1000}]
}


@dataclass(frozen=True, slots=True)
class EnvoyRendered(Rendered):
    """Rendered files together with the table they came from, from which the validator's variants are made."""

    table: RoutingTable


def render(table: RoutingTable) -> EnvoyRendered:
    """Cluster and route files of a table. Raises InvalidTable."""
    check(table)
    files = {CDS_FILE: cluster_file(clusters(table)), RDS_FILE: route_file(table.generation, route_config(table))}
    return EnvoyRendered(generation=table.generation, files=files, table=table)


def render_empty() -> Rendered:
    """What a gateway runs before any plan is loaded: generation 0, its own answers, and 503 for everything else."""
    refusal = {
        "name": REST,
        "match": {"prefix": "/"},
        "direct_response": {"status": 503, "body": {"inline_string": "no plan loaded yet\n"}},
    }
    config = _route_config([_virtual_host(VIRTUAL_HOST, "*", [*_own_routes(None), refusal])])
    return Rendered(generation=0, files={CDS_FILE: cluster_file([]), RDS_FILE: route_file(0, config)})


def cluster_file(resources: list[Json]) -> bytes:
    """The CDS file. Its version is a digest of its content, so a change of weight leaves the file as it is."""
    digest = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
    return _file(digest, resources)


def route_file(generation: int, config: Json) -> bytes:
    """The RDS file: each route on a line of its own, which the rollback scripts take apart with awk."""
    (host,) = config["virtual_hosts"]
    frame = config | {"virtual_hosts": [host | {"routes": []}]}
    lines = ",\n".join(_compact(route) for route in host["routes"])
    return _file(str(generation), [frame]).replace(b'"routes":[]', f'"routes":[\n{lines}\n]'.encode(), 1) + b"\n"


def clusters(table: RoutingTable) -> list[Json]:
    """Per service one cluster for its old and one for its new side, and `monolith` for what no route matches.

    The old sides share the monolith's address. They are separate so that counters are by service and side, and so
    that a change of weight changes routes alone. A third one has the new side and, when that is down, the monolith, by
    way of the cluster `failover`: see docs/decisions/0010-failover.md. It is there also for who does not use it: its
    counters must not begin anew when somebody does. Where there are testers, they have one more of the new side: what
    becomes of their requests tells nothing about what becomes of users'.
    """
    found = {"monolith": _cluster("monolith", table.monolith), FAILOVER: _way_to_the_monolith()}
    for route in table.routes:
        for side, address in ((Side.MONOLITH, table.monolith), (Side.SERVICE, route.upstream)):
            name = cluster_name(route.service, side)
            found[name] = _cluster(name, address, zone=side.value)
        name = failover_name(route.service)
        found[name] = _either(name, cluster_name(route.service, Side.SERVICE))
    for route in table.routes:
        if route.failover:
            found[cluster_name(route.service, Side.SERVICE)] |= _watched(route)
        if table.tester_secret:
            name = testers_name(route.service)
            found[name] = _cluster(name, route.upstream, zone=Side.SERVICE.value)
    return [found[name] for name in sorted(found)]


def cluster_name(service: str, side: Side) -> str:
    """`auth.monolith` or `auth.service`. Also the prefix of the counters of that service and side."""
    return f"{service}.{side.value}"


def failover_name(service: str) -> str:
    """`auth.failover`: the new side, or else the monolith."""
    return f"{service}.{FAILOVER}"


def testers_name(service: str) -> str:
    """`auth.testers`: the new side for testers. Also the prefix of the counters of their requests, to either side."""
    return f"{service}.testers"


def route_config(table: RoutingTable) -> Json:
    """The route configuration of a table: our own answers, then the longest prefix first, then the monolith."""
    return _route_config([_virtual_host(VIRTUAL_HOST, "*", _all_routes(table))])


def every_variant(table: RoutingTable) -> Json:
    """The table's route configuration with further hosts in which every route is all old, split and all new.

    Valid exactly when the table stays valid whatever weights it gets.
    """
    hosts = [_virtual_host(VIRTUAL_HOST, "*", _all_routes(table))]
    for weight, host in zip(_VARIANTS, VARIANT_HOSTS, strict=True):
        varied = replace(
            table, routes=tuple(replace(route, weight=weight, write_weight=None) for route in table.routes)
        )
        hosts.append(host | {"routes": _all_routes(varied)})
    return _route_config(hosts)


def old_side_rules(route: Route, table: RoutingTable) -> list[tuple[str, str]]:
    """Of a route of the table, which is at weight 0: each rule's name and its line in a route file, testers' apart.

    What is counted by itself within the route is among them. No comma ends a line.
    """
    return [(part["name"], _compact(part)) for part in _counted_parts(route, replace(table, tester_secret=""))]


def _all_routes(table: RoutingTable) -> list[Json]:
    rest = {
        "name": REST,
        "match": {"prefix": "/"},
        "route": {"cluster": "monolith", "timeout": _duration(_REST_TIMEOUT)},
        "metadata": _metadata(REST, "", Side.MONOLITH),
        "stat_prefix": REST,
    }
    return [
        *_own_routes(table),
        *(part for route in longest_first(table.routes) for part in _counted_parts(route, table)),
        rest,
    ]


def _counted_parts(route: Route, table: RoutingTable) -> list[Json]:
    """The parts of a route, after those of what is counted by itself within it, the most special first.

    These go where the route's own go, and say by themselves where that is: a flag's weight is read from its routes.
    """
    # Testers are not among what is counted: theirs come before all of the others.
    found, own = (_tester_parts(route, table.tester_secret) if table.tester_secret else []), None
    for one in counted_apart(table.counted):
        if owner(one, table.routes) != route:
            continue
        if one == Counted(route.prefix):
            own = one
            continue
        within = replace(route, prefix=one.path)
        for part in _parts(within, table):
            if one.method and not _of_method(part, one.method):
                continue
            part["stat_prefix"] += f".{counted_name(one)}"
            part["metadata"] = _metadata(route.service, "", Side(_side_of(part)))
            found.append(part)
    for part in _parts(route, table):
        if own:
            part["stat_prefix"] += f".{counted_name(own)}"
        found.append(part)
    return found


def _of_method(part: Json, method: str) -> bool:
    """Make a part that takes this method among others take it alone; False for one that does not take it."""
    headers = part["match"].get("headers", [])
    reads = any(header == _READS for header in headers)
    if reads != (method in {"GET", "HEAD"}):
        return False
    exact = {"name": ":method", "string_match": {"exact": method}}
    part["match"] |= {"headers": [exact, *(header for header in headers if header != _READS)]}
    part["name"] += f":{method}"
    return True


def _side_of(part: Json) -> str:
    return str(part["metadata"]["filter_metadata"][METADATA]["side"])


def counted_name(counted: Counted) -> str:
    """As a part of the names of counters, which have no '/' and no second dot in a part: `_2fapi_2fauth`."""
    return re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):02x}", str(counted))


def counted_of(name: str) -> Counted:
    """What `counted_name` names so."""
    text = re.sub(r"_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)
    method, _, path = text.rpartition(" ")
    return Counted(path, method)


def _parts(route: Route, table: RoutingTable) -> list[Json]:
    """The Envoy routes of one prefix, in order of matching.

    A split is two alternatives, the first of which takes its share at random: each side can then rewrite the path in
    its own way. Reads come apart from writes: only reads may be sent twice, and they may have another weight.
    """
    found = []
    for reads, weight in ((True, route.weight), (False, route.writes)):
        if table.sticky is None or weight in {MONOLITH_WEIGHT, SERVICE_WEIGHT}:
            found += [_part(route, side, share, reads=reads) for side, share in _choices(weight)]
        else:
            found += _sticky_parts(route, table.sticky, weight, reads=reads)
    return found


def _tester_parts(route: Route, secret: str) -> list[Json]:
    """For either side, whatever the weight. The new side's own errors are seen: nobody answers in its place."""
    name, alone = testers_name(route.service), replace(route, failover=False)
    found = []
    for side in Side:
        for reads in (True, False):
            part = testers.forced(_part(alone, side, None, reads=reads), side, secret) | {"stat_prefix": name}
            if side is Side.SERVICE:
                part["route"] = part["route"] | {"cluster": name}
            found.append(part)
    return found


def _sticky_parts(route: Route, sticky: Sticky, weight: int, *, reads: bool) -> list[Json]:
    """First who has a number below the weight, then of those without a number the same share at random, then the rest.

    A request matches one of the last two at first, which gives it its number, if it can have one, and is matched anew.
    """
    known = _part(route, Side.SERVICE, None, reads=reads)
    known["name"] += ":known"
    known["match"].setdefault("headers", []).append(filters.below(weight))
    unknown = _part(route, Side.SERVICE, weight, reads=reads)
    unknown["match"].setdefault("headers", []).append(filters.without_number())
    rest = _part(route, Side.MONOLITH, None, reads=reads)
    return [known, *(part | {"typed_per_filter_config": filters.per_route(sticky)} for part in (unknown, rest))]


def _choices(weight: int) -> list[tuple[Side, int | None]]:
    """Sides in order of matching, each with the share that it takes: None for all that is left."""
    if weight == MONOLITH_WEIGHT:
        return [(Side.MONOLITH, None)]
    if weight == SERVICE_WEIGHT:
        return [(Side.SERVICE, None)]
    return [(Side.SERVICE, weight), (Side.MONOLITH, None)]


def _part(route: Route, side: Side, share: int | None, *, reads: bool) -> Json:
    match: Json = {"prefix": "/"} if route.prefix == "/" else {"path_separated_prefix": route.prefix}
    if reads:
        match["headers"] = [_READS]
    if share is not None:
        match["runtime_fraction"] = {"default_value": {"numerator": share}}
    fails_over = side is Side.SERVICE and route.failover
    cluster = failover_name(route.service) if fails_over else cluster_name(route.service, side)
    action: Json = {"cluster": cluster, "timeout": _duration(route.timeout)}
    if side is Side.SERVICE and route.strip:
        action |= _rewrite(route)
    action["retry_policy"] = _retries(route, reads=reads, fails_over=fails_over)
    return {
        "name": f"{cluster_name(route.service, side)}:{route.prefix}:{'reads' if reads else 'writes'}",
        "match": match,
        "route": action,
        "metadata": _metadata(route.service, route.flag, side),
        "stat_prefix": cluster,
    }


def _retries(route: Route, *, reads: bool, fails_over: bool) -> Json:
    policy: Json = {
        "retry_on": (_FAIL_OVER_READS if fails_over else _RETRY_READS) if reads else RETRY_UNSENT,
        "num_retries": 1,
        "retry_back_off": {"base_interval": "0.005s"},
    }
    if fails_over:
        name = "envoy.retry_priorities.previous_priorities"
        config = {"@type": f"{_V3}.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"}
        policy["retry_priority"] = {"name": name, "typed_config": config | {"update_frequency": 1}}
    if reads:
        # A read that hangs is tried again while there is time left for it; a write may not be sent twice.
        policy["per_try_timeout"] = _duration(route.timeout * (1 / 3 if fails_over else 2 / 3))
    return policy


def _rewrite(route: Route) -> Json:
    if rest := stripped(route):
        return {"prefix_rewrite": rest}
    # Nothing is left of the prefix: `/api/x` -> `/x` and `/api` -> `/`, which a plain prefix rewrite cannot both do.
    return {"regex_rewrite": {"pattern": {"regex": f"^{re.escape(route.prefix)}/*"}, "substitution": "/"}}


def _own_routes(table: RoutingTable | None) -> list[Json]:
    return [
        _own("own.health", "/health", answers.health(table)),
        _own(STATUS_ROUTE, "/routing-status", answers.routing_status(table)),
        _own("own.discovery", "/services/discovery", answers.discovery(table)),
    ]


def _own(name: str, path: str, body: str) -> Json:
    if len(body.encode()) > _MAX_BODY:
        raise InvalidTable(f"{path} would be {len(body.encode())} bytes long, the gateway answers at most {_MAX_BODY}")
    return {
        "name": name,
        "match": {"path": path},
        "direct_response": {"status": 200, "body": {"inline_string": body}},
        "response_headers_to_add": [
            {
                "header": {"key": key, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for key, value in (("content-type", "application/json"), ("cache-control", "no-store"))
        ],
    }


def _route_config(hosts: list[Json]) -> Json:
    return {
        "@type": _ROUTES,
        "name": ROUTE_TABLE,
        "virtual_hosts": hosts,
        "request_headers_to_remove": [filters.BUCKET_HEADER, TESTER_HEADER],
        "response_headers_to_remove": ["server", "x-powered-by", "x-envoy-upstream-service-time"],
        "validate_clusters": True,
        "max_direct_response_body_size_bytes": _MAX_BODY,
    }


def _virtual_host(name: str, domain: str, routes: list[Json]) -> Json:
    return {"name": name, "domains": [domain], "routes": routes}


def _cluster(name: str, address: Address, *, zone: str = Side.MONOLITH.value) -> Json:
    try:
        ipaddress.ip_address(address.host)
        kind: Json = {"type": "STATIC"}
    except ValueError:
        # Many servers listen on IPv4 alone, and Envoy would take `localhost` for ::1.
        kind = {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}
    endpoint = {"address": {"socket_address": {"address": address.host, "port_value": address.port}}}
    return {
        "@type": _CLUSTER,
        "name": name,
        **kind,
        "connect_timeout": "1s",
        "circuit_breakers": _CIRCUIT_BREAKERS,
        "load_assignment": _assignment(name, endpoint, zone=zone),
    }


def _assignment(name: str, endpoint: Json, *, zone: str) -> Json:
    """One endpoint. Its zone tells it apart in the statistics of a cluster that has several.

    A name may have several addresses. Those that answer take all, however few they are: Envoy's default sends part to
    the next in line, which is the monolith, as soon as fewer than five of seven do.
    """
    return {
        "cluster_name": name,
        "endpoints": [{"locality": {"zone": zone}, "lb_endpoints": [{"endpoint": endpoint}]}],
        "policy": {"overprovisioning_factor": _ONE_IS_ENOUGH},
    }


def _watched(route: Route) -> Json:
    """How Envoy learns that a service is down: from its requests, and from asking it.

    Any answer to the question within 2 s will do: slow is not down. Whether it is a good one is for the control plane:
    a service whose health page says 503 while it serves must not lose its traffic unseen. A service that has had no
    request since Envoy started is asked every 5 s while it answers, and every second while it does not, so that a flip
    finds it as it is.
    """
    return {
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "0.500s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {
                    "path": route.health_path,
                    "expected_statuses": [{"start": "100", "end": "600"}],
                },
                "no_traffic_interval": "1s",
                "no_traffic_healthy_interval": "5s",
            }
        ],
        "outlier_detection": {
            "consecutive_5xx": 5,
            "interval": "0.500s",
            "base_ejection_time": "2s",
            "max_ejection_percent": 100,
            "enforcing_consecutive_gateway_failure": 0,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "max_ejection_time": "10s",
            "successful_active_health_check_uneject_host": False,
        },
    }


def _either(name: str, first: str) -> Json:
    kind = {"@type": f"{_V3}.clusters.aggregate.v3.ClusterConfig", "clusters": [first, FAILOVER]}
    return {
        "@type": _CLUSTER,
        "name": name,
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _CIRCUIT_BREAKERS,
        "common_lb_config": {"healthy_panic_threshold": {}},
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": kind},
    }


def _way_to_the_monolith() -> Json:
    """Through the listener of the same name."""
    endpoint = {"address": {"envoy_internal_address": {"server_listener_name": FAILOVER}}}
    return {
        "@type": _CLUSTER,
        "name": FAILOVER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _CIRCUIT_BREAKERS,
        "load_assignment": _assignment(FAILOVER, endpoint, zone=FAILOVER),
    }


def _metadata(service: str, flag: str, side: Side) -> Json:
    return {"filter_metadata": {METADATA: {"service": service, "flag": flag, "side": side.value}}}


def _duration(seconds: float) -> str:
    """Seconds as protobuf's JSON writes them: no fraction, or three digits of it."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    return f"{whole}.{rest:03d}s" if rest else f"{whole}s"


def _file(version: str, resources: list[Json]) -> bytes:
    return _compact({"version_info": version, "resources": resources}).encode()


def _compact(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))
