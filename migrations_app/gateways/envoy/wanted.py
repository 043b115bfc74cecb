"""Rendered files as values, to compare with what runs. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from migrations_app.gateways.base import Side
from migrations_app.gateways.envoy import drift
from migrations_app.gateways.envoy.admin import Running
from migrations_app.gateways.envoy.bootstrap import CDS_FILE, METADATA, RDS_FILE
from migrations_app.gateways.envoy.render import STATUS_ROUTE
from migrations_app.gateways.envoy.testers import is_tester
from migrations_app.gateways.errors import Rejected

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the gateway should run: clusters by name, the route table, and the body that `/routing-status` then has.

    `needed` are the clusters that the routes go to. The others only lie ready: nothing waits for them, so that a
    rollback never waits for a new side whose name does not resolve. `on` are the flags that any request of is meant for
    the new side, testers' apart.
    """

    clusters: dict[str, Json]
    routes: Json
    status: bytes
    needed: frozenset[str]
    on: frozenset[str]

    def differences(self, running: Running, *, ignoring: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Sentences about what runs otherwise, leaving out the clusters named by `ignoring`."""
        return drift.differences(
            clusters={name: cluster for name, cluster in running.clusters.items() if name not in ignoring},
            routes=running.routes,
            wanted_clusters=self.clusters,
            wanted_routes=self.routes,
        )


def parse_files(files: Mapping[str, bytes]) -> Wanted:
    """Raises Rejected for files that are not a table of ours."""
    try:
        clusters = {cluster["name"]: cluster for cluster in json.loads(files[CDS_FILE])["resources"]}
        [routes] = json.loads(files[RDS_FILE])["resources"]
        rules = [route for host in routes["virtual_hosts"] for route in host["routes"]]
        [status] = [route for route in rules if route.get("name") == STATUS_ROUTE]
        body = status["direct_response"]["body"]["inline_string"].encode()
        # Nothing waits for a cluster that only testers are sent to.
        targets = {route["route"]["cluster"] for route in rules if "route" in route and not is_tester(route)}
        members = {one for name in targets for one in _members(clusters.get(name, {}))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Rejected(f"the rendered files are not a routing table of ours: {error!r}") from error
    return Wanted(clusters=clusters, routes=routes, status=body, needed=frozenset(targets | members), on=_on(rules))


def _on(rules: list[Json]) -> frozenset[str]:
    told = (rule.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {}) for rule in rules)
    return frozenset(one["flag"] for one in told if one.get("flag") and one.get("side") == Side.SERVICE)


def _members(cluster: Json) -> list[str]:
    """Of a cluster that stands for others."""
    found: list[str] = cluster["cluster_type"]["typed_config"]["clusters"] if "cluster_type" in cluster else []
    return found


def generation_of(status: bytes) -> int | None:
    """The generation in the body of a `/routing-status`, or None when it is not one of ours."""
    try:
        return int(json.loads(status)["generation"])
    except (ValueError, KeyError, TypeError):
        return None
