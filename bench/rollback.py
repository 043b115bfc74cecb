"""`python -m bench.rollback`: a service fails under load, and how long it takes until traffic is back on the monolith.

- `killed`: it dies; the gateway alone lets the monolith answer (measured by `bench.failover`)
- `breaches`: it answers 500, or slowly; a trigger of 1 s rolls its flag back, with nobody there
- `restarted`: the same on a Python gateway (`bench.gateway_python`) that is restarted with the flag off by a script,
  which begins with the first bad answer: no person is as quick
- `requests_per_s`: the gateway of an installation beside bare Envoy. `at_100`: with failover, triggers, a path that is
  counted by itself and a secret of testers; `everything_on`: split, each user on one side by a claim of the token

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import copy
import json
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg
import uvloop
import yaml

from bench import envoys, failover
from bench.dashboard import Installation, Person, installation
from bench.figures import Machine, finish, median, ratio, say, spread
from bench.flip import FLAG, PREFIX, RestartedGateway
from bench.load import Answer, Tally, encode, pace
from bench.processes import HOST, PLAN, NotMeasured, port_of, port_offset, upstreams, wait_for_port
from bench.rollback_service import SLOW
from controlplane.environment import read_runtime
from migrations_app.gateways.envoy.start import THREADS
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.reader import read_path
from migrations_app.planfile.schema import Plan

EXPECTED = {
    "first_monolith_answer_ms": 50,
    "failed_gets_when_killed": 0,
    "confirmed_p99_ms": 3000,
    "requests_per_s_over_bare": 0.6,
    "requests_per_s_at_100_over_bare": 0.6,
}  # on two shared cores
TRIGGERS = [
    {"key": "errors", "when": "errors", "above": 5.0, "window": "1s", "requests": 20},
    {"key": "slow", "when": "latency", "above": 200, "window": "1s", "requests": 20},
]
# Never fires: it has the gateway count a path by itself.
COUNTED = {"key": "counted", "when": "answers", "route": f"{PREFIX}/items", "codes": [418], "above": 99}
SPLIT = 50  # per cent
SLOWER_THAN = 0.2  # seconds: an answer that takes longer is a bad one
OTHER_FLAG, OTHER_PREFIX = "USE_NOTIFICATION_SERVICE", "/api/notifications"
SERVICES = {"storage": FLAG, "notification": OTHER_FLAG}  # the first fails over, the other one does not
CLIENTS = 32
EVERY = 0.064  # seconds between the requests of each: 500 a second together
WITHIN = 20.0  # seconds
FAILURES = ("killed", "errors", "slow")
OUT = {"failed_outlier_check", "failed_active_health_check"}  # Envoy's words for a server that gets no requests
MOODS = {"errors": signal.SIGUSR1, "slow": signal.SIGUSR2, "well": signal.SIGHUP}


@dataclass(frozen=True)
class Case:
    """One way to fail, of one service."""

    name: str
    mood: str
    flag: str
    prefix: str


CASES = (
    Case("errors_with_failover", "errors", FLAG, PREFIX),
    Case("errors_without_failover", "errors", OTHER_FLAG, OTHER_PREFIX),
    Case("slow", "slow", FLAG, PREFIX),
)


class Watch(Tally):
    """What the clients of one kind of request saw. Times are time.time()'s, which the database keeps too."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks

    def add(self, status: int, seconds: float) -> None:
        super().add(status, seconds)
        if status >= 500 or seconds > SLOWER_THAN:
            self._marks.note("bad")

    def seen(self, answer: Answer) -> None:
        side = answer.header("x-side")
        self._marks.note(side)
        if side == "monolith":
            # Of a service that is on: the gateway has let the monolith answer in its place.
            self._marks.note("bad")


