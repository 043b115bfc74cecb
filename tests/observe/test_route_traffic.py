"""Traffic by prefix: what is stored of the gateways' counters, and what windows of it say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import set_weight
from migrations_app.gateways.base import NO_LATENCY, Counted, RouteTraffic, Side
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import Gateway, Plan, RouteSample, Service
from migrations_app.models.windows import RouteWindow, routes_in
from migrations_app.observe import parts, route_traffic
from migrations_app.observe.route_traffic import KEPT_FOR, forget_old, read_once, store
from migrations_app.reconcile.desired import desired_table
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import memory_gateway, tick_all

LOGIN = Counted("/api/storage/login", "POST")
WHOLE = Counted("/api/storage")
KEY = "USE_STORAGE_SERVICE"


@pytest.fixture
def counting(plan, shell):
    """The storage service's logins and its whole prefix are counted by themselves; half of it is on the new side."""
    counted = [{"path": one.path, "method": one.method} for one in (LOGIN, WHOLE)]
    Service.objects.filter(key="storage").update(counted=counted)
    Service.objects.exclude(key="storage").update(counted=[])
    tick_all(1, shell)
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()
    assert desired_table(Plan.objects.get()).counted == (LOGIN, WHOLE)
    read_once()


def ask(path, times=1, **more):
    for _ in range(times):
        memory_gateway().serve(path, **more)


def seen(counted, side=Side.SERVICE, back=timedelta(hours=1)):
    now = timezone.now()
    window = RouteWindow(Service.objects.get(key="storage").pk, counted, side, now - back, now)
    return routes_in([window])[window]


def total(requests, codes=None, latency=NO_LATENCY, retries=0):
    return RouteTraffic(requests, codes or {}, retries, latency)


def one(requests, codes=None, **more):
    return {("storage", LOGIN, Side.SERVICE): total(requests, codes, **more)}


def test_what_came_between_two_readings_is_stored_by_route_side_and_status(counting):
    ask("/api/storage/login", 3, method="POST", milliseconds=40)
    ask("/api/storage/login", 2, method="POST", status=401)
    ask("/api/storage/login", method="POST", failed=True)
    ask("/api/storage/x", 4)
    assert read_once() == 2
    found = seen(LOGIN)
    assert (found.requests, found.codes, sum(found.latency)) == (6, {401: 2, 500: 1}, 6)
    assert found.count([401, "5xx"]) == 3
    assert found.count(["4xx"]) == 2
    assert seen(LOGIN, Side.MONOLITH).requests == 0
    # What is counted below it belongs to it.
    assert (seen(WHOLE).requests, seen(WHOLE).codes) == (10, {401: 2, 500: 1})
    assert read_once() == 0


def test_a_window_holds_nothing_of_another_service_path_or_method(counting):
    ask("/api/storage/login", method="POST")
    ask("/api/storage/login", method="GET")
    ask("/api/notifications")
    read_once()
    assert seen(LOGIN).requests == 1
    assert seen(Counted("/api/stor")).requests == 0
    assert seen(Counted("/api/storage", "POST")).requests == 1
    assert seen(Counted("/")).requests == 2
    assert seen(WHOLE, None).requests == 2


def test_a_restart_of_the_gateway_counts_from_zero(counting):
    ask("/api/storage/x", 5)
    read_once()
    memory_gateway().restart()
    ask("/api/storage/x", 2)
    read_once()
    assert seen(WHOLE).requests == 7


@pytest.mark.parametrize(
    ("before", "after", "stored"),
    [
        (one(5), one(7), (2, {})),
        (one(5), one(3), (3, {})),
        # Only a status shows it: nine before, and one since the restart.
        (one(5, {401: 2}), one(9, {401: 1}), (9, {401: 1})),
        (one(5, {401: 2}), one(9, {403: 1}), (9, {403: 1})),
        (one(5, retries=3), one(9, retries=1), (9, {})),
        (one(5, {401: 2}), one(9, {401: 4, 500: 1}), (4, {401: 2, 500: 1})),
    ],
)
def test_a_reset_is_told_by_any_counter(counting, before, after, stored):
    gateway = Gateway.objects.get().pk
    store({gateway: before}, timezone.now())
    RouteSample.objects.all().delete()
    store({gateway: after}, timezone.now())
    sample = RouteSample.objects.get()
    assert (sample.requests, {int(code): count for code, count in sample.codes.items()}) == stored


