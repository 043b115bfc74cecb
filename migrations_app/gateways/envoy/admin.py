"""What a running Envoy says about itself: its own answers on the data port, and its admin port."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from migrations_app.gateways.envoy.bootstrap import LATENCY_BUCKETS, ROUTE_TABLE
from migrations_app.gateways.errors import Unreachable

Json = dict[str, Any]
Stamps = list[tuple[str, str]]

_CLUSTERS = "/config_dump?resource=dynamic_active_clusters"
_ROUTES = "/config_dump?resource=dynamic_route_configs"
# When each part was last updated: a fifth of the cost of a whole dump. Envoy moves it with every accepted update only.
_STAMPS = "&mask=version_info,last_updated"
_REJECTED = r"^(cluster_manager\.cds|http\.gateway\.rds\.gateway)\.update_(rejected|failure)$"
_STATISTICS_TIMEOUT = 2.0  # seconds: no click waits for them, and those of hundreds of services take their time


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters by name, and histograms by name: counts by LATENCY_BUCKETS, empty for one with other bounds."""

    counters: dict[str, int]
    histograms: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Running:
    """The configuration that Envoy runs, in the form in which it dumps it. `routes` is None before any came in."""

    clusters: dict[str, Json] = field(default_factory=dict)
    routes: Json | None = None


