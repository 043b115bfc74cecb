"""`python -m bench.flip`: from a click to its effect, and what is lost on the way, in one run.

- `switchyard`: a POST to the dashboard, until a request through the gateway is answered by the other side
- `restarted`: the same flip on a Python gateway (`bench.gateway_python`) that is ended and started with another flag

Both carry the same steady load meanwhile, and take turns in blocks. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.dashboard import Installation, Person, installation
from bench.figures import Machine, finish, ratio, say, spread, sync_ms
from bench.load import Answer, Connection, Lost, Tally, encode, pace
from bench.processes import NotMeasured, port_offset, python_gateway_environment, shipped_plan, upstreams
from controlplane.embedded import children
from controlplane.embedded.children import free_port
from controlplane.environment import REPOSITORY
from migrations_app.planfile.schema import Plan

FLAG, PREFIX = "USE_STORAGE_SERVICE", "/api/storage"
EXPECTED = {"effect_p50_ms": 40.0, "effect_p99_ms": 150.0, "lost": 0}  # on two shared cores
PROBE_EVERY = 0.002  # seconds; half of this is the mean error of every time to effect, always upwards
BACKGROUND = 4  # further connections
BACKGROUND_EVERY = 0.04  # seconds between the requests of each
EFFECT_WITHIN = 15.0  # seconds
SIDES = {"enable": "service", "rollback": "monolith"}


@dataclass
class Figures:
    """What was seen of one gateway. Milliseconds."""

    effect: dict[str, list[float]] = field(default_factory=lambda: {"enable": [], "rollback": []})
    answered: list[float] = field(default_factory=list)
    said: list[float] = field(default_factory=list)
    outage: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)
    unconfirmed: int = 0
    tally: Tally = field(default_factory=Tally)

    def all_effects(self) -> list[float]:
        return [*self.effect["enable"], *self.effect["rollback"]]


class Watch:
    """What the probe saw: when each side answered."""

    def __init__(self) -> None:
        self._wanted = ""
        self._after = 0.0
        self._found: asyncio.Future[float] | None = None
        self.side = ""
        self.last = 0.0  # of the last answer
        self.longest_gap = 0.0  # seconds without an answer

    def take(self, answer: Answer) -> None:
        self.side = answer.header("x-side")
        if self.last:
            self.longest_gap = max(self.longest_gap, answer.received - self.last)
        self.last = answer.received
        found = self._found
        if found is not None and not found.done() and self.side == self._wanted and answer.received >= self._after:
            found.set_result(answer.received)

    def expect(self, side: str) -> asyncio.Future[float]:
        """The moment at which this side first has answered, from now on."""
        self._wanted, self._after = side, time.monotonic()
        self.longest_gap = 0.0
        self._found = asyncio.get_running_loop().create_future()
        return self._found


@contextlib.asynccontextmanager
async def load(port: int, tally: Tally) -> AsyncIterator[Watch]:
    """The probe and the background load on a gateway; every request of both is in the tally."""
    stop, watch = asyncio.Event(), Watch()
    probe = [encode("GET", f"{PREFIX}/locations")]
    background = [
        encode("GET", "/api/samples?page=2"),
        encode("POST", f"{PREFIX}/locations", body=b"x" * 20_000, headers=[("content-type", "text/plain")]),
        encode("GET", "/api/notifications"),
        encode("POST", "/api/rag/search", body=b"{}", headers=[("content-type", "application/json")]),
    ]
    tasks = [asyncio.create_task(pace(port, probe, every=PROBE_EVERY, stop=stop, tally=tally, seen=watch.take))]
    for number in range(BACKGROUND):
        turned = [*background[number:], *background[:number]]
        tasks.append(asyncio.create_task(pace(port, turned, every=BACKGROUND_EVERY, stop=stop, tally=tally)))
    try:
        yield watch
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def flip(figures: Figures, watch: Watch, verb: str, act: Callable[[], Awaitable[float]]) -> None:
    """One flip: `act` does it and returns the moment of the click. Raises NotMeasured when it has no effect."""
    side = SIDES[verb]
    if watch.side == side:
        raise NotMeasured(f"the {side} serves {PREFIX} already, before the flip")
    found = watch.expect(side)
    began = await act()
    try:
        effect = await asyncio.wait_for(found, EFFECT_WITHIN)
    except TimeoutError:
        raise NotMeasured(f"{PREFIX} was not served by the {side} within {EFFECT_WITHIN:g} s") from None
    figures.effect[verb].append((effect - began) * 1000)


async def settle(watch: Watch, shortest: float) -> None:
    """A pause of random length, so that no flip keeps step with the beat of once a second."""
    await asyncio.sleep(shortest + random.random() * 0.4)
    if not watch.last:
        raise NotMeasured("the gateway does not answer the probe")


async def flip_by_click(person: Person, port: int, figures: Figures, flips: int, *, disk: Path) -> None:
    async with load(port, figures.tally) as watch:
        await settle(watch, 0.3)
        for _ in range(flips):
            verb = "enable" if watch.side == "monolith" else "rollback"

            async def click(verb: str = verb) -> float:
                done = await person.click(FLAG, verb)
                figures.answered.append((done.answered - done.clicked) * 1000)
                figures.unconfirmed += not done.confirmed
                if done.said_ms is not None:
                    figures.said.append(done.said_ms)
                return done.clicked

            await flip(figures, watch, verb, click)
            await settle(watch, 0.2)
            figures.disk.append(await asyncio.to_thread(sync_ms, disk))


class RestartedGateway:
    """The Python gateway. To flip is to end it in good order and to start it with another environment."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self._plan, self._log, self.port = plan, log, free_port()
        self._process = self._start("monolith")

    async def to(self, side: str) -> float:
        """Returns the moment at which it began. Ends when the new process has been started, not when it serves."""
        began = time.monotonic()
        children.signal_process(self._process, signal.SIGTERM)
        while self._process.poll() is None:
            await asyncio.sleep(0.001)
        self._process = self._start(side)
        return began

    async def wait(self) -> None:
        """Until it serves."""
        for _ in range(1000):
            with contextlib.suppress(Lost):
                (await Connection.to(self.port)).close()
                return
            await asyncio.sleep(0.01)
        raise NotMeasured("the Python gateway does not start")

    def close(self) -> None:
        children.stop(self._process)

    def _start(self, side: str) -> subprocess.Popen[bytes]:
        on = [FLAG] if side == "service" else []
        environment = {**os.environ, **python_gateway_environment(self._plan, self.port, on)}
        with self._log.open("ab") as output:
            return children.start(
                [sys.executable, "-m", "bench.gateway_python"], output=output, env=environment, cwd=REPOSITORY
            )


