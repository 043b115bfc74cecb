"""Envoy's static part: the listener, the admin port, the access log, and where the dynamic files are. Pure.

Only what needs a restart to change is in here. Clusters and routes come from files (`render`), each kind from a folder
of its own: Envoy watches whole folders, and in a shared one any rename would reload both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrations_app.gateways.base import LATENCY_BOUNDS
from migrations_app.gateways.envoy import sticky
from migrations_app.gateways.tables import OWN_HEADERS

CDS_FILE = "cds/cds.json"
RDS_FILE = "rds/rds.json"
BOOTSTRAP_FILE = "bootstrap.json"
ACCESS_LOG = "access.log"
ROUTE_TABLE = "gateway"  # the name of the route configuration and the prefix of the listener's counters
METADATA = "switchyard"  # the key of our own metadata on routes
FAILOVER = "failover"  # the listener inside Envoy that asks the monolith, and the cluster that leads to it
ROUTE_STATS = "vhost.gateway.route."  # how the names of the statistics of our routes begin
ZONE_STATS = f".{FAILOVER}.zone.{ROUTE_TABLE}."  # within those of the cluster that is either side of a service
# Envoy tells nothing of what is above its last bound, so there is one that no request reaches: eleven days.
LATENCY_BUCKETS = (*LATENCY_BOUNDS, 1_000_000_000)

RETRY_UNSENT = "connect-failure,refused-stream,reset-before-request"  # safe for all methods: nothing was sent yet

_V3 = "type.googleapis.com/envoy.extensions"
_MAX_CONNECTIONS = 50_000
_MAX_HEAP = 1_073_741_824  # bytes: near it the gateway no longer waits for those who keep it waiting
_LEAST_IDLE = "10s"
_BUFFER = 1_048_576  # bytes kept of each request and each answer while the other end does not take them
_ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_V3}.filters.http.router.v3.Router"}}
_UPGRADES = [{"upgrade_type": "websocket"}]
_SIDE_TAG = r"^(?:cluster|vhost\.[^.]+\.route)\.[^.]+\.((monolith|service|failover|testers)\.)"
# Statistics whose response times are counted by our bounds: those of routes, and of both members of a failover.
_TIMED = r"vhost\.gateway\.route\..*|cluster\.[^.]+\.failover\.zone\..*"

# In Lua, because Envoy's own filters may not set a path. The header is Envoy's: one that a client sends is removed.
_RESTORE_PATH = """
function envoy_on_request(request)
  local headers = request:headers()
  local path = headers:get("x-envoy-original-path")
  if path then
    headers:replace(":path", path)
    headers:remove("x-envoy-original-path")
  end
end
"""


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """Where Envoy listens. `seen_by_envoy` is the gateway's folder as Envoy sees it, if that differs (a container)."""

    port: int
    admin_port: int
    bind: str = "127.0.0.1"
    admin_bind: str = "127.0.0.1"
    node: str = "gateway"
    seen_by_envoy: Path | None = None


def render_bootstrap(folder: Path, options: BootstrapOptions) -> bytes:
    """The bootstrap file as JSON, for an Envoy whose dynamic files are in `folder`."""
    seen = (options.seen_by_envoy or folder).absolute()
    bootstrap = {
        # Envoy counts apart what was answered from another zone: the zones of upstreams are their sides.
        "node": {"id": options.node, "cluster": "switchyard", "locality": {"zone": ROUTE_TABLE}},
        "admin": {
            "address": _socket(options.admin_bind, options.admin_port),
            # Reading only: nobody stops or drains the gateway through this port.
            "allow_paths": [
                {"exact": "/ready"},
                {"exact": "/server_info"},
                {"exact": "/reopen_logs"},
                {"prefix": "/stats"},
                {"prefix": "/config_dump"},
                {"prefix": "/clusters"},
            ],
            "ignore_global_conn_limit": True,
        },
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {"@type": f"{_V3}.bootstrap.internal_listener.v3.InternalListener"},
            }
        ],
        "stats_flush_interval": "1s",
        "stats_config": {
            # `cluster.auth.service.x` becomes metric `cluster_x` with labels for the cluster and the side.
            "stats_tags": [
                {"tag_name": "side", "regex": _SIDE_TAG},
            ],
            "histogram_bucket_settings": [
                {"match": {"safe_regex": {"regex": _TIMED}}, "buckets": list(LATENCY_BUCKETS)}
            ],
        },
        "overload_manager": _overload_manager(),
        "dynamic_resources": {"cds_config": _watched(seen, CDS_FILE)},
        "static_resources": {
            "listeners": [
                {
                    "name": "gateway",
                    "address": _socket(options.bind, options.port),
                    "per_connection_buffer_limit_bytes": _BUFFER,
                    "filter_chains": [{"filters": [_connection_manager(seen)]}],
                },
                {
                    "name": FAILOVER,
                    "internal_listener": {},
                    "per_connection_buffer_limit_bytes": _BUFFER,
                    "filter_chains": [{"filters": [_failover_manager()]}],
                },
            ]
        },
    }
    return json.dumps(bootstrap, indent=1).encode()


