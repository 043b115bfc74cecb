"""`python -m controlplane.container_health web|worker|observer|beat`: health checks of our own containers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

BEAT_FOLDER = Path("/beat")
BEAT_WRITES_WITHIN = 600.0  # seconds; beat writes its schedule every 180 s


def web(url: str = "http://127.0.0.1:8000/healthz") -> bool:
    """Whether the web process answers 200 under its own name."""
    import httpx

    # Django answers only to the names that it was given.
    host = os.environ.get("ALLOWED_HOSTS", "localhost").split(",")[0].strip().lstrip(".")
    try:
        return httpx.get(url, headers={"Host": host}, timeout=4.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def worker(name: str = "worker") -> bool:
    """Whether the Celery worker of this name in this container answers a ping through Redis."""
    from controlplane.celery import app

    return bool(app.control.ping(destination=[f"{name}@{os.uname().nodename}"], timeout=5.0))


def beat(folder: Path = BEAT_FOLDER) -> bool:
    """Whether beat has written its schedule lately."""
    written = [path.stat().st_mtime for path in folder.iterdir()] if folder.is_dir() else []
    return bool(written) and time.time() - max(written) < BEAT_WRITES_WITHIN


def main(arguments: list[str]) -> int:
    """Exit status 0 when healthy, 1 when not, 2 for an unknown name."""
    checks: dict[str, Callable[[], bool]] = {
        "web": web,
        "worker": worker,
        "observer": partial(worker, "observer"),
        "beat": beat,
    }
    check = checks.get(arguments[0] if arguments else "")
    if check is None:
        return 2
    return 0 if check() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
