"""The whole product on real parts, for one test at a time: Envoy, both sides, child processes on the test database."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from django.db import connection

from controlplane.embedded.children import free_port, start
from controlplane.environment import REPOSITORY
from migrations_app.actor import SYSTEM, Actor
from migrations_app.choices import ActorKind
from migrations_app.models import Gateway, Plan
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.reader import read_path
from migrations_app.planfile.schema import Plan as PlanFile
from migrations_app.planfile.triggers import from_rows
from tests.factories import PASSWORD, PLANS, tracseq
from tests.gateways.estate import Envoy
from tests.servers import with_database

OPERATOR = Actor("tester", ActorKind.SHELL)
Watched = Mapping[str, Sequence[Mapping[str, object]]]
# Service key -> prefix of the three services that week 1 moves.
WEEK_1 = {"notification": "/api/notifications", "storage": "/api/storage", "rag": "/api/rag"}


def wait_for(true: Callable[[], Any], what: str, seconds: float = 10.0) -> float:
    """Look every 5 ms until it is true. Returns how long that took, in seconds."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, f"after {seconds} s still not: {what}"
        time.sleep(0.005)
    return time.monotonic() - begun


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def in_threads(*works: Callable[[], object]) -> list[BaseException]:
    """Run each in a thread with a database connection of its own, all at once. Returns what they raised."""
    raised: list[BaseException] = []
    together = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        try:
            together.wait(20)
            work()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


