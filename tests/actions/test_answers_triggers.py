"""Triggers on what a route answers: sign-ins that are refused while all else is well."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from migrations_app.actions.flags import set_weight
from migrations_app.actions.triggers import watch_triggers
from migrations_app.choices import Breach
from migrations_app.gateways.base import NO_LATENCY, Side
from migrations_app.models import (
    Plan,
    RouteSample,
    Service,
    TriggerState,
)
from migrations_app.observe import route_traffic
from migrations_app.observe.traffic import read_once
from migrations_app.reconcile.loop import reconcile_all
from tests.actions.trigger_scene import ERRORS, KEY, LOGIN, last_event, watched_by, weight
from tests.factories import make_healthy, memory_gateway


def counted(*rows: dict[str, object]) -> None:
    """Watched by triggers whose route the gateway counts."""
    watched_by(*rows)
    Service.objects.filter(key="storage").update(counted=[{"path": "/api/storage/login", "method": "POST"}])
    # As the load of such a plan does.
    Plan.objects.update(generation=F("generation") + 1)
    reconcile_all()
    route_traffic.read_once()


def sign_in(*statuses: int, method: str = "POST") -> None:
    for status in statuses:
        memory_gateway().serve("/api/storage/login", method=method, status=status, failed=status >= 500)
    route_traffic.read_once()


@pytest.fixture
def all_on(on, shell):
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()


def test_refused_sign_ins_roll_back_while_all_else_is_well(all_on):
    counted(LOGIN)
    sign_in(*[200] * 80, *[401] * 20)
    assert watch_triggers() == []
    sign_in(401, 503)
    assert watch_triggers() == [f"{KEY}/login"]
    said = "21.57 % of 102 requests (limit: 401 or 5xx of POST /api/storage/login at most 20 % in 1 min)"
    assert last_event().reason == f"Trigger login: {said}."
    assert weight() == 0


def test_other_statuses_methods_paths_and_the_old_side_do_not_count(all_on, shell):
    counted(LOGIN)
    sign_in(*[200] * 20, *[403] * 20, *[404] * 20)
    sign_in(*[401] * 50, method="GET")
    for _ in range(50):
        memory_gateway().serve("/api/storage/else", method="POST", status=401)
    route_traffic.read_once()
    assert watch_triggers() == []
    assert TriggerState.objects.get().value == "0.00 % of 60 requests"
    set_weight(key=KEY, weight=1, actor=shell)
    reconcile_all()
    sign_in(*[401] * 30)
    assert watch_triggers() == []
    assert TriggerState.objects.get().state == Breach.NO_DATA


def test_what_was_read_before_and_after_a_change_of_weight_is_held_against_neither(all_on, shell):
    """Workers were down: the first reading has what failed before the change, which nobody can tell from the rest."""
    counted(ERRORS, LOGIN)
    read_once()
    for _ in range(30):
        memory_gateway().serve("/api/storage/login", method="POST", failed=True)
    set_weight(key=KEY, weight=50, actor=shell)
    reconcile_all()
    read_once()
    sign_in()
    assert watch_triggers() == []
    assert set(TriggerState.objects.values_list("state", flat=True)) == {Breach.NO_DATA}
    sign_in(*[503] * 60)
    read_once()
    assert watch_triggers() == [f"{KEY}/errors", f"{KEY}/login"]
    measured = dict(TriggerState.objects.values_list("key", "value"))
    assert measured == {"errors": "100.00 % errors of 31 requests", "login": "100.00 % of 31 requests"}


TIMES = {name: value for name, value in LOGIN.items() if name != "above"} | {"times": 3.0}


def login(side: Side, requests: int, refused: int) -> None:
    RouteSample.objects.create(
        service=Service.objects.get(key="storage"),
        path="/api/storage/login",
        method="POST",
        side=side.value,
        read_at=timezone.now(),
        requests=requests,
        codes={"401": refused},
        retries=0,
        latency=list(NO_LATENCY),
    )


def test_against_the_old_sides_share_before_the_last_change_of_weight(on, shell, time_machine):
    counted(TIMES)
    login(Side.MONOLITH, 200, 10)
    login(Side.SERVICE, 200, 200)  # which is nothing to compare with
    time_machine.move_to(timezone.now() + timedelta(seconds=10))
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()
    time_machine.move_to(timezone.now() + timedelta(seconds=1))
    sign_in()
    sign_in(*[200] * 86, *[401] * 14)
    assert watch_triggers() == []
    state = TriggerState.objects.get()
    assert (state.value, state.baseline) == ("14.00 % of 100 requests, before 5.00 % of 200", [200, 10])
    # The baseline is kept: hours later it is still the share before the change.
    RouteSample.objects.filter(read_at__lt=timezone.now() - timedelta(seconds=5)).delete()
    sign_in(*[401] * 3)
    assert watch_triggers() == [f"{KEY}/login"]
    assert "before 5.00 % of 200" in last_event().reason


def test_along_a_rollout_the_baseline_does_not_follow_the_new_side(on, shell, time_machine):
    """What it serves badly is no reason to let it serve so. Near 100 %, where the old side serves few, it stays."""
    counted(TIMES)
    found = []
    for percent, of_old in ((50, 200), (99, 100), (100, 19)):
        watch_triggers()
        login(Side.MONOLITH, of_old, of_old // 20)
        login(Side.SERVICE, 200, 28)  # 14 %, at each step
        time_machine.move_to(timezone.now() + timedelta(seconds=30))
        make_healthy()
        set_weight(key=KEY, weight=percent, actor=shell)
        reconcile_all()
        time_machine.move_to(timezone.now() + timedelta(seconds=1))
        watch_triggers()
        found.append(TriggerState.objects.get().baseline)
        time_machine.move_to(timezone.now() + timedelta(minutes=1))
    assert found == [[200, 10], [100, 5], [100, 5]]


def test_a_baseline_of_other_statuses_does_not_count(on):
    counted(TIMES)
    watch_triggers()
    TriggerState.objects.update(baseline=[1000, 5])
    watch_triggers()
    assert TriggerState.objects.get().baseline == [1000, 5]
    watched_by(TIMES | {"codes": ["5xx"]})
    watch_triggers()
    assert TriggerState.objects.get().baseline == [0, 0]
