"""`python -m demo.traffic`: light, steady traffic through the gateway, as laboratory users would make it.

Two dozen users log in and then read, and sometimes write, under all ten prefixes. A request that fails is counted and
not sent again, so that the summary tells what users met. While the gateway itself is away nothing is sent but a
question each second whether it is back.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

from demo.estate import Settings, SettingsError
from demo.seed import PASSWORD, users

TIMEOUT_S = 5.0
PROBE_S = 1.0
# A user whose login fails tries again after this long, as a person would.
LOGIN_AGAIN_S = 10.0
# Half of a token's life.
LOGIN_LASTS_S = 1800.0
# A step of a rollout keeps each user on one side: of so many the first per cent takes one along, ana.okafor.
USERS = 24

WORDS = ("library cleanup", "thaw aliquots", "flow cell", "concentration", "barcode scan")
# Weight, method, path. `{n}` becomes a number from 1 to 20.
MIX: tuple[tuple[int, str, str], ...] = (
    (12, "GET", "/api/notifications"),
    (4, "GET", "/api/notifications/{n}"),
    (10, "GET", "/api/storage/locations"),
    (3, "GET", "/api/storage/locations/{n}"),
    (10, "GET", "/api/rag/search"),
    (8, "GET", "/api/templates"),
    (10, "GET", "/api/auth/verify"),
    (3, "GET", "/api/auth/me"),
    (14, "GET", "/api/samples"),
    (8, "GET", "/api/samples/{n}"),
    (8, "GET", "/api/sequencing/runs"),
    (3, "GET", "/api/sequencing"),
    (3, "GET", "/api/dashboard"),
    (2, "GET", "/api/reports/run-throughput"),
    (2, "GET", "/api/spreadsheets"),
    (2, "POST", "/api/samples"),
    (1, "POST", "/api/notifications"),
    (1, "POST", "/api/spreadsheets"),
)


@dataclass
class User:
    """One user of the traffic; times are of the monotonic clock."""

    name: str
    token: str = ""
    login_at: float = 0.0


class Traffic:
    """Sends requests at a steady rate and counts what came of them."""

    def __init__(self, gateway: str, rate: float) -> None:
        self.rate = rate
        self.counts: Counter[str] = Counter()
        self._client = httpx.AsyncClient(base_url=gateway, timeout=TIMEOUT_S, trust_env=False)
        self._random = random.Random()
        self._weights = [weight for weight, _, _ in MIX]
        self._users = [User(user["username"]) for user in users() if user["active"]][:USERS]
        self._running: set[asyncio.Task[None]] = set()
        # Two traffics, or one that was started again, must not submit the same barcode.
        self._numbers = count(time.time_ns() // 1_000_000)
        self._away = False

    async def run(self, summary_s: float) -> None:
        """Until cancelled; one line each `summary_s` seconds and a last one at the end."""
        loop = asyncio.get_running_loop()
        began = due = loop.time()
        try:
            while True:
                if self._away:
                    await self._wait_for_gateway()
                    due = loop.time()
                if len(self._running) < self.rate * TIMEOUT_S + 1:
                    self._send()
                else:
                    self.counts["held back"] += 1
                if loop.time() - began >= summary_s:
                    self.summary(loop.time() - began)
                    began = loop.time()
                due = max(due + 1 / self.rate, loop.time() - 1)
                await asyncio.sleep(due - loop.time())
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._client.aclose()
            self.summary(loop.time() - began)

    def summary(self, seconds: float) -> None:
        """Print the counts and begin new ones."""
        c = self.counts
        say(
            f"last {seconds:.0f} s: {c['requests']} requests, {c['failed']} failed, {c['refused']} refused (4xx), "
            f"monolith {c['monolith']}, service {c['service']}, no side {c['none']}, held back {c['held back']}"
        )
        self.counts = Counter()

    def _send(self) -> None:
        task = asyncio.ensure_future(self._visit(self._random.choice(self._users)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _visit(self, user: User) -> None:
        now = time.monotonic()
        if user.login_at <= now:
            user.login_at = now + LOGIN_AGAIN_S
            await self._login(user)
            return
        _, method, path = self._random.choices(MIX, self._weights)[0]
        if (answer := await self._request(method, path, user)) is None:
            return
        if answer.status_code == 401 and user.token:
            # The side that answers now does not know this user's login: log in again.
            user.token, user.login_at = "", now + LOGIN_AGAIN_S

    async def _login(self, user: User) -> None:
        answer = await self._request("POST", "/api/auth/login", user)
        if answer is not None and answer.status_code == 200:
            user.token = str(answer.json()["token"])
            user.login_at = time.monotonic() + LOGIN_LASTS_S

    async def _request(self, method: str, path: str, user: User) -> httpx.Response | None:
        number = next(self._numbers)
        try:
            answer = await self._client.request(
                method,
                path.format(n=self._random.randint(1, 20)),
                headers={"authorization": f"Bearer {user.token}"} if user.token else {},
                **self._content(method, path, user, number),
            )
        except httpx.HTTPError as error:
            self.counts.update(("requests", "failed", "none"))
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                self._away = True
            return None
        side = answer.headers.get("x-side", "none")
        self.counts.update(("requests", side if side in {"monolith", "service"} else "none"))
        if answer.status_code >= 400:
            self.counts["failed" if answer.status_code >= 500 else "refused"] += 1
        return answer

    def _content(self, method: str, path: str, user: User, number: int) -> dict[str, Any]:
        if path == "/api/rag/search":
            return {"params": {"q": self._random.choice(WORDS)}}
        if method == "GET":
            return {}
        if path == "/api/spreadsheets":
            sheet = f"barcode,name,concentration\nDEMO-{number},Traffic sample,{number % 90}\n"
            return {"json": {"name": f"traffic-{number}.csv", "content": sheet}}
        bodies: dict[str, dict[str, Any]] = {
            "/api/auth/login": {"username": user.name, "password": PASSWORD},
            "/api/samples": {"barcode": f"DEMO-{number}", "name": "Traffic sample", "kind": "DNA"},
            "/api/notifications": {"title": "Hello", "body": f"Demo message {number}.", "recipient": user.name},
        }
        return {"json": bodies[path]}

    async def _wait_for_gateway(self) -> None:
        since = time.monotonic()
        say(f"{self._client.base_url} does not take connections; waiting for it")
        while True:
            try:
                await self._client.get("/health", timeout=PROBE_S)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                await asyncio.sleep(PROBE_S)
            except httpx.HTTPError:
                break
            else:
                break
        self._away = False
        say(f"{self._client.base_url} takes connections again, after {time.monotonic() - since:.0f} s")


def say(text: str) -> None:
    """One line of log, in one write."""
    sys.stdout.write(f"traffic: {text}\n")
    sys.stdout.flush()


async def drive(gateway: str, rate: float, summary_s: float) -> None:
    """Run until SIGTERM or SIGINT."""
    traffic = Traffic(gateway, rate)
    loop = asyncio.get_running_loop()
    say(f"{rate:g} requests/s to {gateway}")
    running = asyncio.ensure_future(traffic.run(summary_s))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main(arguments: list[str]) -> int:
    """Exit status 0 after a signal, 2 for arguments that make no sense."""
    try:
        gateway = Settings.for_command().gateway_url
    except SettingsError as error:
        say(str(error))
        return 2
    parser = argparse.ArgumentParser(prog="python -m demo.traffic", description="Light traffic through the gateway.")
    parser.add_argument("--gateway", default=gateway, help="its URL (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=10, help="requests a second (default: %(default)s)")
    parser.add_argument("--summary", type=float, default=60, help="seconds between two lines (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < options.rate <= 1000:
        parser.error("--rate must be over 0 and at most 1000")
    asyncio.run(drive(options.gateway, options.rate, options.summary))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
