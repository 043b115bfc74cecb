"""The supervisor's rules, on real child processes."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from honcho.printer import Printer

from controlplane.embedded import leftovers
from controlplane.embedded.errors import StartFailed
from controlplane.embedded.supervisor import Part, Steps, Supervisor


def script(name: str, body: str, **options: object) -> Part:
    return Part(name, [sys.executable, "-u", "-c", textwrap.dedent(body)], **options)  # type: ignore[arg-type]


SLEEPER = "import time; print('hello'); time.sleep(60)"


class Run:
    """One run of a supervisor: its exit status, its log, and how long it took to stop."""

    def __init__(self, folder: Path) -> None:
        self.log = io.StringIO()
        self.marker = str(folder)
        environment = {**os.environ, leftovers.MARKER: self.marker}
        self.supervisor = Supervisor(environment, folder, Printer(self.log))
        self.stopped_in = 0.0

    def __call__(self, start: Callable[[Supervisor], Steps]) -> int:
        asked = 0.0

        def then_stop(running: Supervisor) -> Steps:
            nonlocal asked
            yield from start(running)
            asked = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)

        status = self.supervisor.run(then_stop)
        self.stopped_in = time.monotonic() - asked
        return status

    @property
    def lines(self) -> list[str]:
        return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def run(tmp_path: Path):
    this = Run(tmp_path)
    yield this
    assert leftovers.find(this.marker) == []


def seen(run: Run, text: str) -> Callable[[], bool]:
    return lambda: text in run.log.getvalue()


def test_output_has_the_name_of_its_process_before_each_line(run: Run):
    def start(running: Supervisor) -> Steps:
        running.launch(script("web", SLEEPER))
        yield from running.until(seen(run, "hello"), what="its word", seconds=10)

    assert run(start) == 0
    assert "web          | hello" in run.lines


def test_lines_that_nobody_needs_are_left_out(run: Run):
    def start(running: Supervisor) -> Steps:
        body = "import time; print('noise 1'); print('news'); time.sleep(60)"
        running.launch(script("web", body, noise=re.compile("^noise")))
        yield from running.until(seen(run, "news"), what="its word", seconds=10)

    run(start)
    assert not any("noise" in line for line in run.lines)


def test_a_process_that_ends_is_started_again_and_the_others_go_on(run: Run):
    pids: set[int] = set()

    def start(running: Supervisor) -> Steps:
        steady = running.launch(script("steady", SLEEPER))
        child = running.launch(script("web", SLEEPER))
        assert steady.popen is not None
        assert child.popen is not None
        pids.update({steady.popen.pid, child.popen.pid})
        os.kill(child.popen.pid, signal.SIGKILL)
        yield from running.until(seen(run, "web started again"), what="the restart", seconds=10)
        assert steady.running
        assert child.running
        assert child.popen.pid not in pids

    assert run(start) == 0
    assert any("web ended unexpectedly (killed by SIGKILL); starting it again in 0.5 s" in line for line in run.lines)


def test_the_pause_before_a_restart_doubles(run: Run):
    def start(running: Supervisor) -> Steps:
        running.launch(script("web", "raise SystemExit(3)"))
        yield from running.until(seen(run, "starting it again in 1 s"), what="the second restart", seconds=10)

    run(start)
    assert any("ended unexpectedly (exit status 3); starting it again in 0.5 s" in line for line in run.lines)


def test_a_restart_first_ends_what_the_process_left_behind(run: Run):
    body = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("child", child.pid)
        time.sleep(60)
    """

    def start(running: Supervisor) -> Steps:
        child = running.launch(script("worker", body))
        yield from running.until(seen(run, "child "), what="its word", seconds=10)
        left = int(re.findall(r"child (\d+)", run.log.getvalue())[0])
        assert child.popen is not None
        os.kill(child.popen.pid, signal.SIGKILL)
        yield from running.until(seen(run, "worker started again"), what="the restart", seconds=10)
        assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE

    assert run(start) == 0


def test_a_step_that_fails_ends_everything_with_its_reason_last(run: Run):
    def start(running: Supervisor) -> Steps:
        running.launch(script("web", SLEEPER))
        setup = running.launch(script("setup", "print('no table'); raise SystemExit(2)", once=True))
        yield from running.finish(setup, seconds=10)

    assert run(start) == 1
    assert run.lines[-1] == "not started: setup failed (exit status 2): no table"


def test_a_process_that_a_step_needs_and_that_ends_fails_the_step(run: Run):
    def start(running: Supervisor) -> Steps:
        web = running.launch(script("web", "raise SystemExit('cannot import it')"))
        yield from running.until(lambda: False, what="its first answer", seconds=10, needs=[web])

    assert run(start) == 1
    assert run.lines[-1] == "not started: web ended before its first answer (exit status 1): cannot import it"


def test_waiting_ends_with_its_time(run: Run):
    def start(running: Supervisor) -> Steps:
        yield from running.until(lambda: False, what="an answer", seconds=0.2)

    assert run(start) == 1
    assert run.lines[-1].startswith("not started: An answer did not come")


def test_a_part_that_cannot_be_prepared_fails_the_start(run: Run):
    def before() -> None:
        raise StartFailed("The folder is locked.")

    def start(running: Supervisor) -> Steps:
        running.launch(script("gateway", SLEEPER, before=before))
        yield

    assert run(start) == 1
    assert run.lines[-1] == "not started: The folder is locked."


def test_processes_that_do_not_listen_are_killed_in_time(run: Run):
    body = """
        import signal, subprocess, sys, time
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("deaf")
        time.sleep(60)
    """

    def start(running: Supervisor) -> Steps:
        running.launch(script("worker", body))
        running.launch(script("database", body, database=True))
        yield from running.until(lambda: run.log.getvalue().count("deaf") == 2, what="both", seconds=10)

    assert run(start) == 0
    assert run.stopped_in < 5


def test_databases_are_stopped_last_and_each_part_by_its_own_signal(run: Run, tmp_path: Path):
    body = """
        import pathlib, signal, sys, time
        def end(number, frame):
            with open("ends", "a") as file:
                file.write(f"{sys.argv[1]} {signal.Signals(number).name}\\n")
            raise SystemExit
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        print("up")
        time.sleep(60)
    """

    def part(name: str, **options: object) -> Part:
        return Part(name, [sys.executable, "-u", "-c", textwrap.dedent(body), name], **options)  # type: ignore[arg-type]

    def start(running: Supervisor) -> Steps:
        running.launch(part("postgres", database=True, stop_signal=signal.SIGINT))
        running.launch(part("web"))
        yield from running.until(lambda: run.log.getvalue().count("up") == 2, what="both", seconds=10)

    assert run(start) == 0
    assert (tmp_path / "ends").read_text().splitlines() == ["web SIGTERM", "postgres SIGINT"]


def test_leftovers_are_known_by_their_state_folder_and_ended(run: Run, tmp_path: Path):
    def process(state: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SLEEPER], env={**os.environ, leftovers.MARKER: state})

    ours, another = process(run.marker), process(str(tmp_path / "other"))
    try:
        end = time.monotonic() + 10
        while not leftovers.find(run.marker) and time.monotonic() < end:
            time.sleep(0.01)
        assert leftovers.end(run.marker, seconds=2) == 1
        assert not psutil.pid_exists(ours.pid)
        assert another.poll() is None
    finally:
        for process_ in (ours, another):
            process_.kill()
            process_.wait()
