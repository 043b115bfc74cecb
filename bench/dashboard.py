"""A release manager at the real dashboard, and the installation behind it, made for one benchmark."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import httpx

from bench.load import Answer, Connection, encode
from bench.processes import HOST, PLAN, NotMeasured, last_words, process
from controlplane.embedded.children import wait_until
from controlplane.environment import REPOSITORY, Ports

READY_WITHIN = 90.0  # seconds
ACCOUNT = "release-manager"


@dataclass(frozen=True)
class Installation:
    """A running one: dashboard, Celery worker and beat, PostgreSQL, Redis and Envoy, each a real process."""

    ports: Ports
    environment: dict[str, str]
    password: str
    state: Path

    def manage(self, *arguments: str) -> str:
        """Run a command of the product. Raises NotMeasured with its last words."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise NotMeasured(f"manage.py {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout


@contextmanager
def installation(offset: int, state: Path, plan: Path = PLAN, **settings: str) -> Iterator[Installation]:
    """Start `up` on a new state folder with a plan, the shipped one's accounts, and week 1 signed off.

    `settings` are further ones of its environment.
    """
    password = secrets.token_urlsafe(12)
    inherited = {key: value for key, value in os.environ.items() if not key.endswith(("_URL", "_PORT"))}
    environment = (
        inherited | {"STATE_DIR": str(state), "PORT_OFFSET": str(offset), "DEMO_PASSWORD": password} | settings
    )
    environment.pop("GATEWAY_DIR", None)
    environment.pop("SWITCHYARD_MODE", None)
    log = state.with_suffix(".log")
    with process([sys.executable, "-m", "controlplane.embedded", "up"], log, env=environment, seconds=8.0) as child:

        def is_ready() -> bool:
            return any(line.startswith("ready") for line in log.read_text(errors="replace").splitlines())

        if not wait_until(is_ready, seconds=READY_WITHIN, alive=lambda: child.poll() is None, pause=0.05):
            raise NotMeasured(f"the dashboard did not start: {last_words(log)}")
        running = Installation(Ports.from_environment({"PORT_OFFSET": str(offset)}), environment, password, state)
        running.manage("plan", "load", str(plan), "--actor", "bench", "--time-scale", "3600")
        running.manage("demo_accounts")
        for row in json.loads(running.manage("prerequisite", "list", "--week", "1", "--json")):
            if row["kind"] == "manual" and not row["held"]:
                said = ("--actor", "bench", "--reason", "for a benchmark")
                running.manage("prerequisite", "tick", str(row["id"]), *said)
        running.manage("ready", "--wait", "30")
        yield running


@dataclass(frozen=True)
class Click:
    """One POST. Times on time.monotonic's clock, in seconds. `said_ms` is what the dashboard itself told the person."""

    clicked: float
    answered: float
    confirmed: bool
    said_ms: float | None


class Person:
    """A browser that is signed in. What is timed goes over a connection of its own, with nothing around it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client = httpx.AsyncClient(
            base_url=f"http://{HOST}:{port}", trust_env=False, follow_redirects=True, timeout=10
        )
        self._connection: Connection | None = None

    async def sign_in(self, password: str) -> None:
        """Raises NotMeasured when the dashboard does not let us in."""
        page = await self._client.get("/sign-in/")
        form = {"csrfmiddlewaretoken": field_of(page.text, "csrfmiddlewaretoken")}
        page = await self._client.post("/sign-in/", data={**form, "username": ACCOUNT, "password": password})
        if page.status_code != httpx.codes.OK or page.url.path == "/sign-in/":
            raise NotMeasured(f"signing in at the dashboard gives {page.status_code} at {page.url.path}")

    async def click(self, flag: str, verb: str, week: int = 1) -> Click:
        """Open the week's page, then POST its Enable or Rollback form for one service. Raises NotMeasured, Lost."""
        page = await self._client.get(f"/weeks/{week}/")
        form = {
            "csrfmiddlewaretoken": field_of(page.text, "csrfmiddlewaretoken"),
            "seen": field_of(page.text, "seen"),
            "request_key": str(uuid4()),
            "reason": "for a benchmark",
        }
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._client.cookies.jar)
        payload = encode(
            "POST",
            f"/flags/{flag}/{verb}/",
            body=urlencode(form).encode(),
            headers=[
                ("content-type", "application/x-www-form-urlencoded"),
                ("cookie", cookies),
                ("origin", f"http://{HOST}:{self._port}"),
                ("host", f"{HOST}:{self._port}"),
            ],
        )
        if self._connection is None or not self._connection.open:
            self._connection = await Connection.to(self._port)
        clicked = time.monotonic()
        answer = await self._connection.request(payload, within=10.0)
        return Click(clicked, answer.received, answer.status == 303, await self._said(answer, week))

    async def close(self) -> None:
        await self._client.aclose()
        if self._connection is not None:
            self._connection.close()

    async def _said(self, answer: Answer, week: int) -> float | None:
        if answer.status not in {202, 303}:
            text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.body.decode(errors="replace")))
            raise NotMeasured(f"the dashboard refuses the click with {answer.status}: {text.strip()[:300]}")
        page = await self._client.get(f"/weeks/{week}/")
        found = re.search(r"Applied on the gateway in (\d+) ms", html.unescape(page.text))
        return float(found[1]) if found else None


def field_of(page: str, name: str) -> str:
    """The value of the first input of this name. Raises NotMeasured."""
    found = re.search(rf'<input[^>]*name="{name}"[^>]*value="([^"]*)"', page)
    if found is None:
        raise NotMeasured(f"the page has no field {name}")
    return html.unescape(found[1])
