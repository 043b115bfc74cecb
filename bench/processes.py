"""The processes that are measured, started and ended so that none is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.upstreams import MONOLITH
from controlplane.embedded import children
from controlplane.embedded.children import port_is_free, wait_until
from controlplane.environment import REPOSITORY, Ports
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.reader import read_path
from migrations_app.planfile.schema import Plan

PLAN = REPOSITORY / "plans" / "tracseq-phase2.yaml"
HOST = "127.0.0.1"


class NotMeasured(Exception):
    """The benchmark cannot run; the message is one sentence that says why."""


@dataclass(frozen=True)
class Target:
    """One service of the plan: its path prefix, flag and address."""

    key: str
    prefix: str
    flag: str
    address: str


def port_offset() -> int:
    """An offset at which every port of an installation is free, below the ports that outgoing connections take."""
    for _ in range(200):
        offset = random.randrange(11_000, 21_000)
        ports = Ports.from_environment({"PORT_OFFSET": str(offset)})
        wanted = (ports.dashboard, ports.gateway, ports.gateway_admin, ports.postgres, ports.redis, *ports.demo)
        if all(port_is_free(port) for port in wanted):
            return offset
    raise NotMeasured("no range of free ports was found")


def shipped_plan(offset: int) -> Plan:
    """The TracSeq plan with its ports moved."""
    return shift_ports(read_path(PLAN), offset)


def targets(plan: Plan) -> list[Target]:
    """Its services, one for each prefix."""
    return [
        Target(service.key, prefix, service.flag, service.upstream)
        for service in plan.services
        for prefix in service.routes
    ]


@contextmanager
def process(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, seconds: float = 4.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A child for the length of the block; then it is asked to end, and killed after `seconds`."""
    with log.open("ab") as output:
        child = children.start(command, output=output, env={**os.environ, **(env or {})}, cwd=REPOSITORY)
    try:
        yield child
    finally:
        children.stop(child, signal.SIGTERM, seconds=seconds)


def wait_for_port(port: int, child: subprocess.Popen[bytes], log: Path, *, seconds: float = 15.0) -> None:
    """Until something listens. Raises NotMeasured with the last words of the process."""

    def alive() -> bool:
        return child.poll() is None

    if not wait_until(lambda: listens(port), seconds=seconds, alive=alive, pause=0.005):
        raise NotMeasured(f"nothing listens on port {port}: {last_words(log)}")


def listens(port: int) -> bool:
    """Whether a connection is taken."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def last_words(log: Path) -> str:
    """The last lines of a log, on one line."""
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-5:]) or "it said nothing"


@contextmanager
def upstreams(plan: Plan, log: Path, *, without: Collection[str] = ()) -> Iterator[int]:
    """The monolith and every service of the plan on their ports, but those `without`. Yields the process id."""
    services = [one for one in plan.services if one.key not in without]
    servers = {port_of(plan.monolith.address): MONOLITH} | {port_of(one.upstream): one.key for one in services}
    command = [sys.executable, "-m", "bench.upstreams", *(f"{port}={name}" for port, name in servers.items())]
    with process(command, log) as child:
        for port in servers:
            wait_for_port(port, child, log)
        yield child.pid


def python_gateway_environment(plan: Plan, port: int, on: Sequence[str], *, workers: int = 1) -> dict[str, str]:
    """What the Python gateway is started with; `on` are the flags that are true."""
    routes = [(target.prefix, target.flag, target.address) for target in targets(plan)]
    return {
        "ROUTES": json.dumps(routes),
        "MONOLITH": plan.monolith.address,
        "PORT": str(port),
        "WORKERS": str(workers),
        **{target.flag: "true" if target.flag in on else "false" for target in targets(plan)},
    }


def port_of(address: str) -> int:
    """The port of `host:port`."""
    return int(address.rpartition(":")[2])
