"""`up` and `demo` as a person starts them: real processes, on ports of their own, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import httpx
import psutil
import psycopg
import pytest

from controlplane.embedded import leftovers
from controlplane.embedded.children import port_is_free, wait_until
from controlplane.environment import REPOSITORY, Ports, is_running, read_runtime
from tests.servers import postgres_server, redis_server

START_SECONDS = 60.0  # on a busy machine; the product itself aims at well under 20
STOP_SECONDS = 5.0


class Started:
    """A supervisor that was started as a command."""

    def __init__(self, what: str, environ: dict[str, str], state: Path, offset: int) -> None:
        self.environ = environ | {"STATE_DIR": str(state), "PORT_OFFSET": str(offset)}
        self.state = state
        self.ports = Ports.from_environment(self.environ)
        self._log = state.parent / f"{what}-{time.monotonic_ns()}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlplane.embedded", what],
                cwd=REPOSITORY, env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> None:
        found = wait_until(lambda: text in self.log, seconds=seconds, alive=lambda: self.process.poll() is None)
        assert found or text in self.log, self.log

    def ready(self) -> str:
        """The line that says so."""
        self.wait_for("\nready: ")
        return next(line for line in self.log.splitlines() if line.startswith("ready"))

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stop it; the seconds that it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(30) == 0, self.log
        return time.monotonic() - begin

    def child(self, name: str) -> psutil.Process:
        """The process of a part, by a word of its command line."""
        found = [process for process, words in self.children() if any(Path(word).name == name for word in words)]
        assert found, name
        return found[0]

    def children(self) -> list[tuple[psutil.Process, list[str]]]:
        """The parts that run, with their command lines. One that has just ended, and waits for its restart, is not."""
        found = []
        for process in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append((process, process.cmdline()))
        return found

    def command(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=REPOSITORY, env=self.environ | environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def assert_nothing_is_left(self) -> None:
        assert leftovers.find(str(self.state)) == []
        assert not is_running(self.state)
        ports = self.ports
        for port in (ports.dashboard, ports.gateway, ports.gateway_admin, ports.postgres, ports.redis, *ports.demo):
            assert port_is_free(port), port


class Start(Protocol):
    def __call__(self, what: str, **settings: str) -> Started: ...


@pytest.fixture
def start(tmp_path: Path, clean_environ: dict[str, str], free_offset: Callable[[], int]) -> Iterator[Start]:
    """Start `up` or `demo`; every start of one test has the same state folder and ports."""
    tmp_path.chmod(0o711)
    state, offset = tmp_path / "state", free_offset()
    started: list[Started] = []

    def begin(what: str, **settings: str) -> Started:
        started.append(Started(what, clean_environ | settings, state, offset))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            one.process.wait(30)


def test_up_keeps_running_stops_in_time_and_finds_its_state_again(start: Start):
    first = start("up")
    line = first.ready()
    urls = re.fullmatch(r"ready: dashboard (http://127\.0\.0\.1:\d+), gateway (http://127\.0\.0\.1:\d+)", line)
    assert urls is not None, line
    assert httpx.get(f"{urls[1]}/healthz").status_code == 200
    assert httpx.get(f"{urls[2]}/health").status_code == 200

    # Beside it: a command that finds it by the state folder alone, and a second start, which is refused in one line.
    group = "from django.contrib.auth.models import Group; Group.objects.create(name='kept'); print('made')"
    assert "made" in first.command("manage.py", "shell", "-c", group).stdout
    second = first.command("-m", "controlplane.embedded", "up")
    assert second.returncode == 1
    assert re.fullmatch(rf"not started: Switchyard already runs .*pid {first.process.pid}.*\n", second.stdout)

    # On the same ports with another state folder: one line again.
    other = first.command("-m", "controlplane.embedded", "up", STATE_DIR=str(first.state.parent / "other"))
    assert other.returncode == 1
    assert other.stdout.count("\n") == 1
    assert "is taken" in other.stdout
    assert "PORT_OFFSET" in other.stdout

    # No end of a part ends the others.
    for part in ("redis-server", "envoy"):
        first.child(part).kill()
    first.wait_for("redis started again", 10)
    first.wait_for("gateway started again", 10)
    gateway_answers = wait_until(lambda: not port_is_free(first.ports.gateway), seconds=10)
    assert gateway_answers
    assert first.stop() < STOP_SECONDS, first.log
    first.assert_nothing_is_left()

    keys = read_runtime(first.state)
    again = start("up")
    again.ready()
    assert read_runtime(again.state)["SECRET_KEY"] == keys["SECRET_KEY"]
    kept = "from django.contrib.auth.models import Group; print(Group.objects.filter(name='kept').count())"
    assert again.command("manage.py", "shell", "--verbosity", "0", "-c", kept).stdout.strip() == "1"

    # Killed, it cannot stop its children; on Linux they end all the same.
    again.process.kill()
    again.process.wait(5)
    wait_until(lambda: not leftovers.find(str(again.state)), seconds=5)
    assert [process.cmdline() for process in leftovers.find(str(again.state))] == []
    again.assert_nothing_is_left()


def test_the_demo_answers_in_full_when_it_says_ready(start: Start):
    demo = start("demo")
    demo.ready()
    accounts = re.findall(r"^account +(\S+) +password +(\S+)$", demo.log, re.MULTILINE)
    assert {name for name, _ in accounts} >= {"release-manager", "approver", "support", "administrator"}
    for port in demo.ports.demo:
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    status = httpx.get(f"http://127.0.0.1:{demo.ports.gateway}/routing-status")
    assert '"USE_AUTH_SERVICE":false' in status.text
    listed = demo.command("manage.py", "week", "list")
    assert listed.returncode == 0, listed.stderr
    assert "Enable safe services" in listed.stdout
    assert_checks_follow_what_is_really_done(demo)

    # A service may die; the demo goes on and brings it back.
    demo.child("rag").kill()
    demo.wait_for("rag started again", 10)
    assert demo.stop(signal.SIGTERM) < STOP_SECONDS, demo.log
    demo.assert_nothing_is_left()


def assert_checks_follow_what_is_really_done(demo: Started) -> None:
    """The checks of week 3, in a second terminal with nothing set: each fails and passes by doing the real thing."""
    listed = json.loads(demo.command("manage.py", "prerequisite", "list", "--week", "3", "--json").stdout)
    ids = {row["key"]: str(row["id"]) for row in listed}

    def check(key: str) -> tuple[int, str]:
        done = demo.command("manage.py", "prerequisite", "check", ids[key], "--json")
        return done.returncode, json.loads(done.stdout)["value"]

    assert check("database-backup") == (3, "no file matches tracseq_main-*.dump")
    assert check("user-data") == (3, "0 of 40 users are the same")
    assert check("jwt") == (3, "the auth service does not sign the account demo in: 401")

    for module in ("demo.backup", "demo.migrate_users"):
        done = demo.command("-m", module)
        assert done.returncode == 0, done.stdout + done.stderr
    held, value = check("database-backup")
    assert held == 0, value
    assert value.startswith("tracseq_main-2")
    assert check("user-data") == (0, "40 of 40 users are the same")
    assert check("jwt")[0] == 0

    assert demo.command("-m", "demo.break_hash").returncode == 0
    assert check("user-data") == (3, "39 of 40 users are the same")
    assert demo.command("-m", "demo.jwt_secret", "auth", "change").returncode == 0
    assert check("jwt") == (3, "the auth service refuses the monolith's token: 401")
    assert demo.command("-m", "demo.jwt_secret", "auth", "restore").returncode == 0
    assert check("jwt")[0] == 0


def test_a_given_gateway_needs_its_addresses(clean_environ: dict[str, str], tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.embedded", "up"],
        cwd=REPOSITORY, env=clean_environ | {"STATE_DIR": str(tmp_path), "GATEWAY_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == (
        "not started: GATEWAY_DIR names a gateway that runs elsewhere, so GATEWAY_URL must be set too.\n"
    )


def test_reset_removes_a_state_folder_and_nothing_else(clean_environ: dict[str, str], tmp_path: Path):
    def reset(state: Path, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controlplane.embedded", "reset", *arguments],
            cwd=REPOSITORY, env=clean_environ | {"STATE_DIR": str(state)},
            input=answer, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    state, other = tmp_path / "state", tmp_path / "other"
    for folder in (state, other):
        folder.mkdir()
        (folder / "file").write_text("")
    (state / "supervisor.lock").write_text("")
    assert reset(state, answer="n\n").returncode == 1
    assert state.exists()
    assert "was not made by Switchyard" in reset(other, "--yes").stdout
    assert other.exists()
    assert reset(state, answer="y\n").returncode == 0
    assert not state.exists()
    assert reset(state, "--yes").stdout.startswith("nothing to remove")


def test_given_databases_are_used_and_not_started(start: Start):
    with postgres_server() as postgres, redis_server() as redis:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute("create database given")
        started = start("up", DATABASE_URL=postgres.url("given"), REDIS_URL=redis.url())
        started.ready()
        names = {Path(words[0]).name for _, words in started.children()}
        assert not names & {"postgres", "redis-server"}
        assert read_runtime(started.state)["DATABASE_URL"] == postgres.url("given")
        started.stop()
        assert postgres.answers()
        assert redis.answers()
