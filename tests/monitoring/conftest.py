"""The real web process, to be scraped over HTTP; and what docs/monitoring has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from controlplane.embedded.children import free_port, wait_until
from migrations_app.actions.triggers import watch_triggers
from migrations_app.gateways.base import Side
from migrations_app.models import DowntimeClock, Gateway, Service, TrafficCounter, Week
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import load_tracseq, make_healthy, put_behind
from tests.faults.system import Child, python
from tests.servers import with_database

# The files are read by a parser in any case. Where a Prometheus is installed, it has its say too.
collect_ignore = [] if shutil.which("prometheus") and shutil.which("promtool") else ["test_with_prometheus.py"]

Start = Callable[..., str]


@pytest.fixture
def start_web(tmp_path: Path) -> Iterator[Start]:
    """Starts web processes on the test database, with more of the environment if wanted; each ends with the test."""
    with ExitStack() as running:

        def start(*, ready: int = 200, **environ: str) -> str:
            return running.enter_context(web_process(tmp_path, ready, **environ))

        yield start


@contextmanager
def web_process(folder: Path, ready: int, **environ: str) -> Iterator[str]:
    """Its address, once /healthz answers with the status `ready`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    database = with_database(os.environ["TEST_POSTGRES_URL"], connection.settings_dict["NAME"])
    given = {"DATABASE_URL": database, "ALLOWED_HOSTS": "127.0.0.1", "HEALTH_STALE_AFTER": "600", **environ}
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    child = Child(
        python("uvicorn", "controlplane.asgi:application", *options), os.environ | given, folder / f"web-{port}.log"
    )
    try:
        alive = lambda: child.process.poll() is None  # noqa: E731
        assert wait_until(lambda: status(f"{url}/healthz") == ready, seconds=30, alive=alive), child.said()
        yield url
    finally:
        child.close()


def status(url: str) -> int:
    """0 while there is no answer."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def scrape(url: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{url}/metrics", headers=headers, timeout=20, trust_env=False)


@pytest.fixture
def estate(transactional_db) -> None:
    """TracSeq on the in-memory gateway, with something of all there is to tell."""
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    put_behind(1)
    reconcile_all()
    watch_triggers()
    now, gateway = timezone.now(), Gateway.objects.get()
    Week.objects.filter(number=1).update(soak=timedelta(hours=48), soak_started_at=now)
    DowntimeClock.objects.create(week=Week.objects.get(number=1), since=now, counted_until=now)
    TrafficCounter.objects.bulk_create(
        TrafficCounter(
            gateway=gateway,
            service=service,
            side=side.value,
            requests=100,
            errors=1,
            client_errors=2,
            retries=3,
            failovers=0,
            failed_failovers=0,
            latency=[],
            read_at=now,
        )
        for service in Service.objects.all()
        for side in Side
    )
