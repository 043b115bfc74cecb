"""Which services Envoy sends no requests to at present, and why. Pure."""

from __future__ import annotations

from typing import Any

from migrations_app.gateways.base import Side
from migrations_app.gateways.envoy.bootstrap import FAILOVER
from migrations_app.gateways.envoy.render import cluster_name
from migrations_app.gateways.envoy.testers import is_tester

Json = dict[str, Any]

_NO_ADDRESS = "its name resolves to no address"
_NO_ANSWER = "it does not answer when the gateway asks for its health"
_EJECTED = "several requests in a row got no answer from it, or one of 5xx; it is tried again within 10 s"


def failing_over(routes: Json | None, clusters: list[Json]) -> dict[str, str]:
    """Service key -> why. `routes` and the statuses of `clusters` in the form in which Envoy tells them.

    Services that no request is meant for are left out.
    """
    statuses = {cluster.get("name"): cluster.get("host_statuses", []) for cluster in clusters}
    found = {}
    for service in sorted(_with_failover(routes)):
        hosts = [host.get("health_status", {}) for host in statuses.get(cluster_name(service, Side.SERVICE), [])]
        if not hosts:
            found[service] = _NO_ADDRESS
        elif all(_away(host) for host in hosts):
            told = [
                reason
                for reason, field in ((_NO_ANSWER, "failed_active_health_check"), (_EJECTED, "failed_outlier_check"))
                if any(host.get(field) for host in hosts)
            ]
            found[service] = "; ".join(told)
    return found


def _away(host: Json) -> bool:
    return bool(host.get("failed_active_health_check") or host.get("failed_outlier_check"))


def _with_failover(routes: Json | None) -> set[str]:
    targets = {
        route.get("route", {}).get("cluster", "")
        for host in (routes or {}).get("virtual_hosts", [])
        for route in host.get("routes", [])
        if not is_tester(route)
    }
    return {target.removesuffix(f".{FAILOVER}") for target in targets if target.endswith(f".{FAILOVER}")}
