"""`python -m bench.live`: 500 pages that are open at once, told by streams, beside the same pages asking every 2 s.

- `streams`: every stream is open on one web process; one change is told, and each stream's event is timed
- `polling`: what one question of a page costs that process, and so what 500 pages cost that ask every 2 s

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg

from bench.dashboard import Installation, installation
from bench.figures import Machine, finish, percentile, ratio, rounded, say
from bench.processes import HOST, NotMeasured, port_offset, shipped_plan, upstreams
from migrations_app.live import CHANNEL, Topic, messages

EXPECTED = {"event_p95_ms": 250.0, "connections_more": 2}  # on two quiet shared cores
POLL_EVERY = 2.0  # seconds: how often a page without a stream asks
EVENTS_APART = 0.6  # seconds: longer than what a stream puts together
OF_SESSION, OF_ACCOUNT = 4, 20  # streams that the dashboard gives to each
AT_ONCE = 10  # pages that are opened together: as many ask the database at the same time
WARM = 50  # pages after which the dashboard's pool of connections has grown as far as that takes
OPEN_WITHIN, SEEN_WITHIN = 60.0, 10.0  # seconds
_MAKE_SESSIONS = """
import json
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
keys = []
for number in range({accounts}):
    user = User.objects.create_user(f"bench-{{number}}")
    user.groups.add(Group.objects.get(name="viewer"))
    for _ in range({sessions}):
        client = Client()
        client.force_login(user)
        keys.append(client.cookies[settings.SESSION_COOKIE_NAME].value)