class Marks:
    """The moment of the first of each thing since `forget`, and the longest time without an answer."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.last = 0.0
        self.longest_gap = 0.0

    def forget(self) -> None:
        self.first, self.last, self.longest_gap = {}, 0.0, 0.0

    def note(self, what: str) -> None:
        now = time.time()
        self.first.setdefault(what, now)
        if what != "bad":
            self.longest_gap = max(self.longest_gap, now - self.last) if self.last else 0.0
            self.last = now

    async def wait_for(self, what: str) -> float:
        """When it was first seen since `forget`. Raises NotMeasured."""
        deadline = time.monotonic() + WITHIN
        while what not in self.first:
            if time.monotonic() > deadline:
                raise NotMeasured(f"no answer of the kind '{what}' came within {WITHIN:g} s")
            await asyncio.sleep(0.001)
        return self.first[what]


@dataclass
class Load:
    """Steady GETs and POSTs (one in four) to one prefix."""

    marks: Marks
    gets: Watch
    posts: Watch

    def failed(self) -> Counter[str]:
        return Counter(get=self.gets.lost.total(), post=self.posts.lost.total())

    def requests(self) -> int:
        return self.gets.requests + self.posts.requests


@dataclass
class Found:
    """What came of the failures of one case, in milliseconds from the first bad answer."""

    times: dict[str, list[float]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    failures: int = 0

    def add(self, **times: float) -> None:
        for name, value in times.items():
            self.times.setdefault(name, []).append(value * 1000)

    def figures(self) -> dict[str, object]:
        return {
            "failures": self.failures,
            **{f"{name}_ms": spread(values) for name, values in self.times.items()},
            "requests": self.requests,
            "failed_gets": self.failed["get"],
            "failed_posts": self.failed["post"],
        }


class Service:
    """The process of the services that fall ill."""

    def __init__(self, servers: dict[int, str], log: Path) -> None:
        self._servers, self._log = servers, log
        self._child: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Service]:
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "bench.rollback_service"]
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(
                [*command, *(f"{port}={name}" for port, name in self._servers.items())], stdout=output, stderr=output
            )
        for port in self._servers:
            wait_for_port(port, self._child, self._log)

    def kill(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def become(self, mood: str) -> None:
        assert self._child is not None
        self._child.send_signal(MOODS[mood])


class Database:
    """What the installation itself says of a rollback."""

    def __init__(self, it: Installation) -> None:
        self._connection = psycopg.connect(read_runtime(it.state)["DATABASE_URL"], autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def last_event(self) -> int:
        return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM migrations_app_auditevent").fetchone()[0])  # type: ignore[index]

    def rolled_back(self, flag: str, after: int) -> tuple[str, float, float, float] | None:
        """The trigger; when it was judged, when the rollback was committed, and when the gateway confirmed it."""
        row = self._connection.execute(
            """
            SELECT event.after -> 'trigger' ->> 'key', extract(epoch FROM state.fired_at),
                extract(epoch FROM event.at), extract(epoch FROM confirmation.confirmed_at)
            FROM migrations_app_auditevent AS event
            JOIN migrations_app_flag AS flag ON flag.key = event.subject
            JOIN migrations_app_triggerstate AS state
                ON state.flag_id = flag.id AND state.key = event.after -> 'trigger' ->> 'key'
            JOIN migrations_app_confirmation AS confirmation ON confirmation.generation >= event.generation
            WHERE event.kind = 'flag.rolled_back' AND event.subject = %s AND event.id > %s
            ORDER BY event.id, confirmation.generation LIMIT 1
            """,
            [flag, after],
        ).fetchone()
        return (row[0], float(row[1]), float(row[2]), float(row[3])) if row else None

    def weight(self, flag: str) -> int:
        row = self._connection.execute("SELECT weight FROM migrations_app_flag WHERE key = %s", [flag]).fetchone()
        return int(row[0]) if row else 0


def bench_plan(file: Path) -> Plan:
    """The shipped plan, two services of which have triggers of 1 s; one of them does not fail over."""
    document = yaml.safe_load(PLAN.read_text())
    for service in document["services"]:
        if service["key"] in SERVICES:
            service |= {"triggers": copy.deepcopy(TRIGGERS), "failover": service["key"] == "storage"}
        if service["flag"] == FLAG:
            service["triggers"].append(COUNTED)
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    read = read_path(file)
    if not isinstance(read, Plan):
        raise NotMeasured(f"the plan of the benchmark is not valid: {'; '.join(map(str, read))}")
    return read


@contextlib.asynccontextmanager
async def load(port: int, prefix: str) -> AsyncIterator[Load]:
    marks = Marks()
    under = Load(marks, Watch(marks), Watch(marks))
    get = [encode("GET", f"{prefix}/items/1")]
    post = [encode("POST", f"{prefix}/items", body=b"x" * 2000)]
    stop, tasks = asyncio.Event(), []
    for number in range(CLIENTS):
        payloads, tally = (post, under.posts) if number % 4 == 3 else (get, under.gets)
        await asyncio.sleep(EVERY / CLIENTS)
        tasks.append(asyncio.create_task(pace(port, payloads, every=EVERY, stop=stop, tally=tally, seen=tally.seen)))
    try:
        yield under
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def breach(it: Installation, case: Case, service: Service, times: int, *, settled: float) -> Found:
    """The service is turned on by a click, falls ill after a random time, and is rolled back by its trigger.

    `settled`: seconds that it is well for at least.
    """
    found, person, database = Found(), Person(it.ports.dashboard), Database(it)
    try:
        await person.sign_in(it.password)
        async with load(it.ports.gateway, case.prefix) as under:
            for number in range(times):
                await _taken_again(it)
                await person.click(case.flag, "enable")
                under.marks.forget()
                await under.marks.wait_for("service")
                # Whole readings of good answers first; and no failure keeps step with the beat of once a second.
                await asyncio.sleep(settled + random.random())
                before, failed, sent = database.last_event(), under.failed(), under.requests()
                if database.weight(case.flag) == 0:
                    raise NotMeasured(f"{case.flag} was rolled back while its service was well")
                under.marks.forget()
                service.become(case.mood)
                first = await under.marks.wait_for("bad")
                key, judged, committed, confirmed = await _rolled_back(database, case.flag, before)
                await asyncio.sleep(0.2 + SLOW)  # what was on its way to the service
                service.become("well")
                # The reading that has the last errors is over before it is turned on again.
                await asyncio.sleep(2.0)
                found.add(
                    confirmed=confirmed - first,
                    until_judged=judged - first,
                    judged_to_committed=committed - judged,
                    committed_to_confirmed=confirmed - committed,
                )
                found.failures += 1
                found.failed += under.failed() - failed
                found.requests += under.requests() - sent
                say(f"{case.name} {number + 1} of {times}: {(confirmed - first) * 1000:.0f} ms by trigger {key}")
    finally:
        database.close()
        await person.close()
    return found


async def _rolled_back(database: Database, flag: str, before: int) -> tuple[str, float, float, float]:
    deadline = time.monotonic() + WITHIN
    while (row := await asyncio.to_thread(database.rolled_back, flag, before)) is None:
        if time.monotonic() > deadline:
            raise NotMeasured(f"{flag} was not rolled back within {WITHIN:g} s")
        await asyncio.sleep(0.05)
    return row


async def _taken_again(it: Installation) -> None:
    """Until the gateway sends requests to every service: it leaves one alone for seconds after errors in a row."""
    deadline = time.monotonic() + WITHIN
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{it.ports.gateway_admin}", trust_env=False) as client:
        while time.monotonic() < deadline:
            answer = await client.get("/clusters", params={"format": "json"})
            hosts = [host for one in answer.json()["cluster_statuses"] for host in one.get("host_statuses", [])]
            if not any(OUT & host.get("health_status", {}).keys() for host in hosts):
                return
            await asyncio.sleep(0.1)
    raise NotMeasured("the gateway does not send requests to a service that is well again")


async def restart(gateway: RestartedGateway, case: str, service: Service, times: int) -> Found:
    """The script's case: it sees the first bad answer, and starts the gateway with the flag off at that moment."""
    found = Found()
    await gateway.wait()
    async with load(gateway.port, PREFIX) as under:
        for number in range(times):
            under.marks.forget()
            await gateway.to("service")
            await under.marks.wait_for("service")
            await asyncio.sleep(1.0 + random.random())
            under.marks.forget()
            failed, sent = under.failed(), under.requests()
            if case == "killed":
                service.kill()
            else:
                service.become(case)
            first = await under.marks.wait_for("bad")
            await gateway.to("monolith")
            back = await under.marks.wait_for("monolith")
            await asyncio.sleep(0.2 + SLOW)
            found.add(first_monolith_answer=back - first, outage=under.marks.longest_gap)
            found.failures += 1
            found.failed += under.failed() - failed
            found.requests += under.requests() - sent
            if case == "killed":
                await asyncio.to_thread(service.start)
            else:
                service.become("well")
            say(f"restarted, {case} {number + 1} of {times}: {(back - first) * 1000:.0f} ms")
    return found


