"""PostgreSQL is away: commands say so in one sentence, the web process answers 503, the gateway serves on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from controlplane.embedded.children import free_port
from controlplane.embedded.postgres import PostgresServer
from migrations_app.actions.weeks import enable_week
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.load import load_on
from tests.faults.promises import hold
from tests.faults.system import ON_THE_SERVICES, OPERATOR, System, python, wait_for
from tests.servers import start_postgres, stop_postgres, with_database

COMMANDS = [("week", "rollback", "1"), ("audit", "list"), ("plan", "export"), ("reconcile",), ("ready",)]


def start_command(system: System, command: tuple[str, ...], url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        system.manage_command(*command), env=system.estate.environ(DATABASE_URL=url), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def assert_one_sentence(command: tuple[str, ...], process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, (command, out, err)
    assert out == ""
    assert "Traceback" not in err
    assert "The database does not answer" in err, (command, err)
    assert len(err.strip().splitlines()) == 1, err


def test_commands_say_one_sentence_and_leave_with_one(system: System):
    url = with_database(f"postgres://postgres@127.0.0.1:{free_port()}", "switchyard")
    running = [(command, start_command(system, command, url)) for command in COMMANDS]
    for command, process in running:
        assert_one_sentence(command, process)


def test_a_command_does_not_wait_long_for_a_database_that_hangs(system: System):
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        url = with_database(f"postgres://postgres@127.0.0.1:{silent.getsockname()[1]}", "switchyard")
        begun = time.monotonic()
        assert_one_sentence(("week", "rollback", "1"), start_command(system, ("week", "rollback", "1"), url))
        # 2 s for the connection, and the start of Python on a busy machine.
        assert time.monotonic() - begun < 10


@pytest.fixture
def postgres():
    """A PostgreSQL of its own, that may be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="switchyard-test-"))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
    yield PostgresServer(folder / "postgres", free_port(), durable=False)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_web_process_answers_503_while_the_database_is_away_and_200_again_after(system: System, postgres):
    enable_week(number=1, actor=OPERATOR)
    reconcile_all()
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    process = start_postgres(postgres)
    url = f"http://127.0.0.1:{port}/healthz"

    def status() -> int:
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code
        except httpx.ConnectError:
            return 0

    try:
        # Any database will do: this address asks nothing of its tables.
        database = with_database(postgres.url(), "postgres")
        web = system.run("web", python("uvicorn", "controlplane.asgi:application", *options), DATABASE_URL=database)
        wait_for(lambda: status() == 200, "the web process answers", 30)
        stop_postgres(process)
        with load_on(system.envoy.port) as load:
            for _ in range(3):
                begun = time.monotonic()
                assert status() == 503
                assert time.monotonic() - begun < 3
            assert system.served_by() == ON_THE_SERVICES
            wait_for(lambda: load.count() > 100, "the gateway serves on")
        hold(system, load=load)
        process = start_postgres(postgres)
        wait_for(lambda: status() == 200, "the web process finds the database again")
        assert web.process.poll() is None
    finally:
        stop_postgres(process)
