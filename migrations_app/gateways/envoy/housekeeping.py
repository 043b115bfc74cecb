"""Keeping the gateway's folder small: the access log, and what killed writers left."""

from __future__ import annotations

import contextlib
import time

from migrations_app.gateways.envoy.admin import AdminClient
from migrations_app.gateways.envoy.bootstrap import ACCESS_LOG
from migrations_app.gateways.envoy.files import Folder
from migrations_app.gateways.pins import PINS_FOLDER

FORMER_LOG = f"{ACCESS_LOG}.1"
ACCESS_LOG_LIMIT = 100_000_000  # bytes; with one former file the log takes about twice that
LEFTOVER_AGE = 600.0  # seconds after which nobody is still writing a temporary file
_LEFTOVERS = (".*.tmp", ".*.new", f"{PINS_FOLDER}/.*.tmp")  # `.new` is what rollback scripts write


def clear_up(folder: Folder, client: AdminClient, *, lock_timeout: float, log_limit: int, leftover_age: float) -> bool:
    """Whether anything was done. Raises OSError, FolderBusy, Unreachable.

    Envoy writes on into the renamed file until it is asked to open the log again, so no line is lost. An Envoy that
    does not answer then is asked again by the next call, because its log is still missing.
    """
    with folder.locked(lock_timeout):
        done = _remove_leftovers(folder, leftover_age)
        # Looked at under the lock: a second caller would push the former file out with a log that has just begun.
        done = _set_aside(folder, log_limit) or done
    # Outside of the lock, which a rollback may be waiting for.
    if (folder.path / FORMER_LOG).exists() and not (folder.path / ACCESS_LOG).exists():
        client.reopen_logs()
        done = True
    return done


def _remove_leftovers(folder: Folder, age: float) -> bool:
    """By age, because not everybody writes under the lock: pins wait for nobody, nor does the writing of scripts."""
    done = False
    for path in (path for pattern in _LEFTOVERS for path in folder.path.glob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # renamed, or removed, in this moment
            # Not by the time of its content, which `cp -p` in a rollback script takes from the file that it copies.
            if time.time() - path.stat().st_ctime >= age:
                path.unlink()
                done = True
    return done


def _set_aside(folder: Folder, limit: int) -> bool:
    log = folder.path / ACCESS_LOG
    try:
        if log.stat().st_size <= limit:
            return False
    except FileNotFoundError:
        return False
    log.replace(folder.path / FORMER_LOG)
    return True
