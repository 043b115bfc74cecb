"""What a real Envoy counts, from requests to the sums that pages read."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.weeks import enable_week
from migrations_app.actor import SYSTEM
from migrations_app.gateways.base import Side
from migrations_app.models import Gateway, TrafficDay, TrafficHour, TrafficMinute, TrafficSample
from migrations_app.observe.last_minute import Remaining, last_minute
from migrations_app.observe.rollups import TRAFFIC, roll_up
from migrations_app.observe.traffic import read_once
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.reader import read_bytes
from migrations_app.reconcile.adapters import adapter_for, forget_adapters
from migrations_app.reconcile.loop import reconcile_all
from tests.counted import requests_in
from tests.factories import make_healthy, tick_all
from tests.gateways.estate import Envoy, upstreams, wait_until
from tests.planfile.samples import SMALL


@pytest.fixture(scope="module")
def sides():
    with upstreams("monolith", "storage", "auth") as running:
        yield running


@pytest.fixture
def envoy(db, sides, tmp_path, settings):
    """A plan of two services on an Envoy that runs it: storage on the new side, auth on the old one."""
    for upstream in sides.values():
        upstream.status = 200
    gateway = Envoy(tmp_path)
    try:
        gateway.start()
        settings.GATEWAY_DIR = gateway.folder
        settings.GATEWAY_URL = f"http://127.0.0.1:{gateway.port}"
        settings.GATEWAY_ADMIN_URL = f"http://127.0.0.1:{gateway.admin_port}"
        settings.ENVOY_BINARY = str(gateway.binary)
        forget_adapters()
        text = SMALL.replace("adapter: memory", "adapter: envoy")
        for port, name in (("3000", "monolith"), ("3014", "storage"), ("3010", "auth")):
            text = text.replace(f"127.0.0.1:{port}", str(sides[name].address))
        load_plan(read_bytes(text.encode()), actor=SYSTEM)
        make_healthy()
        tick_all(1, SYSTEM)
        enable_week(number=1, actor=SYSTEM)
        assert [one.error for one in reconcile_all()] == [""]
        yield gateway
        for row in Gateway.objects.all():
            adapter_for(row).close()
    finally:
        gateway.close()


def serve(envoy, sides, path, upstream, status, *, times, method="GET", seen=None):
    """So many requests while the upstream answers with this status; the client has `seen` the same, or another."""
    sides[upstream].status = status
    assert {envoy.ask(path, method=method).status for _ in range(times)} == {seen or status}


def counts(model, **of):
    columns = ("requests", "errors", "client_errors", "retries")
    return model.objects.filter(**of).values_list(*columns).get()


def test_answers_of_each_class_retries_and_what_no_route_matches_reach_the_sums(envoy, sides):
    now = timezone.now().replace(second=10, microsecond=0)
    read_once(now)
    serve(envoy, sides, "/api/storage/x", "storage", 200, times=5)
    serve(envoy, sides, "/api/storage/x", "storage", 404, times=3)
    serve(envoy, sides, "/api/storage/x", "storage", 503, times=2, seen=200)  # reads: the monolith answers them
    serve(envoy, sides, "/api/storage/x", "storage", 500, times=1, method="POST")
    serve(envoy, sides, "/api/auth/x", "monolith", 403, times=4)
    serve(envoy, sides, "/elsewhere", "monolith", 410, times=6)
    serve(envoy, sides, "/", "monolith", 200, times=1)
    read_once(now + timedelta(seconds=2))
    assert counts(TrafficSample, service__key="storage", side=Side.SERVICE) == (11, 3, 3, 2)
    assert counts(TrafficSample, service__key="auth", side=Side.MONOLITH) == (4, 0, 4, 0)
    assert counts(TrafficSample, service=None) == (7, 0, 6, 0)
    now += timedelta(seconds=3)
    assert requests_in(last_minute(now)) == {
        "storage": {Side.MONOLITH: 0, Side.SERVICE: 11},
        "auth": {Side.MONOLITH: 4, Side.SERVICE: 0},
    }
    assert last_minute(now).failures() == {"storage": (11, 1), "auth": (4, 0)}  # callers saw one fail
    left = [Remaining(None, 7, 7 / 22), Remaining("auth", 4, 4 / 22), Remaining("storage", 2, 2 / 22)]
    assert last_minute(now).still_on_monolith() == left
    assert roll_up(TRAFFIC, now + timedelta(minutes=1))
    for model in (TrafficMinute, TrafficHour, TrafficDay):
        assert counts(model, service="storage", side="service") == (11, 3, 3, 2)
        assert counts(model, service="") == (7, 0, 6, 0)


def test_a_restart_of_the_gateway_counts_nothing_twice(envoy, sides):
    now = timezone.now()
    read_once(now)
    serve(envoy, sides, "/api/storage/x", "storage", 404, times=5)
    serve(envoy, sides, "/elsewhere", "monolith", 404, times=5)
    read_once(now + timedelta(seconds=2))
    envoy.stop()
    envoy.start(prepared=False)
    serve(envoy, sides, "/api/storage/x", "storage", 404, times=2)
    serve(envoy, sides, "/elsewhere", "monolith", 404, times=3)
    read_once(now + timedelta(seconds=4))
    found = TrafficSample.objects.filter(service__key="storage", requests__gt=0).order_by("read_at")
    assert list(found.values_list("requests", "client_errors")) == [(5, 5), (2, 2)]
    rest = TrafficSample.objects.filter(service=None, requests__gt=0).order_by("read_at")
    assert list(rest.values_list("requests", "client_errors")) == [(5, 5), (3, 3)]
    assert last_minute(now + timedelta(seconds=5)).still_on_monolith() == [Remaining(None, 8, 8 / 15)]


def test_what_the_gateway_does_in_the_place_of_a_service_is_kept_and_undoes_itself(envoy, sides):
    read_once()
    assert Gateway.objects.get().failing_over == {}
    sides["storage"].status = 500
    answers = [envoy.ask("/api/storage/x", method="POST").status for _ in range(20)]
    assert set(answers) == {500, 200}
    read_once()
    found = Gateway.objects.get().failing_over
    assert list(found) == ["storage"]
    assert "several requests in a row" in found["storage"]
    sides["storage"].status = 200

    def is_back() -> bool:
        envoy.ask("/api/storage/x")
        read_once()
        return Gateway.objects.get().failing_over == {}

    wait_until(is_back, timeout=20)
