"""Who holds the lock of a gateway's folder: `4711 web-1 1795389441` in the lock's file, process, host and since when.

For people alone: what fences is the lock, which dies with its process. The words may outlive a process that was killed,
and a rollback script holds the lock without a word.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

_LONG = 5.0  # seconds; nobody who is well holds the lock for longer


def sign(descriptor: int) -> None:
    """Called with the lock held. On a full disk it is only not known who that is."""
    with contextlib.suppress(OSError):
        words = f"{os.getpid()} {socket.gethostname()} {time.time():.0f}\n".encode()
        os.pwrite(descriptor, words, 0)
        os.ftruncate(descriptor, len(words))


def unsign(descriptor: int) -> None:
    """Called before the lock is let go."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)


def told(descriptor: int) -> str:
    """`process 4711 on web-1, which is stopped, has held it since ...`, and how to end it; empty when nobody knows."""
    try:
        process, host, since = os.pread(descriptor, 200, 0).decode().split()
        held, moment = time.time() - float(since), datetime.fromtimestamp(float(since), UTC)
        state = _state(int(process)) if host == socket.gethostname() else "?"
    except (OSError, ValueError, OverflowError):
        return ""
    if not state:
        return ""
    stopped = state in "Tt"
    how = f"; end it there: kill -9 {process}" if stopped or held > _LONG else ""
    which = ", which is stopped," if stopped else ""
    return f"process {process} on {host}{which} has held it since {moment:%Y-%m-%d %H:%M:%S} UTC{how}"


def _state(process: int) -> str:
    """A letter as `ps` has it, empty when there is no such process, and a question mark where nobody knows."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1]
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else "?"
    except OSError:
        return "?"