def test_the_restart_of_one_gateway_is_no_reset_of_another(counting):
    first = Gateway.objects.get()
    second = Gateway.objects.create(plan=first.plan, key="second", adapter="memory")
    store({first.pk: one(100), second.pk: one(1000)}, timezone.now())
    RouteSample.objects.all().delete()
    store({first.pk: one(3), second.pk: one(1001)}, timezone.now())
    assert [sample.requests for sample in RouteSample.objects.all()] == [4]


def test_a_gateway_that_is_away_does_not_lose_the_others(counting, monkeypatch):
    first = Gateway.objects.get()
    Gateway.objects.create(plan=first.plan, key="away", adapter="memory", observed_generation=1)
    adapters = {first.key: memory_adapter(first), "away": away()}
    monkeypatch.setattr(route_traffic, "adapter_for", lambda gateway: adapters[gateway.key])
    memory = adapters[first.key]
    memory.serve("/api/storage/x")
    read_once()
    assert seen(WHOLE).requests == 1


def test_a_gateway_that_was_seen_to_be_away_is_not_asked(counting, monkeypatch):
    asked = []
    monkeypatch.setattr(route_traffic, "adapter_for", asked.append)
    Gateway.objects.update(observed_generation=None)
    assert (read_once(), asked) == (0, [])


def memory_adapter(gateway):
    return route_traffic.adapter_for(gateway)


def away():
    gateway = MemoryGateway()
    gateway.answers = False
    return gateway


def test_the_first_reading_of_a_gateway_tells_only_where_it_stands(counting):
    first = Gateway.objects.get()
    new = Gateway.objects.create(plan=first.plan, key="new", adapter="memory")
    assert store({new.pk: one(1000)}, timezone.now()) == 0
    assert store({new.pk: one(1002)}, timezone.now()) == 1
    # A route that comes later was silent until then.
    other = {("storage", WHOLE, Side.MONOLITH): total(7)}
    assert store({new.pk: one(1002) | other}, timezone.now()) == 1
    assert seen(WHOLE, Side.MONOLITH).requests == 7


def test_what_the_plan_does_not_count_any_more_is_not_stored(counting):
    gateway = Gateway.objects.get().pk
    elsewhere = {
        ("storage", Counted("/api/storage/old"), Side.SERVICE): total(7),
        ("gone", WHOLE, Side.SERVICE): total(1),
    }
    store({gateway: elsewhere}, timezone.now())
    assert store({gateway: {key: total(50) for key in elsewhere}}, timezone.now()) == 0


def test_where_nothing_is_counted_by_itself_it_costs_one_question(plan):
    Service.objects.update(counted=[])
    with CaptureQueriesContext(connection) as asked:
        assert read_once() == 0
    assert len(asked) == 1


def test_old_samples_go_in_parts_however_long_nobody_deleted_any(counting, time_machine, monkeypatch):
    monkeypatch.setattr(parts, "AT_ONCE", 2)
    for _ in range(3):
        ask("/api/storage/x")
        read_once()
    time_machine.move_to(timezone.now() + KEPT_FOR - timedelta(minutes=1))
    ask("/api/storage/x")
    read_once()
    assert forget_old(timezone.now()) == 0
    time_machine.move_to(timezone.now() + timedelta(minutes=2))
    with CaptureQueriesContext(connection) as asked:
        assert forget_old(timezone.now()) == 3
    assert sum(query["sql"].startswith("DELETE") for query in asked) == 2
    assert RouteSample.objects.count() == 1