def throughput(
    it: Installation, plan: Plan, state: Path, *, rounds: int, seconds: float, connections: int
) -> tuple[dict[str, object], dict[str, float | None]]:
    """Requests per second of the installation's gateway beside bare Envoy with as many threads; and the ratios."""
    storage = next(one for one in plan.services if one.key == "storage")
    payloads = [
        encode("GET", f"{PREFIX}/items/{number}?page=1", headers=[("authorization", f"Bearer {_token(number)}")])
        for number in range(50)
    ]
    figures: dict[str, object] = {}
    ratios = {}
    with envoys.bare(storage.upstream, state / "bare", workers=THREADS) as (port, bare):
        for name, beside in (("at_100", "bare_at_100"), ("everything_on", "bare")):
            if name == "everything_on":
                it.manage("flag", "set", FLAG, str(SPLIT), "--actor", "bench", "--reason", "for a benchmark")
            contenders = [
                failover.Contender(name, it.ports.gateway, _envoy_of(it)),
                failover.Contender(beside, port, bare.pid),
            ]
            failover.take_turns(contenders, payloads, rounds=rounds, seconds=seconds, connections=connections)
            figures |= {one.name: one.figures() for one in contenders}
            ratios[name] = ratio(*(median(one.rates) for one in contenders))
    return figures, ratios


