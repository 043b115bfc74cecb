"""`up` as a person starts it, and `reset`: real processes, on ports of their own, until Ctrl-C."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg

from controlplane.embedded import leftovers
from controlplane.embedded.children import port_is_free, wait_until
from controlplane.environment import REPOSITORY, read_runtime
from tests.controlplane.started import STOP_SECONDS, Start
from tests.servers import postgres_server, redis_server


def test_up_keeps_running_stops_in_time_and_finds_its_state_again(start: Start):
    first = start("up")
    line = first.ready()
    urls = re.fullmatch(r"ready: dashboard (http://127\.0\.0\.1:\d+), gateway (http://127\.0\.0\.1:\d+)", line)
    assert urls is not None, line
    assert httpx.get(f"{urls[1]}/healthz").status_code == 200
    assert httpx.get(f"{urls[2]}/health").status_code == 200
    assert (first.state / "gateway" / "access.log").stat().st_mode & 0o777 == 0o600

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
