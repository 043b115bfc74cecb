"""A real PostgreSQL and a real Redis for the test run, and helpers to start more of them.

Loaded as `-p tests.servers`, so that they run before pytest-django reads the settings. One of each is started for the
whole run, on free ports and in a temporary folder; pytest-xdist's workers inherit them by the environment and
pytest-django makes a database for each worker. With TEST_POSTGRES_URL or TEST_REDIS_URL set, that server is used and
left running.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from controlplane.embedded.children import free_port, start, stop
from controlplane.embedded.postgres import PostgresServer, run_as
from controlplane.embedded.redis import RedisServer

_running = contextlib.ExitStack()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None, None, None]:
    """Start the servers before pytest-django looks at the settings in the same hook."""
    start_for_run()
    yield


def pytest_unconfigure() -> None:
    _running.close()


def start_for_run() -> None:
    """Start what the environment does not name, and set the environment of the tests."""
    # Nothing of an installation that runs beside the tests may reach them.
    for name in ("GATEWAY_DIR", "GATEWAY_URL", "GATEWAY_ADMIN_URL", "STATE_DIR", "PORT_OFFSET"):
        os.environ.pop(name, None)
    atexit.register(_running.close)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not os.environ.get("TEST_POSTGRES_URL"):
        os.environ["TEST_POSTGRES_URL"] = _running.enter_context(postgres_server()).url()
    if not os.environ.get("TEST_REDIS_URL"):
        os.environ["TEST_REDIS_URL"] = _running.enter_context(redis_server()).url()
    os.environ |= {
        "DATABASE_URL": with_database(os.environ["TEST_POSTGRES_URL"], "switchyard"),
        "REDIS_URL": os.environ["TEST_REDIS_URL"],
        "SWITCHYARD_MODE": "test",
        "SECRET_KEY": "only-for-tests-" + "x" * 50,
    }


def with_database(url: str, database: str) -> str:
    """The same server's URL with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def start_postgres(server: PostgresServer) -> subprocess.Popen[bytes]:
    """Start a cluster (made if need be) and wait until it takes connections. End it with `stop_postgres`."""
    server.initialise()
    process = _start(server.command(), server.data.with_suffix(".log"), signal.SIGINT, as_user=True)
    try:
        server.wait(process)
    except BaseException:
        stop_postgres(process)
        raise
    return process


def stop_postgres(process: subprocess.Popen[bytes]) -> None:
    """Fast shutdown; clients are cut off."""
    stop(process, signal.SIGINT)


def start_redis(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a Redis on this port and wait until it answers. End it with `stop_redis`, hang it with SIGSTOP."""
    server = RedisServer(folder, port)
    server.initialise()
    process = _start(server.command(), folder / "redis.log", signal.SIGTERM)
    try:
        server.wait(process)
    except BaseException:
        stop_redis(process)
        raise
    return process


def stop_redis(process: subprocess.Popen[bytes]) -> None:
    """End it; one that hangs is killed."""
    stop(process, signal.SIGTERM, seconds=1.0)


@contextlib.contextmanager
def postgres_server(port: int | None = None) -> Iterator[PostgresServer]:
    """A PostgreSQL of its own, quick and not crash-safe, for the length of the block."""
    with _folder() as folder:
        server = PostgresServer(folder / "postgres", port or free_port(), durable=False)
        process = start_postgres(server)
        try:
            yield server
        finally:
            stop_postgres(process)


@contextlib.contextmanager
def redis_server(port: int | None = None) -> Iterator[RedisServer]:
    """A Redis of its own for the length of the block."""
    with _folder() as folder:
        server = RedisServer(folder, port or free_port())
        process = start_redis(server.port, folder)
        try:
            yield server
        finally:
            stop_redis(process)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="switchyard-test-"))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(command: list[str], log: Path, death: signal.Signals, *, as_user: bool = False) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return start(command, output=output, on_our_death=death, run_as=run_as() if as_user else None)