address = {{name: connection.settings_dict[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")}}
print(json.dumps({{"cookie": settings.SESSION_COOKIE_NAME, "keys": keys, "address": address}}))
"""


@dataclass
class Page:
    """A stream that is open. `seen` has the moments of its events, on time.monotonic's clock."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    live: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[float] = field(default_factory=list)

    async def listen(self) -> None:
        async for line in self.reader:
            if line.startswith(b"event: resync"):
                self.live.set()
            elif line.startswith(b"event: change"):
                self.seen.append(time.monotonic())


async def open_page(port: int, cookie: str) -> Page:
    """Raises NotMeasured when the dashboard gives no stream."""
    reader, writer = await asyncio.open_connection(HOST, port)
    request = f"GET /live?topic=plan HTTP/1.1\r\nHost: {HOST}:{port}\r\nCookie: {cookie}\r\n\r\n"
    writer.write(request.encode())
    status = await reader.readline()
    if b" 200 " not in status:
        raise NotMeasured(f"a stream is answered with {status.decode(errors='replace').strip()}")
    return Page(reader, writer)


def web_process(port: int) -> psutil.Process:
    """The dashboard's, below us. Raises NotMeasured."""
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = one.cmdline()
            if "controlplane.asgi:application" in words and str(port) in words:
                return one
    raise NotMeasured("the dashboard's process was not found")


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def connections(process: psutil.Process, port: int) -> int:
    """How many the dashboard's process has open to PostgreSQL, which listens at this port."""
    return sum(bool(one.raddr) and one.raddr.port == port for one in process.net_connections("tcp"))


async def measure(it: Installation, *, pages: int, events: int, idle: float, questions: int) -> dict[str, object]:
    """The figures of a run with `pages` streams, `events` changes, `idle` seconds without one, `questions` asked."""
    accounts = -(-pages // OF_ACCOUNT)
    told = it.manage("shell", "-c", _MAKE_SESSIONS.format(accounts=accounts, sessions=OF_ACCOUNT // OF_SESSION))
    found = json.loads(told.splitlines()[-1])
    cookies = [f"{found['cookie']}={key}" for key in found["keys"] for _ in range(OF_SESSION)][:pages]
    address = found["address"]
    process, postgres = web_process(it.ports.dashboard), int(address["PORT"])
    with psycopg.connect(
        dbname=address["NAME"],
        user=address["USER"],
        password=address["PASSWORD"] or None,
        host=address["HOST"],
        port=postgres,
        autocommit=True,
    ) as database:
        polling = await _ask(it, cookies[0], process, questions)
        shared = Machine()
        opened, listening = await _open(it, cookies[:WARM])
        try:
            connected, memory = connections(process, postgres), process.memory_info().rss
            more, also = await _open(it, cookies[WARM:])
            opened, listening = [*opened, *more], [*listening, *also]
            say(f"{len(opened)} streams are open")
            begun, before = time.monotonic(), cpu_seconds(process)
            await asyncio.sleep(idle)
            busy = (cpu_seconds(process) - before) / (time.monotonic() - begun)
            connected_after, memory_after = connections(process, postgres), process.memory_info().rss
            seen, cost = await _tell(database, opened, process, events)
            others = shared.figures()
        finally:
            for task in listening:
                task.cancel()
            for page in opened:
                page.writer.close()
    polled = polling["cpu_ms_per_question"] / 1000 * pages / POLL_EVERY
    return {
        "bench": "live",
        "streams": {
            "open": len(opened),
            "events": events,
            "event_ms": {
                "p50": rounded(percentile(seen, 0.5)),
                "p95": rounded(percentile(seen, 0.95)),
                "max": rounded(max(seen)),
            },
            "missed": events * len(opened) - len(seen),
            "cpu_ms_per_event_to_all": rounded(cost),
            "idle_cores": round(busy, 4),
            "memory_kb_per_stream": rounded((memory_after - memory) / 1024 / (len(opened) - WARM)),
            "database_connections": {f"with_{WARM}": connected, f"with_{len(opened)}": connected_after},
        },
        "polling": {name: rounded(value) for name, value in polling.items()} | {"cores": rounded(polled)},
        "ratios": {"cores_polling_over_idle_streams": ratio(polled, busy)},
        "expected": EXPECTED,
        "machine": others,
    }


async def _open(it: Installation, cookies: list[str]) -> tuple[list[Page], list[asyncio.Task[None]]]:
    opened: list[Page] = []
    listening: list[asyncio.Task[None]] = []
    for begin in range(0, len(cookies), AT_ONCE):
        some = cookies[begin : begin + AT_ONCE]
        opened += await asyncio.gather(*(open_page(it.ports.dashboard, cookie) for cookie in some))
    listening = [asyncio.create_task(page.listen()) for page in opened]
    try:
        async with asyncio.timeout(OPEN_WITHIN):
            for page in opened:
                await page.live.wait()
    except TimeoutError:
        raise NotMeasured("not every stream came to life") from None
    return opened, listening


async def _tell(
    database: psycopg.Connection, opened: list[Page], process: psutil.Process, events: int
) -> tuple[list[float], float]:
    """Milliseconds from telling to every stream's event; processor milliseconds that one event to all took."""
    seen, before = [], cpu_seconds(process)
    for number in range(events):
        for page in opened:
            page.seen.clear()
        told = time.monotonic()
        database.execute("SELECT pg_notify(%s, %s)", [CHANNEL, messages(Topic.PLAN, str(number))[0]])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_WITHIN):
                while not all(page.seen for page in opened):
                    await asyncio.sleep(0.01)
        seen += [(page.seen[0] - told) * 1000 for page in opened if page.seen]
        await asyncio.sleep(EVENTS_APART)
    if not seen:
        raise NotMeasured("no stream saw any event")
    return seen, (cpu_seconds(process) - before) * 1000 / events


async def _ask(it: Installation, cookie: str, process: psutil.Process, questions: int) -> dict[str, float]:
    """One page's parts, one question after the other."""
    headers = {"cookie": cookie, "hx-request": "true"}
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{it.ports.dashboard}", trust_env=False) as client:
        for _ in range(5):
            answer = await client.get("/live/", headers=headers)
            if answer.status_code != httpx.codes.OK:
                raise NotMeasured(f"a page's question is answered with {answer.status_code}")
        begun, before = time.monotonic(), cpu_seconds(process)
        for _ in range(questions):
            await client.get("/live/", headers=headers)
        cost, took = cpu_seconds(process) - before, time.monotonic() - begun
    return {"ms_per_question": took * 1000 / questions, "cpu_ms_per_question": cost * 1000 / questions}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it was measured, 1 when it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.live", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=500, help=f"more than {WARM}")
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--idle", type=float, default=10.0, help="seconds without a change")
    parser.add_argument("--questions", type=int, default=100)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
        try:
            offset = port_offset()
            with (
                upstreams(shipped_plan(offset), folder / "upstreams.log"),
                installation(offset, folder / "state") as it,
            ):
                figures = asyncio.run(
                    measure(it, pages=chosen.pages, events=chosen.events, idle=chosen.idle, questions=chosen.questions)
                )
        except NotMeasured as problem:
            say(f"not measured: {problem}")
            return 1
    finish(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
