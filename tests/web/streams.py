"""The dashboard as a process of its own, and streams of live events that a test holds open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from controlplane.embedded.children import wait_until

ROOT = Path(__file__).parent.parent.parent
LISTENER = "switchyard-live"  # as PostgreSQL knows the connection that hears for all streams


@contextmanager
def dashboard_process(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """uvicorn on the test database, with a reconcile loop beside it; answers when the block begins."""
    database = connection.settings_dict
    environment = os.environ | {
        "DATABASE_URL": f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}",
        "ALLOWED_HOSTS": "127.0.0.1",
        "WORKER_HEAD_START": "0.02",
        "HEALTH_STALE_AFTER": "3600",
        "REDIS_URL": "",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.dashboard", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        ready = wait_until(lambda: _answers(port), seconds=60, alive=lambda: process.poll() is None)
        assert ready, log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def session_of(name: str) -> str:
    """A new session of an account, as its browser has it."""
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client.cookies[settings.SESSION_COOKIE_NAME].value


class Stream:
    """One open stream. Use it as a context."""

    def __init__(self, port: int, session: str, *topics: str, within: float = 15.0) -> None:
        self._client = httpx.Client(trust_env=False, timeout=within)
        request = self._client.build_request(
            "GET",
            f"http://127.0.0.1:{port}/live",
            params=[("topic", topic) for topic in topics],
            cookies={settings.SESSION_COOKIE_NAME: session},
        )
        self.answer = self._client.send(request, stream=True)
        self._lines = self.answer.iter_lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self._client.close()

    def next(self) -> tuple[str, Any]:
        """Name and data of the next event. Raises StopIteration at the stream's end, ReadTimeout after `within`."""
        found: dict[str, str] = {}
        while line := next(self._lines):
            name, _, value = line.partition(": ")
            found[name] = value
        assert found["id"].isdecimal()
        return found["event"], json.loads(found["data"])

    def until(self, name: str) -> Any:
        """The data of the next event of this name; others are passed over."""
        while True:
            found, data = self.next()
            if found == name:
                return data


def backends(*, listening: bool) -> list[int]:
    """The process ids of the connections to the test database: of the listener, or of all others but ours."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND (application_name = %s) = %s",
            [LISTENER, listening],
        )
        return [pid for (pid,) in cursor.fetchall()]


def cut_off(pids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])