class AdminClient:
    """Reads from one Envoy. Every method raises Unreachable, and nothing else, when it does not answer."""

    def __init__(self, *, gateway_url: str, admin_url: str, timeout: float) -> None:
        self.gateway_url = gateway_url.rstrip("/")
        self.admin_url = admin_url.rstrip("/")
        self._timeout = timeout
        self._guard = threading.Lock()
        self._clients: dict[int, httpx.Client] = {}  # by process: a connection must not be shared across a fork
        self._last_clusters: tuple[Stamps, dict[str, Json]] | None = None
        self._last_routes: tuple[Stamps, Json | None] | None = None

    def status(self) -> bytes:
        """The body of `/routing-status` from the data port."""
        return self._get(f"{self.gateway_url}/routing-status")

    def ready(self) -> bool:
        """Whether Envoy says that it serves."""
        return self._get(f"{self.admin_url}/ready").startswith(b"LIVE")

    def clusters(self) -> dict[str, Json]:
        """Active clusters by name."""
        stamps = _stamps(_configs(self._get(f"{self.admin_url}{_CLUSTERS}{_STAMPS}")))
        known = self._last_clusters
        if known is None or known[0] != stamps:
            entries = _configs(self._get(f"{self.admin_url}{_CLUSTERS}"))
            found = [entry["cluster"] for entry in entries if "cluster" in entry]
            known = self._last_clusters = (_stamps(entries), {cluster["name"]: cluster for cluster in found})
        return known[1]

    @property
    def last_clusters(self) -> dict[str, Json] | None:
        """What `clusters` found when it was last asked; asks nobody."""
        return self._last_clusters[1] if self._last_clusters else None

    @property
    def clusters_taken_at(self) -> float | None:
        """When Envoy last took clusters, in seconds since 1970, as `clusters` found it; None when nobody knows."""
        return _newest(self._last_clusters[0]) if self._last_clusters else None

    @property
    def routes_taken_at(self) -> float | None:
        """The same of routes, as `routes` found it."""
        return _newest(self._last_routes[0]) if self._last_routes else None

    def warming(self) -> dict[str, Json]:
        """Clusters that Envoy has taken but not begun to use, because their host name is not resolved yet."""
        entries = _configs(self._get(f"{self.admin_url}/config_dump?resource=dynamic_warming_clusters"))
        return {entry["cluster"]["name"]: entry["cluster"] for entry in entries if "cluster" in entry}

    def routes(self, *, changed: bool = False) -> Json | None:
        """Our route configuration, or None when Envoy has none yet. `changed` spares a question whose answer is yes."""
        known = None if changed else self._last_routes
        if known is None or known[0] != _stamps(_configs(self._get(f"{self.admin_url}{_ROUTES}{_STAMPS}"))):
            entries = _configs(self._get(f"{self.admin_url}{_ROUTES}"))
            found = [entry["route_config"] for entry in entries if "route_config" in entry]
            known = (_stamps(entries), next((config for config in found if config.get("name") == ROUTE_TABLE), None))
            self._last_routes = known
        return known[1]

    def cluster_statuses(self) -> list[Json]:
        """What Envoy thinks of the hosts of each cluster."""
        url = f"{self.admin_url}/clusters"
        parsed = _parse(self._get(url, {"format": "json"}, _STATISTICS_TIMEOUT), "/clusters")
        return [status for status in parsed.get("cluster_statuses", []) if isinstance(status, dict)]

    def counters(self, pattern: str) -> dict[str, int]:
        """Counters whose full name matches the regular expression."""
        return self._stats({"type": "Counters", "filter": pattern}).counters

    def statistics(self, pattern: str) -> Statistics:
        """All whose full name matches the regular expression, in one question. Histograms are since Envoy started.

        Envoy brings histograms up to date once a second (`stats_flush_interval`), counters at once.
        """
        return self._stats({"histogram_buckets": "disjoint", "filter": pattern}, within=_STATISTICS_TIMEOUT)

    def rejections(self) -> int:
        """How many files Envoy has refused since it started."""
        return sum(self.counters(_REJECTED).values())

    def reopen_logs(self) -> None:
        """Ask Envoy to open its access log by name again. It does so with the next line that it writes."""
        url = f"{self.admin_url}/reopen_logs"
        self._answer(url, lambda client: client.post(url))

    def close(self) -> None:
        """Drop this process's connections."""
        with self._guard:
            client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _stats(self, asked: dict[str, str], *, within: float | None = None) -> Statistics:
        stats = _parse(self._get(f"{self.admin_url}/stats", {"format": "json"} | asked, within), "/stats")
        found = Statistics({}, {})
        try:
            for entry in stats.get("stats", []):
                if "value" in entry:
                    found.counters[entry["name"]] = int(entry["value"])
                for histogram in entry.get("histograms", []):
                    found.histograms[histogram["name"]] = _counts(histogram["buckets"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreachable(f"/stats of the gateway's admin port answers in an unknown form: {error!r}") from error
        return found

    def _get(self, url: str, params: dict[str, str] | None = None, within: float | None = None) -> bytes:
        timeout = self._timeout if within is None else within
        return self._answer(url, lambda client: client.get(url, params=params, timeout=timeout))

    def _answer(self, url: str, ask: Callable[[httpx.Client], httpx.Response]) -> bytes:
        for last_try in (False, True):
            try:
                response = ask(self._client())
                break
            except httpx.TransportError as error:
                # A kept connection of an Envoy that was restarted fails once; a fresh one tells the truth.
                if last_try or isinstance(error, httpx.TimeoutException | httpx.ConnectError):
                    raise Unreachable(f"the gateway does not answer at {url}: {_reason(error)}") from error
        if response.status_code != httpx.codes.OK:
            raise Unreachable(f"{url} answers {response.status_code}: {response.text[:200].strip()}")
        return response.content

    def _client(self) -> httpx.Client:
        with self._guard:
            client = self._clients.get(os.getpid())
            if client is None:
                # An empty TLS context: plain HTTP only, and loading the system's certificates costs 20 ms.
                client = httpx.Client(
                    timeout=self._timeout, trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                )
                self._clients = {os.getpid(): client}
            return client


def _counts(buckets: list[Json]) -> tuple[int, ...]:
    if tuple(bucket["upper_bound"] for bucket in buckets) != LATENCY_BUCKETS:
        return ()
    return tuple(int(bucket["cumulative"]) for bucket in buckets)


def _configs(raw: bytes) -> list[Json]:
    entries = _parse(raw, "/config_dump").get("configs", [])
    return [entry for entry in entries if isinstance(entry, dict)]


def _stamps(entries: list[Json]) -> Stamps:
    return [(entry.get("version_info", ""), entry.get("last_updated", "")) for entry in entries]


def _newest(stamps: Stamps) -> float | None:
    moments = []
    for _version, updated in stamps:
        with contextlib.suppress(ValueError):
            moments.append(datetime.fromisoformat(updated).timestamp())
    return max(moments, default=None)


def _parse(raw: bytes, what: str) -> Json:
    try:
        parsed = json.loads(raw)
    except ValueError as error:
        raise Unreachable(f"{what} of the gateway's admin port does not answer in JSON") from error
    if not isinstance(parsed, dict):
        raise Unreachable(f"{what} of the gateway's admin port does not answer with a JSON object")
    return parsed


def _reason(error: httpx.TransportError) -> str:
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
