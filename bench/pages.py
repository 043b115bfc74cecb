"""`python -m bench.pages`: what pages cost with a long past, beside the same pages with a day of it.

Two databases on one PostgreSQL, alike but for their past: `long` has 90 days of history and a million audit events,
`short` one day and a thousand. The pages are asked for in the server's own process, in rounds that take turns: no
network and no other requests are in the times. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.figures import Machine, finish, ratio, say
from bench.processes import NotMeasured
from controlplane.embedded.children import free_port, start, stop
from controlplane.embedded.errors import StartFailed
from controlplane.embedded.postgres import PostgresServer, run_as
from controlplane.environment import REPOSITORY

PAGES = ("timeline", "overview", "service", "week", "gateway", "status")


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own, as `make up` has it."""
    folder = Path(tempfile.mkdtemp(prefix="switchyard-bench-"))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
    server = PostgresServer(folder / "postgres", free_port())
    try:
        server.initialise()
        with (folder / "postgres.log").open("ab") as log:
            process = start(server.command(), output=log, on_our_death=signal.SIGINT, run_as=run_as())
        try:
            server.wait(process)
            yield server
        finally:
            stop(process, signal.SIGINT)
    except StartFailed as problem:
        raise NotMeasured(str(problem)) from problem
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def inside(server: PostgresServer, database: str, *options: str) -> dict[str, object]:
    """Run `bench.pages_inside` on a database; its figures."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith(("_URL", "_PORT"))}
    environment |= {
        "DATABASE_URL": server.url(database),
        "SWITCHYARD_MODE": "local",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "ALLOWED_HOSTS": "testserver",
        "LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "bench.pages_inside", *options]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise NotMeasured(f"{' '.join(command[1:])} on {database} ended with {done.returncode}")
    figures: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(*, services: int, days: int, minute_days: int, events: int, loads: int) -> dict[str, object]:
    """Figures of both databases, and the ratios of the long past over the short one."""
    machine = Machine()
    sizes = {"short": (1, 1, min(events, 1000)), "long": (days, minute_days, events)}
    found: dict[str, dict[str, object]] = {}
    with postgres() as server:
        for name, (past, by_minute, audited) in sizes.items():
            say(f"{name}: {services} services, {past} days, {audited} audit events ...")
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            made = inside(
                server, name, "make", f"--services={services}", f"--days={past}", f"--minute-days={by_minute}",
                f"--events={audited}",
            )  # fmt: skip
            found[name] = made
        for name in sizes:
            found[name] |= inside(server, name, "measure", f"--loads={loads}")
    ratios = {
        f"{page}_p95_long_over_short": ratio(_p95(found["long"], page), _p95(found["short"], page)) for page in PAGES
    }
    return {
        "bench": "pages",
        "services": services,
        "days": days,
        "audit_events": events,
        **found,
        "ratios": ratios,
        "expected": {"queries": 12, "p95_ms": 50},
        "machine": machine.figures(),
    }


def _p95(figures: dict[str, object], page: str) -> float:
    pages = figures["pages"]
    assert isinstance(pages, dict)
    return float(pages[page]["p95_ms"])


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it was measured, 1 when it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--services", type=int, default=500)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--minute-days", type=int, default=2, help="of them by the minute; no page reads more")
    parser.add_argument("--events", type=int, default=1_000_000, help="in the audit log")
    parser.add_argument("--loads", type=int, default=100, help="of each page")
    chosen = parser.parse_args(arguments)
    try:
        figures = measure(**vars(chosen))
    except NotMeasured as problem:
        say(f"not measured: {problem}")
        return 1
    finish(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
