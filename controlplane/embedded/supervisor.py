"""One supervisor for all processes: honcho's manager, with our rules for what happens when a process ends.

Why it is subclassed: docs/decisions/0002-supervisor.md. In short: a process that ends is started again and stops nobody
else; a start goes through steps, and only a step that fails ends everything; stopping is bounded and leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from honcho.manager import Manager
from honcho.printer import Message
from honcho.process import Process

from controlplane.embedded import children, leftovers
from controlplane.embedded.errors import StartFailed

FIRST_BACK_OFF = 0.5  # seconds before the first restart; doubles with each
LONGEST_BACK_OFF = 10.0
STEADY_AFTER = 20.0  # seconds of life after which a process counts as well again
STOP_SECONDS = 2.0  # for everything but the databases, to end by themselves
DATABASE_STOP_SECONDS = 2.4
SAY_AFTER = 5.0  # seconds of waiting after which the log says what for
TICK = 0.05
NAME_WIDTH = 12  # columns for a part's name before its lines
LONGEST_LINE = 65536  # bytes; a longer one is cut

Steps = Iterator[None]  # a start that is under way; each step hands control back so that output and signals are seen to


@dataclass(frozen=True)
class Part:
    """A process to run: its command, its environment beside ours, how it is asked to stop, and what it need not say.

    `once`: it does its work and ends; it is not restarted. `database`: stopped after everything else. `noise` matches
    the lines that nobody needs to read; `run_as` is passed to `subprocess`. `before` runs before every start and may
    raise StartFailed.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    run_as: Mapping[str, Any] = field(default_factory=dict)
    noise: re.Pattern[str] | None = None
    before: Callable[[], None] | None = None
    once: bool = False
    database: bool = False


