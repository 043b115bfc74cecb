"""A supervisor that is started as a person starts it, for the tests of `up` and `demo`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from controlplane.embedded import leftovers
from controlplane.embedded.children import port_is_free, wait_until
from controlplane.environment import REPOSITORY, Ports, is_running

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
