"""The order of a start: databases, then their contents, then everything else at once, then wait until all answers."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from controlplane import environment
from controlplane.embedded import gateway, leftovers, parts, ports, postgres
from controlplane.embedded.children import wait_until
from controlplane.embedded.errors import StartFailed
from controlplane.embedded.installation import ACCOUNTS_FILE, DATABASE, DEMO_ROLE, Installation
from controlplane.embedded.supervisor import Steps, Supervisor, log_printer
from controlplane.environment import REPOSITORY, Ports

READY_WITHIN = 60.0  # seconds for everything to answer, once it has been started


def run(*, demo: bool) -> int:
    """`up` or `demo`, from the environment, until SIGINT or SIGTERM. Returns the exit status."""
    try:
        state = environment.state_dir()
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _held(state):
            leftovers.end(str(state), seconds=3.0)
            installation = Installation(state, Ports.from_environment(), dict(os.environ), demo)
            ports.check(installation.wanted_ports())
            return _run(installation)
    except (StartFailed, environment.EnvironmentProblem) as problem:
        print(f"not started: {problem}", flush=True)  # noqa: T201
        return 1
    except KeyboardInterrupt:  # before the supervisor has taken over the signals: nothing runs yet
        return 1


def reset(*, sure: bool) -> int:
    """Remove the state folder that the environment names, after asking unless `sure`. Returns the exit status."""
    try:
        state = environment.state_dir()
        if not state.exists():
            print(f"nothing to remove: there is no {state}")  # noqa: T201
            return 0
        if not (state / environment.LOCK_FILE).exists():
            raise StartFailed(f"{state} was not made by Switchyard, so it is left alone.")
        if not sure and not _agrees(f"Remove {state} with its databases and accounts? [y/N] "):
            print("nothing was removed")  # noqa: T201
            return 1
        with _held(state):
            leftovers.end(str(state), seconds=3.0)
            postgres.remove_data(state)
            shutil.rmtree(state)
    except (StartFailed, environment.EnvironmentProblem) as problem:
        print(f"not removed: {problem}")  # noqa: T201
        return 1
    print(f"removed {state}")  # noqa: T201
    return 0


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _run(it: Installation) -> int:
    runtime = it.runtime("" if it.gateway_is_given else gateway.binary())
    environment.write_runtime(it.state, runtime)
    it.backup_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    supervisor = Supervisor(it.child_environment(runtime), REPOSITORY, log_printer())
    return supervisor.run(lambda running: _start(it, running))


def _start(it: Installation, running: Supervisor) -> Steps:
    running.say(f"starting; the state is in {it.state}")
    if not it.redis_is_given:
        it.redis.initialise()
        running.launch(parts.redis(it))
    if not it.gateway_is_given:
        for part in gateway.parts(it):
            running.launch(part)
    if not it.postgres_is_given:
        yield from _start_postgres(it, running)

    setup = running.launch(parts.setup(it))
    if it.demo:
        data = running.launch(parts.demo_database(it))
        yield from running.finish(data, seconds=60)
        for part in parts.demo_estate(it):
            running.launch(part)
    yield from running.finish(setup, seconds=60)

    web = running.launch(parts.web(it))
    running.launch(parts.worker(it))
    running.launch(parts.observer(it))
    running.launch(parts.beat(it))
    yield from running.until(
        _answers(f"{it.dashboard_url}/healthz"), what="the dashboard's first answer", seconds=READY_WITHIN, needs=[web]
    )
    gateway_answers = _answers(f"{it.gateway_url}/health")
    yield from running.until(gateway_answers, what="the gateway's first answer", seconds=READY_WITHIN)
    if it.demo:
        yield from _wait_for_estate(it, running)
        yield from running.finish(running.launch(parts.ready(it)), seconds=READY_WITHIN + 5)
        running.launch(parts.traffic(it))
    _announce(it)


def _start_postgres(it: Installation, running: Supervisor) -> Steps:
    if it.postgres.initialise():
        running.say("made a new PostgreSQL cluster")
    child = running.launch(parts.postgres(it))
    yield from running.until(it.postgres.answers, what="PostgreSQL's first answer", seconds=30, needs=[child])
    it.postgres.ensure(DATABASE, it.keys["DATABASE_PASSWORD"], database=DATABASE)
    if it.demo:
        it.postgres.ensure(DEMO_ROLE, it.keys["DEMO_DATABASE_PASSWORD"], creates_databases=True)


def _wait_for_estate(it: Installation, running: Supervisor) -> Steps:
    from demo.estate import MEMBERS

    for name, member in MEMBERS.items():
        url = f"http://127.0.0.1:{member.port + it.ports.offset}/health"
        yield from running.until(_answers(url), what=f"the first answer of the demo's {name}", seconds=READY_WITHIN)


def _answers(url: str) -> Callable[[], bool]:
    def check() -> bool:
        try:
            return httpx.get(url, timeout=1.0, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    return check


def _announce(it: Installation) -> None:
    accounts = it.state / ACCOUNTS_FILE
    if it.demo and accounts.exists():
        print(accounts.read_text(encoding="utf-8").rstrip(), flush=True)  # noqa: T201
    print(f"ready: dashboard {it.dashboard_url}, gateway {it.gateway_url}", flush=True)  # noqa: T201


@contextmanager
def _held(state: Path) -> Iterator[None]:
    """Hold the state folder for as long as we run. Raises StartFailed when another supervisor does."""
    descriptor = os.open(state / environment.LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Readers hold it for a moment to look whether somebody runs.
        if not wait_until(lambda: _lock(descriptor), seconds=0.5):
            runtime = environment.read_runtime(state)
            raise StartFailed(
                f"Switchyard already runs with the state in {state} (pid {runtime.get('SUPERVISOR_PID', 'unknown')}); "
                "use that one, stop it with Ctrl-C there, or set PORT_OFFSET for a second one."
            )
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
