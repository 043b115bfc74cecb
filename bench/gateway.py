"""`python -m bench.gateway`: requests per second and latency of four gateways, in alternating rounds of one run.

- `switchyard`: the product's gateway: Envoy with the TracSeq table, every flag on, every feature on
- `python`: the kind of gateway that it replaces (`bench.gateway_python`)
- `bare`: Envoy with one route and nothing else
- `as_shipped`: the first one again, with the threads that `make up` and docker-compose.yml give it

The first three have as many workers; all have the same upstreams, the same client and as many connections. Ends with
one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from bench import envoys
from bench.figures import Machine, finish, median, percentile, ratio, rounded, say
from bench.hammer import hammer
from bench.load import Connection, Tally, encode
from bench.processes import (
    NotMeasured,
    port_offset,
    process,
    python_gateway_environment,
    shipped_plan,
    targets,
    upstreams,
    wait_for_port,
)
from controlplane.embedded.children import free_port
from migrations_app.gateways.envoy.start import THREADS
from migrations_app.planfile.schema import Plan

EXPECTED = {"requests_per_s_over_python": 25.0, "requests_per_s_over_bare": 0.6}  # on two shared cores


@dataclass
class Contender:
    """One gateway and its rounds. `cpu` is the processor time of its processes in microseconds for each request."""

    name: str
    port: int
    pid: int
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)

    def processor_seconds(self) -> float:
        whole = 0.0
        parent = psutil.Process(self.pid)
        for one in [parent, *parent.children(recursive=True)]:
            times = one.cpu_times()
            whole += times.user + times.system
        return whole

    def figures(self) -> dict[str, object]:
        return {
            "requests_per_s": rounded(median(self.rates)),
            "requests_per_s_lowest": rounded(min(self.rates)),
            "requests_per_s_highest": rounded(max(self.rates)),
            "p50_ms": rounded(median(self.p50)),
            "p99_ms": rounded(median(self.p99)),
            "gateway_cpu_us_per_request": rounded(median(self.cpu)),
            "lost": self.lost.total(),
        }


def measure(
    *, rounds: int, seconds: float, connections: int, workers: int, state: Path, warm_up: float = 0.5
) -> dict[str, object]:
    """The figures. `seconds` is the length of one round of one gateway. Raises NotMeasured."""
    plan = shipped_plan(port_offset())
    with contextlib.ExitStack() as running:
        running.enter_context(upstreams(plan, state / "upstreams.log"))
        contenders = _start(running, plan, workers, state)
        payloads = [
            encode("GET", f"{target.prefix}/items/{number}?page=1", headers=[("accept", "application/json")])
            for number in range(3)
            for target in targets(plan)
        ]
        shared = Machine()
        asyncio.run(_check_sides(contenders, payloads[0]))
        for one in contenders:
            uvloop.run(hammer(one.port, payloads, connections=connections, seconds=warm_up))
        for number in range(rounds):
            # Whoever else works on this machine meets all of them alike: they take turns, and the first one changes.
            turn = number % len(contenders)
            for one in [*contenders[turn:], *contenders[:turn]]:
                _round(one, payloads, connections, seconds)
            told = ", ".join(f"{one.name} {one.rates[-1]:,.0f}/s p99 {one.p99[-1]:.1f} ms" for one in contenders)
            say(f"round {number + 1} of {rounds}: {told}")
        others = shared.figures()
    return {
        "bench": "gateway",
        "rounds": rounds,
        "seconds_per_round": seconds,
        "connections": connections,
        "workers": workers,
        **{one.name: one.figures() for one in contenders},
        "ratios": _ratios(*contenders),
        "expected": EXPECTED,
        "machine": others,
    }


def _start(running: contextlib.ExitStack, plan: Plan, workers: int, state: Path) -> list[Contender]:
    own, own_process = running.enter_context(envoys.switchyard(plan, state / "switchyard", workers=workers))
    bare, bare_process = running.enter_context(envoys.bare(targets(plan)[0].address, state / "bare", workers=workers))
    shipped, shipped_process = running.enter_context(envoys.switchyard(plan, state / "as-shipped", workers=THREADS))
    return [
        Contender("switchyard", own, own_process.pid),
        _start_python(running, plan, workers, state),
        Contender("bare", bare, bare_process.pid),
        Contender("as_shipped", shipped, shipped_process.pid),
    ]


def _start_python(running: contextlib.ExitStack, plan: Plan, workers: int, state: Path) -> Contender:
    port, log = free_port(), state / "python.log"
    flags = [target.flag for target in targets(plan)]
    environment = python_gateway_environment(plan, port, flags, workers=workers)
    child: subprocess.Popen[bytes] = running.enter_context(
        process([sys.executable, "-m", "bench.gateway_python"], log, env=environment)
    )
    wait_for_port(port, child, log)
    return Contender("python", port, child.pid)


async def _check_sides(contenders: list[Contender], payload: bytes) -> None:
    """All must really forward, to the new side. Raises NotMeasured."""
    for one in contenders:
        connection = await Connection.to(one.port)
        answer = await connection.request(payload)
        connection.close()
        if (side := answer.header("x-side")) != "service":
            raise NotMeasured(f"{one.name} sends requests to {side or 'nobody'} and not to the service")


def _round(one: Contender, payloads: list[bytes], connections: int, seconds: float) -> None:
    before, begun = one.processor_seconds(), time.monotonic()
    tally: Tally = uvloop.run(hammer(one.port, payloads, connections=connections, seconds=seconds))
    spent = one.processor_seconds() - before
    one.rates.append(tally.answered / seconds)
    one.p50.append(percentile(tally.latencies, 0.5) * 1000)
    one.p99.append(percentile(tally.latencies, 0.99) * 1000)
    one.cpu.append(spent / max(1, tally.answered) * 1e6)
    one.lost += tally.lost
    assert time.monotonic() - begun >= seconds


def _ratios(own: Contender, python: Contender, bare: Contender, shipped: Contender) -> dict[str, float | None]:
    """Of medians: one disturbed round then changes nothing."""
    rate, tail = median(own.rates), median(own.p99)
    return {
        "requests_per_s_over_python": ratio(rate, median(python.rates)),
        "requests_per_s_over_bare": ratio(rate, median(bare.rates)),
        "as_shipped_over_python": ratio(median(shipped.rates), median(python.rates)),
        "p99_python_over_switchyard": ratio(median(python.p99), tail),
        "p99_switchyard_over_bare": ratio(tail, median(bare.p99)),
        "gateway_cpu_python_over_switchyard": ratio(median(python.cpu), median(own.cpu)),
        "gateway_cpu_switchyard_over_bare": ratio(median(own.cpu), median(bare.cpu)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it was measured, 1 when it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round, for each gateway")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1, help="threads of Envoy, processes of the Python gateway")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        try:
            figures = measure(
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