def _token(user: int) -> str:
    """Of this user, in the form of any that a sign-in gives. The gateway does not verify it."""
    claims = {"sub": f"user-{user}", "role": "technician", "iat": 0, "exp": 1 << 31, "iss": "bench"}
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join((*encoded, secrets.token_urlsafe(32)))


def _envoy_of(it: Installation) -> int:
    """The process of the installation's gateway. Raises NotMeasured."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "envoy" in child.name() and any(str(it.state) in word for word in child.cmdline()):
                return child.pid
    raise NotMeasured("the installation has no gateway")


async def turn_on(it: Installation, service: Service) -> None:
    """Send the storage service its traffic, well as it is."""
    service.become("well")
    await _taken_again(it)
    person = Person(it.ports.dashboard)
    try:
        await person.sign_in(it.password)
        await person.click(FLAG, "enable")
    finally:
        await person.close()


def measure(
    *,
    kills: int,
    breaches: int,
    settled: float,
    restarts: int,
    cases: list[str],
    rounds: int,
    seconds: float,
    connections: int,
    folder: Path,
) -> dict[str, object]:
    """The figures. `breaches` are of each case. Raises NotMeasured."""
    offset = port_offset()
    plan = shift_ports(bench_plan(folder / "plan.yaml"), offset)
    shared = Machine()
    servers = {port_of(one.upstream): one.key for one in plan.services if one.key in SERVICES}
    with contextlib.ExitStack() as running:
        running.enter_context(upstreams(plan, folder / "upstreams.log", without=SERVICES))
        service = running.enter_context(Service(servers, folder / "services.log").running())
        gateway = running.enter_context(failover.started(folder / "killed", workers=1))
        killed = uvloop.run(failover.kill(gateway, plan, True, kills=kills, log=folder / "victim.log"))
        python = running.enter_context(contextlib.closing(RestartedGateway(plan, folder / "python.log")))
        restarted = {case: uvloop.run(restart(python, case, service, restarts)) for case in cases}
        secret = {"GATEWAY_TESTER_SECRET": secrets.token_urlsafe(24)}
        it = running.enter_context(installation(offset, folder / "state", folder / "plan.yaml", **secret))
        breached = {
            case.name: uvloop.run(breach(it, case, service, breaches, settled=settled))
            for case in CASES
            if case.mood in cases
        }
        uvloop.run(turn_on(it, service))
        rates, over_bare = throughput(it, plan, folder, rounds=rounds, seconds=seconds, connections=connections)
        with contextlib.closing(Database(it)) as database:
            rates["rolled_back_meanwhile"] = database.weight(FLAG) == 0
        others = shared.figures()
    return {
        "bench": "rollback",
        "killed": killed.figures(),
        "breaches": {name: found.figures() for name, found in breached.items()},
        "restarted": {name: found.figures() for name, found in restarted.items()},
        "requests_per_s": rates,
        "ratios": _ratios(killed, breached, restarted)
        | {
            "requests_per_s_over_bare": over_bare["everything_on"],
            "requests_per_s_at_100_over_bare": over_bare["at_100"],
        },
        "expected": EXPECTED,
        "machine": others,
    }


def _ratios(killed: failover.Kills, breached: dict[str, Found], restarted: dict[str, Found]) -> dict[str, float | None]:
    ratios = {"failed_gets_per_kill_switchyard": ratio(killed.watch.failed["GET"], len(killed.back_ms))}
    first = {"killed": median(killed.first_ms)}
    first |= {name: median(found.times["confirmed"]) for name, found in breached.items()}
    for case, found in restarted.items():
        ours = "errors_without_failover" if case == "errors" else case
        back = median(found.times["first_monolith_answer"])
        ratios[f"{case}_restarted_over_switchyard"] = ratio(back, first[ours])
        ratios[f"failed_gets_per_failure_{case}_restarted"] = _failed_gets(found)
    return ratios | {f"failed_gets_per_failure_{name}": _failed_gets(found) for name, found in breached.items()}


def _failed_gets(found: Found) -> float | None:
    return ratio(found.failed["get"], found.failures)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it was measured, 1 when it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.rollback", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--breaches", type=int, default=20, help="of each of the three cases")
    parser.add_argument("--settled", type=float, default=2.5, help="seconds of good answers before a breach, at least")
    parser.add_argument("--restarts", type=int, default=3, help="of the Python gateway, in each of three cases")
    parser.add_argument("--cases", nargs="+", choices=FAILURES, default=FAILURES, help="what happens to the service")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round, for each gateway")
    parser.add_argument("--connections", type=int, default=64)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
        try:
            figures = measure(**vars(chosen), folder=folder)
        except NotMeasured as problem:
            say(f"not measured: {problem}")
            return 1
    finish(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