class Child:
    """A process of the product. It and all of its own children are gone when the block ends."""

    def __init__(self, command: list[str], environ: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = start(command, output=output, env=environ, cwd=REPOSITORY)

    def signal(self, number: signal.Signals) -> None:
        """To the process and all of its children, which are in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        """kill -9, so that no test leans on an orderly end."""
        if self.process.returncode is None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


class FreezableEnvoy(Envoy):
    """An Envoy that can be hung and go on, as by a stalled host."""

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Sides:
    """Servers of these names in one process, which can be killed and hung. `ports`: by name."""

    def __init__(self, *names: str) -> None:
        self._process = start(python("tests.faults.side", *names), output=subprocess.PIPE, cwd=REPOSITORY)
        assert self._process.stdout is not None
        self.ports: dict[str, int] = json.loads(self._process.stdout.readline())

    def behave(self, **how: object) -> None:
        """All of them, see tests.faults.side; without arguments they are well again."""
        for port in self.ports.values():
            asked = httpx.get(f"http://127.0.0.1:{port}/behave", params=how, trust_env=False, timeout=10)
            assert asked.status_code == httpx.codes.OK

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def running_sides() -> Iterator[Sides]:
    """The monolith and all services of the plan."""
    made = Sides("monolith", *(service.key for service in read_path(PLANS / "tracseq-phase2.yaml").services))
    try:
        yield made
    finally:
        made.close()


@dataclass
class Estate:
    """What outlives a test: the sides and the ports. On Redis' port each test puts a real one, or a fault."""

    folder: Path
    both: Sides
    redis_port: int
    envoy: FreezableEnvoy

    @classmethod
    def make(cls, folder: Path, both: Sides) -> Estate:
        return cls(folder, both, free_port(), FreezableEnvoy(folder / "gateway"))

    @property
    def sides(self) -> dict[str, int]:
        """Name -> port of the monolith and all services."""
        return self.both.ports

    def environ(self, **more: str) -> dict[str, str]:
        """For child processes: the database and the gateway of this test, and a Redis that is away."""
        database = with_database(os.environ["TEST_POSTGRES_URL"], connection.settings_dict["NAME"])
        return os.environ | {
            "DATABASE_URL": database,
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "GATEWAY_DIR": str(self.envoy.folder),
            "GATEWAY_URL": f"http://127.0.0.1:{self.envoy.port}",
            "GATEWAY_ADMIN_URL": f"http://127.0.0.1:{self.envoy.admin_port}",
            "ENVOY_BINARY": str(self.envoy.binary),
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "ALLOWED_HOSTS": "127.0.0.1",
            "HEALTH_STALE_AFTER": "600",
            **more,
        }

    def document(self, *, adapter: str = "envoy", watched: Watched | None = None, **moved: int) -> PlanFile:
        """The TracSeq plan, signed off by hand, on the addresses of the sides; `moved`: service key -> another port.

        `watched`: service key -> its triggers, as a plan file has them. No other service has any. What hangs is given
        up after 1.5 s.
        """
        plan = tracseq(adapter=adapter, by_hand=True)
        ports, watched = self.sides | moved, watched or {}
        services = tuple(
            service.model_copy(
                update={
                    "upstream": f"127.0.0.1:{ports[service.key]}",
                    "triggers": from_rows(json.dumps(watched.get(service.key, []))),
                    **({"timeout": 1.5} if service.key in watched else {}),
                }
            )
            for service in plan.services
        )
        monolith = plan.monolith.model_copy(update={"address": f"127.0.0.1:{ports['monolith']}"})
        return plan.model_copy(update={"services": services, "monolith": monolith})

    def restart_gateway(self) -> None:
        """A gateway that knows nothing."""
        self.envoy.close()
        shutil.rmtree(self.envoy.folder, ignore_errors=True)
        self.envoy.start()


class System:
    """The estate with the plan loaded, for one test."""

    def __init__(self, estate: Estate) -> None:
        self.estate, self.envoy = estate, estate.envoy
        self._children: list[Child] = []
        self._sides: list[Sides] = []

    def load(self, *, watched: Watched | None = None, **moved: int) -> None:
        load_plan(self.estate.document(watched=watched, **moved), actor=SYSTEM, reason="for a test")

    def side(self, name: str) -> Sides:
        """One more server of this name, in a process of its own that ends with the test. No plan names it yet."""
        made = Sides(name)
        self._sides.append(made)
        return made

    def everything(self) -> list[Sides]:
        """Whatever stands behind the gateway."""
        return [self.estate.both, *self._sides]

    def run(self, name: str, command: list[str], **environ: str) -> Child:
        """Start a process that ends with the test."""
        log = self.estate.folder / f"{name}-{len(self._children)}-{time.monotonic_ns()}.log"
        child = Child(command, self.estate.environ(**environ), log)
        self._children.append(child)
        return child

    def worker(self, redis_url: str) -> Child:
        """A Celery worker that has proved to take messages; nothing else runs on this Redis."""
        options = ["--pool", "solo", "--prefetch-multiplier", "1", "--queues", "gateway,observe"]
        quiet = ["--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        child = self.run(
            "worker", python("celery", "-A", "controlplane", "worker", *options, *quiet), REDIS_URL=redis_url
        )
        wait_for(lambda: " ready." in child.said() or child.process.poll() is not None, "the worker is ready", 30)
        assert child.process.poll() is None, child.said()
        return child

    def beat(self, redis_url: str) -> Child:
        schedule = str(self.estate.folder / f"beat-{time.monotonic_ns()}")
        options = ["--schedule", schedule, "--pidfile", "", "--loglevel", "WARNING"]
        return self.run("beat", python("celery", "-A", "controlplane", "beat", *options), REDIS_URL=redis_url)

    def manage(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """One command of manage.py, in a process of its own."""
        command, environ = self.manage_command(*arguments), self.estate.environ(**environ)
        return subprocess.run(
            command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    @staticmethod
    def manage_command(*arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def served_by(self) -> dict[str, str | None]:
        """Service key of week 1 -> who answers its prefix through the gateway."""
        return {key: self.envoy.ask(f"{prefix}/1").who for key, prefix in WEEK_1.items()}

    def status(self) -> dict[str, Any]:
        return self.envoy.ask("/routing-status").json()

    def confirmed(self) -> bool:
        """What the screen calls applied: the gateway was seen to run the newest generation."""
        return Gateway.objects.get().observed_generation == Plan.objects.get().generation

    def close(self) -> None:
        for child in reversed(self._children):
            child.close()
        for side in self._sides:
            side.close()


ON_THE_MONOLITH = dict.fromkeys(WEEK_1, "monolith")
ON_THE_SERVICES = {key: key for key in WEEK_1}


@dataclass(frozen=True, slots=True)
class Click:
    """A form that was sent, and how it was answered. `began` and `seconds` are of the waiting person's clock."""

    path: str
    key: str  # of the click, "" without one
    status: int
    text: str
    began: datetime
    seconds: float


class Browser:
    """A person at the real web process, as a browser without JavaScript would be. `clicks`: what was sent so far."""

    def __init__(self, url: str) -> None:
        self.url, self.clicks = url, list[Click]()
        self._client = httpx.Client(base_url=url, timeout=20, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path, follow_redirects=True)

    def post(self, path: str, **fields: str) -> httpx.Response:
        """The form's answer itself; a redirect is not followed."""
        began, begun = datetime.now(UTC), time.monotonic()
        answer = self._client.post(path, data=fields | {"csrfmiddlewaretoken": self._token()})
        key, seconds = fields.get("request_key", ""), time.monotonic() - begun
        self.clicks.append(Click(path, key, answer.status_code, words(answer.text), began, seconds))
        return answer

    def sign_in(self, name: str) -> None:
        self.get("/sign-in/")
        answer = self.post("/sign-in/", username=name, password=PASSWORD)
        assert answer.status_code == 302, answer.text

    def close(self) -> None:
        self._client.close()

    def _token(self) -> str:
        return next(value for name, value in self._client.cookies.items() if name.endswith("csrf"))


def words(page: str) -> str:
    """The text of a page, its tags and spaces taken together."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