class Child(Process):
    """A part's process over its restarts. `popen` is None until it is started for the first time."""

    part: Part

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.popen: subprocess.Popen[bytes] | None = None
        self.partial = b""  # a line that has not ended yet
        self.started = 0.0
        self.failures = 0
        self.restart_at: float | None = None
        self.last_lines: deque[str] = deque(maxlen=3)

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.returncode is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, waits for its restart, or was never started."""
        return self.popen.returncode if self.popen is not None else None


class Supervisor(Manager):
    """Runs parts. `run` takes a function that yields through the start, and blocks until it is told to stop.

    `environment` is what every child gets; `cwd` is where they run.
    """

    def __init__(self, environment: Mapping[str, str], cwd: Path, printer: Any = None) -> None:
        super().__init__(printer)
        self._printer.width = NAME_WIDTH
        self.events.close()  # honcho's queue between processes: we read the children's pipes ourselves
        self._process_ctor = Child
        self._environment = dict(environment)
        self._cwd = cwd
        self._terminating = False
        self._selector = selectors.DefaultSelector()
        self._stop_asked = 0
        self._starting = True

    # -- for the start ----------------------------------------------------------------------------------------------

    def launch(self, part: Part) -> Child:
        """Start a part now; its output goes to our own, with its name before each line."""
        child: Child = self.add_process(part.name, "", env=None)
        child.part = part
        self._spawn(child)
        return child

    def until(self, check: Callable[[], bool], *, what: str, seconds: float, needs: Sequence[Child] = ()) -> Steps:
        """Yield until `check` holds. Raises StartFailed when the time is over or a process in `needs` ends."""
        begin = time.monotonic()
        said = False
        while not check():
            for child in needs:
                if child.exit_code is not None:
                    raise StartFailed(f"{child.name} ended before {what}{_why(child)}")
            waited = time.monotonic() - begin
            if waited > seconds:
                raise StartFailed(f"{what[0].upper()}{what[1:]} did not come within {seconds:.0f} s.")
            if waited > SAY_AFTER and not said:
                self.say(f"still waiting for {what}")
                said = True
            yield

    def finish(self, child: Child, *, seconds: float) -> Steps:
        """Yield until a part with `once` is done. Raises StartFailed when it fails or the time is over."""
        end = time.monotonic() + seconds
        while child.exit_code is None:
            if time.monotonic() > end:
                raise StartFailed(f"{child.name} was not done within {seconds:.0f} s.")
            yield
        if child.exit_code:
            raise StartFailed(f"{child.name} failed{_why(child)}")

    def say(self, text: str) -> None:
        """One line of our own in the log."""
        self._system_print(f"{text}\n")

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, start: Callable[[Supervisor], Steps]) -> int:
        """Go through the start, then keep everything running until SIGINT or SIGTERM. Returns the exit status."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            return self._loop(start(self))
        except BrokenPipeError:
            # Whoever read our log is gone; say nothing more, but still end the children.
            self._printer.output = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
            return 1
        finally:
            self._stop_all()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _loop(self, steps: Steps) -> int:
        while not self._stop_asked:
            self._pump(TICK)
            self._see_to_ends()
            if self._starting:
                try:
                    next(steps)
                except StopIteration:
                    self._starting = False
                except StartFailed as problem:
                    self._stop_all()
                    print(f"not started: {problem}", file=self._printer.output, flush=True)
                    return 1
        return 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        self._stop_asked += 1

    def _spawn(self, child: Child) -> None:
        part = child.part
        if part.before is not None:
            part.before()
        child.restart_at = None
        child.partial = b""
        child.started = time.monotonic()
        child.popen = children.start(
            part.command,
            output=subprocess.PIPE,
            # A worker whose log is gone does not end by asking. A database does, and should end in order.
            on_our_death=part.stop_signal if part.database else signal.SIGKILL,
            env=self._environment | dict(part.env),
            cwd=self._cwd,
            run_as=part.run_as,
        )
        assert child.popen.stdout is not None  # noqa: S101 - for the type checker
        os.set_blocking(child.popen.stdout.fileno(), False)
        self._selector.register(child.popen.stdout, selectors.EVENT_READ, child)

    def _pump(self, seconds: float) -> None:
        """Pass on what the children have written, waiting at most this long for the first of it."""
        for key, _ in self._selector.select(seconds):
            self._read(key.data, key.fileobj)

    def _read(self, child: Child, stream: Any) -> bool:
        """Read once without waiting; False when there is nothing more to be had now."""
        try:
            data = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(stream)
            stream.close()
        *lines, child.partial = (child.partial + data).split(b"\n")
        if len(child.partial) > LONGEST_LINE or (not data and child.partial):
            lines.append(child.partial)
            child.partial = b""
        for line in lines:
            self._print(child, line.decode("utf-8", "replace").rstrip())
        return bool(data)

    def _print(self, child: Child, line: str) -> None:
        noise = child.part.noise
        if not line or (noise is not None and noise.search(line)):
            return
        child.last_lines.append(line)
        if not self._terminating:
            self._printer.write(Message("line", line, self._clock.now(), child.name, child.colour))

    def _children(self) -> list[Child]:
        return [entry["obj"] for entry in self._processes.values()]

    def _see_to_ends(self) -> None:
        """Notice which children have ended, and start again those whose time has come."""
        for child in self._children():
            if child.popen is not None and child.popen.returncode is None and child.popen.poll() is not None:
                # What it left of its own children (a worker's pool) would fight with its successor.
                children.signal_group(child.popen.pid, signal.SIGKILL)
                self._drain(child)
                if not child.part.once:
                    self._plan_restart(child, f"ended unexpectedly ({_exit_words(child.exit_code)})")
            elif child.restart_at is not None and time.monotonic() >= child.restart_at:
                self._restart(child)

    def _plan_restart(self, child: Child, why: str) -> None:
        if time.monotonic() - child.started > STEADY_AFTER:
            child.failures = 0
        pause = min(FIRST_BACK_OFF * 2**child.failures, LONGEST_BACK_OFF)
        child.failures += 1
        child.restart_at = time.monotonic() + pause
        self.say(f"{child.name} {why}; starting it again in {pause:g} s")

    def _restart(self, child: Child) -> None:
        try:
            self._spawn(child)
        except (StartFailed, OSError) as problem:
            self._plan_restart(child, f"cannot be started ({problem})")
        else:
            self.say(f"{child.name} started again (pid {child.popen.pid if child.popen else '?'})")

    def _drain(self, child: Child) -> None:
        """Read the last words of a child that has ended."""
        stream = child.popen.stdout if child.popen is not None else None
        while stream is not None and not stream.closed and self._read(child, stream):
            pass

    # -- the end ----------------------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """End every child, databases last, each within bounds; a further signal cuts the waiting short."""
        if self._terminating:
            return
        if any(child.running for child in self._children()):
            self._say_quietly("stopping")
        self._terminating = True
        self._stop([child for child in self._children() if not child.part.database], STOP_SECONDS)
        self._stop([child for child in self._children() if child.part.database], DATABASE_STOP_SECONDS)
        for child in self._children():
            if child.popen is not None and child.popen.stdout is not None:
                child.popen.stdout.close()
        self._selector.close()
        leftovers.end(self._environment[leftovers.MARKER], seconds=0.5)

    def _stop(self, group: list[Child], seconds: float) -> None:
        running = [(child.popen, child.part) for child in group if child.popen is not None and child.running]
        for popen, part in running:
            children.signal_process(popen, part.stop_signal)
        asked = self._stop_asked
        end = time.monotonic() + seconds
        while any(popen.poll() is None for popen, _ in running):
            if time.monotonic() > end or self._stop_asked > max(asked, 1):
                break
            self._pump(TICK)
        for popen, part in running:
            if popen.poll() is None:
                self._say_quietly(f"{part.name} did not stop in time and is killed")
            children.signal_group(popen.pid, signal.SIGKILL)
            popen.wait()

    def _say_quietly(self, text: str) -> None:
        """Say it if anybody still listens."""
        with contextlib.suppress(BrokenPipeError):
            self.say(text)


def _exit_words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _why(child: Child) -> str:
    said = f": {child.last_lines[-1]}" if child.last_lines else "."
    return f" ({_exit_words(child.exit_code)}){said}"


def log_printer() -> Any:
    """honcho's printer on our standard output, without colours where NO_COLOR is set or nobody looks."""
    from honcho.printer import Printer

    return Printer(sys.stdout, colour="NO_COLOR" not in os.environ)