async def flip_by_restart(gateway: RestartedGateway, figures: Figures, flips: int) -> None:
    async with load(gateway.port, figures.tally) as watch:
        await settle(watch, 0.5)
        for _ in range(flips):
            verb = "enable" if watch.side == "monolith" else "rollback"
            await flip(figures, watch, verb, lambda verb=verb: gateway.to(SIDES[verb]))  # type: ignore[misc]
            figures.outage.append(watch.longest_gap * 1000)
            await settle(watch, 0.5)


async def measure(
    it: Installation, plan: Plan, *, flips: int, restarts: int, blocks: int, log: Path
) -> dict[str, object]:
    """The figures of a run of `blocks` blocks, over which the flips and the restarts are spread."""
    own, restarted, shared = Figures(), Figures(), Machine()
    person, gateway = Person(it.ports.dashboard), RestartedGateway(plan, log)
    try:
        await person.sign_in(it.password)
        await gateway.wait()
        for number in range(blocks):
            await flip_by_click(
                person, it.ports.gateway, own, _share(flips, blocks, number), disk=log.with_suffix(".disk")
            )
            await flip_by_restart(gateway, restarted, _share(restarts, blocks, number))
            say(f"block {number + 1} of {blocks}: click to effect {_told(own)}; restart to effect {_told(restarted)}")
        others = shared.figures()
    finally:
        gateway.close()
        await person.close()
    return _report(own, restarted, others)


def _share(whole: int, blocks: int, number: int) -> int:
    return whole * (number + 1) // blocks - whole * number // blocks


def _told(figures: Figures) -> str:
    times = spread(figures.all_effects())
    return f"p50 {times['p50']} p99 {times['p99']} ms, {figures.tally.lost.total()} lost"


def _report(own: Figures, restarted: Figures, others: dict[str, object]) -> dict[str, object]:
    clicks, restarts = own.all_effects(), restarted.all_effects()
    own_times, restarted_times = spread(clicks), spread(restarts)
    return {
        "bench": "flip",
        "switchyard": {
            "flips": len(clicks),
            "effect_ms": own_times,
            "enable_effect_ms": spread(own.effect["enable"]),
            "rollback_effect_ms": spread(own.effect["rollback"]),
            "answer_ms": spread(own.answered),
            "said_ms": spread(own.said),
            "unconfirmed": own.unconfirmed,
            **_requests(own),
        },
        "restarted": {
            "flips": len(restarts),
            "effect_ms": restarted_times,
            "outage_ms": spread(restarted.outage),
            **_requests(restarted),
        },
        "ratios": {
            "effect_p50_restarted_over_switchyard": ratio(restarted_times["p50"] or 0, own_times["p50"] or 0),
            "effect_p99_restarted_over_switchyard": ratio(restarted_times["p99"] or 0, own_times["p99"] or 0),
            "lost_per_flip_switchyard": ratio(own.tally.lost.total(), len(clicks)),
            "lost_per_flip_restarted": ratio(restarted.tally.lost.total(), len(restarts)),
        },
        "expected": EXPECTED,
        "probe_every_ms": PROBE_EVERY * 1000,
        "machine": others | {"disk_sync_ms": spread(own.disk)},
    }


def _requests(figures: Figures) -> dict[str, object]:
    tally = figures.tally
    return {"requests": tally.requests, "lost": tally.lost.total(), "lost_by_kind": dict(tally.lost)}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it was measured, 1 when it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.flip", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=60, help="by click, half of them back")
    parser.add_argument("--restarts", type=int, default=12, help="of the Python gateway")
    parser.add_argument("--blocks", type=int, default=6)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
        offset = port_offset()
        plan = shipped_plan(offset)
        try:
            with upstreams(plan, folder / "upstreams.log"), installation(offset, folder / "state") as it:
                say(f"the dashboard is on port {it.ports.dashboard}, the gateway on {it.ports.gateway}")
                figures = uvloop.run(
                    measure(
                        it,
                        plan,
                        flips=chosen.flips,
                        restarts=chosen.restarts,
                        blocks=chosen.blocks,
                        log=folder / "python.log",
                    )
                )
        except NotMeasured as problem:
            say(f"not measured: {problem}")
            return 1
    finish(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