def _overload_manager() -> dict[str, Any]:
    """Nothing in here refuses a request: /routing-status has to answer, or a rollback could not be confirmed. What does
    not move is given up sooner instead. (Envoy resets its largest requests by itself for HTTP/2 alone.)
    """
    heap = "envoy.resource_monitors.fixed_heap"
    scaled = {"scaling_threshold": 0.8, "saturation_threshold": 0.95}
    return {
        "refresh_interval": "0.250s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{_V3}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": _MAX_CONNECTIONS,
                },
            },
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{_V3}.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": _MAX_HEAP,
                },
            },
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [{"name": heap, "scaled": scaled}],
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                    "timer_scale_factors": [
                        {"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_timeout": _LEAST_IDLE},
                        {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": _LEAST_IDLE},
                    ],
                },
            },
            {
                "name": "envoy.overload_actions.shrink_heap",
                "triggers": [{"name": heap, "threshold": {"value": 0.8}}],
            },
        ],
    }


def _connection_manager(seen: Path) -> dict[str, Any]:
    return {
        "name": "http",
        "typed_config": {
            "@type": f"{_V3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": ROUTE_TABLE,
            "use_remote_address": True,
            "always_set_request_id_in_response": True,
            "server_header_transformation": "PASS_THROUGH",
            "early_header_mutation_extensions": [
                {
                    "name": "hygiene",
                    "typed_config": {
                        "@type": f"{_V3}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                        "mutations": [
                            {
                                "remove_on_match": {
                                    "key_matcher": {"safe_regex": {"regex": pattern}, "ignore_case": False}
                                }
                            }
                            for pattern in OWN_HEADERS
                        ],
                    },
                }
            ],
            # `/api//auth`, `/api/x/../auth`, `/api/%61uth` and `/api%2Fauth` must not slip past a prefix.
            "normalize_path": True,
            "merge_slashes": True,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
            "common_http_protocol_options": {"idle_timeout": "300s"},
            "request_headers_timeout": "10s",
            "upgrade_configs": _UPGRADES,
            "rds": {"route_config_name": ROUTE_TABLE, "config_source": _watched(seen, RDS_FILE)},
            "access_log": [_access_log(seen)],
            "http_filters": [sticky.http_filter(), _ROUTER],
        },
    }


def _failover_manager() -> dict[str, Any]:
    """What was meant for a service that is down comes here, with the path that the service knows, and leaves for the
    monolith with the path that the client asked for. Only a request that fails over pays for this way.
    """
    retries = {"retry_on": RETRY_UNSENT, "num_retries": 1}
    route = {"cluster": "monolith", "timeout": "0s", "retry_policy": retries}
    monolith = {"match": {"prefix": "/"}, "route": route}
    return {
        "name": "http",
        "typed_config": {
            "@type": f"{_V3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": FAILOVER,
            "generate_request_id": False,
            # What the first listener has let in is let in here: its path comes twice, and Envoy has added headers.
            "max_request_headers_kb": 256,
            "common_http_protocol_options": {"max_headers_count": 200},
            "upgrade_configs": _UPGRADES,
            "server_header_transformation": "PASS_THROUGH",
            "route_config": {
                "virtual_hosts": [{"name": FAILOVER, "domains": ["*"], "routes": [monolith]}],
                "validate_clusters": False,  # it comes with the first table
            },
            "http_filters": [
                {
                    "name": "path",
                    "typed_config": {
                        "@type": f"{_V3}.filters.http.lua.v3.Lua",
                        "default_source_code": {"inline_string": _RESTORE_PATH},
                    },
                },
                _ROUTER,
            ],
        },
    }


def _access_log(seen: Path) -> dict[str, Any]:
    return {
        "name": "file",
        "typed_config": {
            "@type": f"{_V3}.access_loggers.file.v3.FileAccessLog",
            "path": str(seen / ACCESS_LOG),
            "log_format": {
                "json_format": {
                    "at": "%START_TIME%",
                    "method": "%REQ(:METHOD)%",
                    # Without its query, which may have what no log should: a token to set a password anew.
                    "path": "%PATH(NQ:ORIG_OR_PATH)%",
                    "status": "%RESPONSE_CODE%",
                    "flags": "%RESPONSE_FLAGS%",
                    "ms": "%DURATION%",
                    "bytes_in": "%BYTES_RECEIVED%",
                    "bytes_out": "%BYTES_SENT%",
                    "service": f"%METADATA(ROUTE:{METADATA}:service)%",
                    "side": f"%METADATA(ROUTE:{METADATA}:side)%",
                    "route": "%ROUTE_NAME%",
                    "upstream": "%UPSTREAM_HOST%",
                    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                }
            },
        },
    }


def _watched(seen: Path, name: str) -> dict[str, Any]:
    path = seen / name
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
    }


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
