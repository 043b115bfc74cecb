"""The gateway's folder does not grow: the access log is set aside, and leftovers of killed writers go."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from migrations_app.gateways.errors import FolderUnusable, Unreachable
from migrations_app.gateways.memory import MemoryGateway
from tests.gateways.estate import free_port, wait_until

ROOT = Path(__file__).parents[3]


def numbers(path: Path) -> list[int]:
    """Of the requests to `/api/storage/<number>` that a log tells of."""
    lines = path.read_text().splitlines() if path.exists() else []
    paths = [json.loads(line)["path"] for line in lines]
    return [int(path.rsplit("/", 1)[1]) for path in paths if path.startswith("/api/storage/")]


def logs(envoy) -> list[str]:
    return sorted(path.name for path in envoy.folder.glob("access.log*"))


def test_a_long_log_is_set_aside_while_requests_come_and_no_line_is_lost(envoy, run):
    run(storage=0)
    log, former = envoy.folder / "access.log", envoy.folder / "access.log.1"
    gateway = envoy.adapter(log_limit=2_000)
    done, counter, sent = threading.Event(), itertools.count(), []

    def ask_on() -> None:
        while not done.is_set():
            number = next(counter)
            assert envoy.ask(f"/api/storage/{number}").status == 200
            sent.append(number)

    asker = threading.Thread(target=ask_on)
    asker.start()
    try:
        wait_until(lambda: log.exists() and log.stat().st_size > 2_000, timeout=5)
        assert gateway.housekeep()
        wait_until(log.exists, timeout=5)
    finally:
        done.set()
        asker.join()
    wait_until(lambda: sorted(numbers(former) + numbers(log)) == sent, timeout=5)
    assert numbers(former)
    assert numbers(log)
    assert logs(envoy) == ["access.log", "access.log.1"]
    before = former.stat().st_ino
    if log.stat().st_size <= 2_000:
        for number in range(20):
            envoy.ask(f"/api/storage/{number}")
        wait_until(lambda: log.stat().st_size > 2_000, timeout=5)
    second = log.stat().st_ino
    assert gateway.housekeep()
    assert former.stat().st_ino == second != before
    assert set(logs(envoy)) <= {"access.log", "access.log.1"}


def test_a_short_log_is_left_alone(envoy, run):
    run(storage=0)
    log = envoy.folder / "access.log"
    envoy.ask("/api/storage/1")
    wait_until(lambda: log.exists() and log.stat().st_size, timeout=5)
    before = log.stat().st_ino
    assert envoy.adapter().housekeep() is False
    assert log.stat().st_ino == before


def test_a_gateway_that_did_not_hear_of_it_is_asked_again_by_the_next_call(envoy, run):
    run(storage=0)
    log, former = envoy.folder / "access.log", envoy.folder / "access.log.1"
    envoy.ask("/api/storage/1")
    wait_until(lambda: log.exists() and log.stat().st_size, timeout=5)
    with pytest.raises(Unreachable):
        envoy.adapter(log_limit=0, admin_url=f"http://127.0.0.1:{free_port()}").housekeep()
    told = former.read_text()
    envoy.ask("/api/storage/2")
    wait_until(lambda: 2 in numbers(former), timeout=5)
    assert former.read_text().startswith(told)
    assert envoy.adapter().housekeep()
    envoy.ask("/api/storage/3")
    wait_until(lambda: 3 in numbers(log), timeout=5)
    assert 3 not in numbers(former)
    assert envoy.adapter().housekeep() is False


KILLED = """
import os, signal, sys
from pathlib import Path
from migrations_app.gateways.envoy.files import Folder
from migrations_app.gateways.pins import PinFolder
folder = Folder(Path(sys.argv[1]))
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
if os.fork() == 0:
    PinFolder(folder.path).pin(["USE_AUTH_SERVICE"], by="", why="", generation=None)
os.wait()
with folder.locked(1):
    folder.write("rds/rds.json", b"half a table")
"""


def test_what_killed_writers_left_is_removed_when_it_is_old_and_nothing_else(envoy, run, gateway):
    run(storage=0)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(envoy.folder)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = set(envoy.folder.rglob(".*.tmp"))
    assert {path.parent for path in left} == {envoy.folder, envoy.folder / "pins"}
    others = set(envoy.folder.rglob("*")) - left
    # Another may be about to rename them.
    assert not gateway.housekeep()
    assert set(envoy.folder.rglob("*")) == others | left
    assert envoy.adapter(leftover_age=0.0).housekeep()
    assert set(envoy.folder.rglob("*")) == others
    assert gateway.observe().drift == ()


def test_a_folder_that_is_not_there_is_told(envoy, tmp_path):
    with pytest.raises(FolderUnusable, match="nowhere"):
        envoy.adapter(folder=tmp_path / "nowhere").housekeep()


def test_an_adapter_with_nothing_to_clear_up_does_nothing():
    assert MemoryGateway().housekeep() is False
