"""The real web process is scraped over HTTP, also while PostgreSQL or Redis is away or hangs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from controlplane.embedded.children import free_port
from controlplane.embedded.postgres import PostgresServer
from controlplane.environment import REPOSITORY
from migrations_app.models import Plan, Service
from tests.faults.system import wait_for
from tests.monitoring.conftest import Start, scrape, status
from tests.servers import start_postgres, stop_postgres, with_database

WITHIN = 2.0  # seconds, whatever is away


def told(response: httpx.Response) -> dict[str, float]:
    """Name -> value, of what has no labels."""
    families = parse_plain(response.text)
    return {one.name: one.value for family in families for one in family.samples if not one.labels}


def timed(url: str) -> tuple[httpx.Response, float]:
    begun = time.monotonic()
    response = scrape(url)
    return response, time.monotonic() - begun


def test_a_scrape_tells_the_plan_that_runs(estate, start_web: Start):
    response = scrape(start_web())
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = told(response)
    assert found["switchyard_database_up"] == found["switchyard_queue_up"] == 1
    assert found["switchyard_plan_generation"] == Plan.objects.get().generation
    weights = [
        one
        for family in parse_plain(response.text)
        for one in family.samples
        if one.name == "switchyard_flag_observed_weight_ratio"
    ]
    assert len(weights) == Service.objects.count()
    assert {one.labels["service"] for one in weights if one.value == 1} == {"notification", "storage", "rag"}


def test_open_metrics_are_valid_and_tell_the_same_families(estate, start_web: Start):
    url = start_web()
    plain, opened = scrape(url), scrape(url, Accept="application/openmetrics-text;version=1.0.0")
    assert opened.text.endswith("# EOF\n")
    names = {family.name for family in parse_open(opened.text)}
    assert names == {family.name.removesuffix("_total") for family in parse_plain(plain.text)}


def test_every_process_tells_the_same(estate, start_web: Start):
    def lasting(url: str) -> dict[tuple[str, ...], float]:
        return {
            (one.name, *sorted(one.labels.values())): one.value
            for family in parse_plain(scrape(url).text)
            for one in family.samples
            if not one.name.endswith("_duration_seconds") and "remaining" not in one.name
        }

    first, second = lasting(start_web()), lasting(start_web())
    assert first == second


def test_many_scrapers_at_once_all_get_all_of_it(estate, start_web: Start):
    url = start_web()
    with ThreadPoolExecutor(16) as scrapers:
        answers = list(scrapers.map(lambda _: scrape(url), range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(told(answer)["switchyard_database_up"] == 1 for answer in answers)


def test_who_comes_by_a_proxy_or_from_elsewhere_needs_the_token(estate, start_web: Start):
    token = "a token for tests, long enough"
    url = start_web(METRICS_TOKEN=token, METRICS_NETWORKS="192.0.2.0/24")
    assert scrape(url).status_code == 403
    # uvicorn believes a proxy on this host: the address is in a network that may, and still it came by a proxy.
    assert scrape(url, **{"X-Forwarded-For": "192.0.2.1"}).status_code == 403
    assert scrape(url, Authorization="Bearer wrong").status_code == 403
    assert scrape(url, Authorization=f"Bearer {token}").status_code == 200


def test_production_opens_it_to_nobody_until_it_is_told_to(transactional_db, start_web: Start):
    """And sends nobody to TLS: Prometheus asks past the proxy that ends it."""
    url = start_web(SWITCHYARD_MODE="production")
    assert status(f"{url}/sign-in/") == 301
    assert scrape(url).status_code == 403


def test_a_redis_that_hangs_is_told_and_holds_up_nothing(estate, start_web: Start):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = start_web(REDIS_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        response, seconds = timed(url)
    assert response.status_code == 200
    assert told(response)["switchyard_queue_up"] == 0
    assert told(response)["switchyard_database_up"] == 1
    assert seconds < WITHIN


def test_a_database_that_never_answered_is_told_in_time(start_web: Start):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        database = with_database(f"postgres://postgres@127.0.0.1:{silent.getsockname()[1]}", "switchyard")
        url = start_web(ready=503, DATABASE_URL=database)
        for _ in range(3):
            response, seconds = timed(url)
            assert response.status_code == 503
            assert told(response)["switchyard_database_up"] == 0
            assert told(response)["switchyard_queue_up"] == 1
            assert seconds < WITHIN


@pytest.fixture
def postgres():
    """A PostgreSQL of its own with our tables, that may be hung and stopped."""
    folder = Path(tempfile.mkdtemp(prefix="switchyard-test-"))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
    yield PostgresServer(folder / "postgres", free_port(), durable=False)
    shutil.rmtree(folder, ignore_errors=True)


def hang(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Its server processes are each in a group of their own."""
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.send_signal(number)


def assert_away(url: str) -> None:
    response, seconds = timed(url)
    assert response.status_code == 503
    assert response.headers["Content-Type"].startswith("text/plain")
    assert told(response)["switchyard_database_up"] == 0
    assert seconds < WITHIN


def test_a_database_that_hangs_and_one_that_is_gone_are_told_and_so_is_their_return(db, start_web: Start, postgres):
    process = start_postgres(postgres)
    try:
        database = with_database(postgres.url(), "postgres")
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=REPOSITORY, env=os.environ | {"DATABASE_URL": database}, check=True, timeout=120)
        url = start_web(DATABASE_URL=database)
        assert told(scrape(url))["switchyard_database_up"] == 1
        hang(process, signal.SIGSTOP)
        try:
            wait_for(lambda: status(f"{url}/metrics") == 503, "the answer of before is old", 5)
            for _ in range(4):
                assert_away(url)
        finally:
            hang(process, signal.SIGCONT)
        wait_for(lambda: status(f"{url}/metrics") == 200, "it answers again", 20)
        stop_postgres(process)
        wait_for(lambda: status(f"{url}/metrics") == 503, "the answer of before is old", 5)
        for _ in range(3):
            assert_away(url)
        process = start_postgres(postgres)
        wait_for(lambda: status(f"{url}/metrics") == 200, "it answers again", 20)
        assert told(scrape(url))["switchyard_database_up"] == 1
    finally:
        stop_postgres(process)
