"""One real estate for the tests of this folder: eleven processes, a PostgreSQL, ports and databases of its own."""

import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from demo.estate import MEMBERS, REPOSITORY, Settings
from demo.fault import listing, put
from demo.faults import Fault
from demo.migrate_users import migrate


@dataclass
class Estate:
    """How to talk to the processes, and to the commands that belong to them."""

    environ: dict[str, str]
    client: httpx.Client
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings.read(self.environ)

    def url(self, name: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.settings.port(MEMBERS[name])}{path}"

    def get(self, name: str, path: str, **options) -> httpx.Response:
        return self.client.get(self.url(name, path), **options)

    def post(self, name: str, path: str, **options) -> httpx.Response:
        return self.client.post(self.url(name, path), **options)

    def run(self, module: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def start(self, module: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def login(self, name: str, path: str, username: str = "ana.silva") -> httpx.Response:
        return self.post(name, path, json={"username": username, "password": "tracseq-demo"})

    def query(self, name: str, query: str) -> list[tuple]:
        """Rows of a query in the database of a member."""
        settings = self.settings
        database = settings.database_name(MEMBERS[name])
        with psycopg.connect(settings.database_url, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll until it holds; a test fails here rather than later."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def heard(port: int) -> None:
    """Return when the process on the port has read all that was sent to it before.

    It refuses what is not HTTP before any fault can keep it from answering.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")


def unanswered(client: socket.socket) -> bool:
    """Whether the other end closes the connection with no answer; waits for the close."""
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def ended_after(output: str) -> float:
    """Seconds from the signal to the end of a process that was run by `tests.demo.clocked`."""
    told = re.fullmatch(r"ended (\d+\.\d+) s after the signal", output.splitlines()[-1])
    assert told, output
    return float(told[1])


def free_offset() -> int:
    """An offset at which every port of the estate is free, below the ports that the kernel gives to clients."""
    # Workers of pytest-xdist look in ranges of their own, or two could find the same ports free.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    for _ in range(200):
        offset = 12_000 + 2_000 * worker + random.randrange(0, 2_000, 20)
        with _sockets() as bound:
            if all(bound(member.port + offset) for member in MEMBERS.values()):
                return offset
    raise AssertionError("no free range of ports")


class _sockets:  # noqa: N801  used as a function
    def __enter__(self) -> Callable[[int], bool]:
        self._open: list[socket.socket] = []
        return self._bind

    def _bind(self, port: int) -> bool:
        listener = socket.socket()
        self._open.append(listener)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        for listener in self._open:
            listener.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server: the one of the whole test run, or one of our own."""
    if url := os.environ.get("TEST_POSTGRES_URL"):
        yield url
        return
    from tests.servers import postgres_server

    with postgres_server() as server:
        yield server.url()


def new_environ(postgres_url: str, folder: Path) -> dict[str, str]:
    """The environment of an estate that shares nothing with any other."""
    own = {
        "PORT_OFFSET": str(free_offset()),
        "DEMO_DATABASE_URL": postgres_url,
        "DEMO_DATABASE_PREFIX": f"demo_{secrets.token_hex(4)}_",
        "DEMO_JWT_SECRET": secrets.token_hex(16),
        "STATE_DIR": str(folder),
    }
    return {**os.environ, **own}


def drop_databases(environ: dict[str, str]) -> None:
    settings = Settings.read(environ)
    with psycopg.connect(settings.database_url, autocommit=True) as server:
        for member in MEMBERS.values():
            name = sql.Identifier(settings.database_name(member))
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@pytest.fixture(scope="session")
def seeded(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """Databases with their rows, and no process."""
    environ = new_environ(postgres_url, tmp_path_factory.mktemp("estate"))
    with httpx.Client(timeout=5, trust_env=False, verify=False) as client:
        estate = Estate(environ, client)
        done = estate.run("demo.database")
        assert done.returncode == 0, done.stdout + done.stderr
        yield estate
    drop_databases(environ)


@pytest.fixture(scope="session")
def running(seeded: Estate) -> Iterator[Estate]:
    """The whole estate, started at once as the supervisor does it."""
    for name in MEMBERS:
        seeded.processes[name] = seeded.start("demo.process", name)
    try:
        for name in MEMBERS:
            wait_until(lambda name=name: answers(seeded, name), 20)
        yield seeded
    finally:
        for process in seeded.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in seeded.processes.values():
            process.communicate(timeout=20)


@pytest.fixture
def estate(running: Estate) -> Iterator[Estate]:
    """The estate, with no fault left behind by a test."""
    yield running
    for line in listing(running.settings):
        if "no fault" not in line:
            assert put(line.split()[0], Fault(), running.settings) is None


def answers(estate: Estate, name: str) -> bool:
    """Whether a process answers its health."""
    assert estate.processes[name].poll() is None, estate.processes[name].communicate()[0]
    try:
        return estate.get(name, "/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def unmigrated(seeded: Estate) -> Iterator[None]:
    """Auth's database before week 3; and so again afterwards."""
    seeded.query("auth", "TRUNCATE users RESTART IDENTITY")
    yield
    seeded.query("auth", "TRUNCATE users RESTART IDENTITY")


@pytest.fixture
def migrated(seeded: Estate, unmigrated: None) -> None:
    """Auth's database after week 3."""
    assert migrate(seeded.settings) == (40, 40)
