"""Keeping the gateway's folder small: the access log, and what killed writers left."""

from __future__ import annotations

from migrations_app.gateways.envoy.admin import AdminClient
from migrations_app.gateways.envoy.bootstrap import ACCESS_LOG
from migrations_app.gateways.envoy.files import Folder

FORMER_LOG = f"{ACCESS_LOG}.1"
ACCESS_LOG_LIMIT = 100_000_000  # bytes; with one former file the log takes about twice that


def clear_up(folder: Folder, client: AdminClient, *, lock_timeout: float, log_limit: int) -> bool:
    """Whether anything was done. Raises OSError, FolderBusy, Unreachable.

    Envoy writes on into the renamed file until it is asked to open the log again, so no line is lost. An Envoy that
    does not answer then is asked again by the next call, because its log is still missing.
    """
    with folder.locked(lock_timeout):
        done = _remove_leftovers(folder) > 0
        # Looked at under the lock: a second caller would push the former file out with a log that has just begun.
        done = _set_aside(folder, log_limit) or done
    # Outside of the lock, which a rollback may be waiting for.
    if (folder.path / FORMER_LOG).exists() and not (folder.path / ACCESS_LOG).exists():
        client.reopen_logs()
        done = True
    return done


def _remove_leftovers(folder: Folder) -> int:
    """Everybody writes under the lock, so what is temporary now belongs to a writer that was killed."""
    leftovers = list(folder.path.glob(".*.tmp"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def _set_aside(folder: Folder, limit: int) -> bool:
    log = folder.path / ACCESS_LOG
    try:
        if log.stat().st_size <= limit:
            return False
    except FileNotFoundError:
        return False
    log.replace(folder.path / FORMER_LOG)
    return True
