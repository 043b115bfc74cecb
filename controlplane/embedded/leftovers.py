"""Processes of an earlier start that did not end with it (`kill -9` of the supervisor, a crash).

Every child, and what it starts in turn, carries the state folder in its environment. So what is ours is known by its
own word and not by a process id, which may belong to somebody else by now.
"""

from __future__ import annotations

import os
import signal

import psutil

MARKER = "SWITCHYARD_SUPERVISED"


def find(state: str) -> list[psutil.Process]:
    """The processes that run for this state folder, ourselves not counted."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARKER) == state:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or another user's
    return found


def end(state: str, *, seconds: float) -> int:
    """End them: ask, and after `seconds` kill. Returns how many there were."""
    processes = find(state)
    for process in processes:
        _send(process, signal.SIGINT)  # PostgreSQL's fast shutdown; every other part ends by it too
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=1.0)
    return len(processes)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return  # it has ended meanwhile
