"""Starting and ending child processes so that none outlives us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec nothing may be imported or looked up.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(
    command: Sequence[str],
    *,
    output: IO[bytes] | int,
    on_our_death: signal.Signals = signal.SIGTERM,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    run_as: Mapping[str, Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own: Ctrl-C in the terminal is for us, and we then end the children in order.

    On Linux the child gets `on_our_death` when we die, however we die; elsewhere the supervisor's next start clears
    what was left. That signal follows the thread that starts the child: call this from the main thread. `run_as` holds
    further arguments for `subprocess.Popen`.
    """
    libc, number = _LIBC, int(on_our_death)

    def ask_for_signal() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, number)

    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=ask_for_signal,  # noqa: PLW1509 - it makes one system call and takes no lock
        env=None if env is None else dict(env),
        **{"cwd": cwd, **(run_as or {})},
    )


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that `pid` leads; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def signal_process(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal one child; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM, seconds: float = 4.0) -> None:
    """End a child that leads its own process group: ask with `number`, after `seconds` kill, and reap it."""
    if process.poll() is None:
        signal_process(process, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this port now, connections still closing on it aside."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now. Another process may take it before the caller does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_until(
    check: Callable[[], bool], *, seconds: float, alive: Callable[[], bool] | None = None, pause: float = 0.02
) -> bool:
    """Call `check` until it holds (True), the time is over, or `alive` says that waiting is useless (False)."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end or (alive is not None and not alive()):
            return False
        time.sleep(pause)
    return True
