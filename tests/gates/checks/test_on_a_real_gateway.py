"""The checks that rest on the gateway, on a real Envoy between real upstreams."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.confirm import confirm
from migrations_app.actions.rehearsals import rehearse_rollback
from migrations_app.actions.weeks import enable_week
from migrations_app.actor import SYSTEM
from migrations_app.choices import AuditKind, CheckState
from migrations_app.errors import Invalid
from migrations_app.gates.checks.no_degradation import no_degradation
from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.checks.rollback_rehearsed import rollback_rehearsed
from migrations_app.gates.checks.week_stable import week_stable
from migrations_app.gateways.base import Side
from migrations_app.models import AuditEvent, Flag, Gateway, TrafficCounter, Week
from migrations_app.observe.traffic import read_once
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.reader import read_bytes
from migrations_app.reconcile.adapters import adapter_for, forget_adapters
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import make_healthy, tick_all
from tests.gates.checks.scene import scene
from tests.gateways.estate import Envoy, upstreams, wait_until
from tests.planfile.samples import SMALL

REQUESTS = 20
COMPARED = {"services": ["storage"], "window": "10m", "min_requests": REQUESTS}


@pytest.fixture(scope="module")
def sides():
    with upstreams("monolith", "storage", "auth") as running:
        yield running


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    gateway = Envoy(tmp_path_factory.mktemp("gateway"))
    try:
        yield gateway
    finally:
        gateway.close()


@pytest.fixture
def small(db, sides, envoy, settings):
    """A plan of two services on a fresh Envoy that runs it; all is healthy, and week 1 is signed off."""
    envoy.stop()
    for name in ("applied.json", "cds/cds.json", "rds/rds.json"):
        (envoy.folder / name).unlink(missing_ok=True)
    envoy.start()
    for upstream in sides.values():
        upstream.status, upstream.delay = 200, 0.0
    settings.GATEWAY_DIR = envoy.folder
    settings.GATEWAY_URL = f"http://127.0.0.1:{envoy.port}"
    settings.GATEWAY_ADMIN_URL = f"http://127.0.0.1:{envoy.admin_port}"
    settings.ENVOY_BINARY = str(envoy.binary)
    forget_adapters()
    text = SMALL.replace("adapter: memory", "adapter: envoy")
    for port, name in (("3000", "monolith"), ("3014", "storage"), ("3010", "auth")):
        text = text.replace(f"127.0.0.1:{port}", str(sides[name].address))
    load_plan(read_bytes(text.encode()), actor=SYSTEM)
    make_healthy()
    tick_all(1, SYSTEM)
    assert [one.error for one in reconcile_all()] == [""]
    yield envoy
    for gateway in Gateway.objects.all():
        adapter_for(gateway).close()


def serve(envoy, count=REQUESTS):
    return {envoy.ask("/api/storage/x", method="POST").status for _ in range(count)}


def requests_of(side):
    """How many the gateway has counted so far."""
    read_once()
    return TrafficCounter.objects.get(service__key="storage", side=side.value).requests


def all_counted(side):
    """Whether the gateway has told the response time of every request to one side of the storage service."""
    read_once()
    row = TrafficCounter.objects.get(service__key="storage", side=side.value)
    return sum(row.latency) == row.requests > 0


def switch_over(envoy):
    """The monolith serves some requests, then week 1 goes on."""
    read_once()
    assert serve(envoy) == {200}
    wait_until(lambda: all_counted(Side.MONOLITH))
    enable_week(number=1, actor=SYSTEM)
    reconcile_all()


def test_a_new_side_as_quick_as_the_monolith_holds_and_a_slow_one_does_not(small, sides):
    # Both sides take their time, and only one that takes eleven times as long is slow: the machine may be busy.
    asked = COMPARED | {"slower_by": 1000}
    for upstream in sides.values():
        upstream.delay = 0.05
    switch_over(small)
    assert no_degradation(asked, scene(2, timezone.now())).state == CheckState.UNKNOWN
    assert serve(small) == {200}
    wait_until(lambda: all_counted(Side.SERVICE))
    found = no_degradation(asked, scene(2, timezone.now()))
    assert found.state == CheckState.HELD
    assert found.value.startswith("Storage: p95 ")
    assert found.value.endswith("errors 0.00 % against 0.00 %, 20 and 20 requests")
    sides["storage"].delay = 1.8  # at 2 s the gateway would take it for down
    serve(small, 2)
    wait_until(lambda: all_counted(Side.SERVICE))
    found = no_degradation(asked, scene(2, timezone.now()))
    assert found.state == CheckState.NOT_HELD
    assert found.value.endswith("errors 0.00 % against 0.00 %, 22 and 20 requests")


def test_a_new_side_that_fails_does_not_hold(small, sides):
    switch_over(small)
    sides["storage"].status = 500
    # After some errors the gateway lets the monolith answer: the new side has failed all the same.
    assert serve(small) == {500, 200}
    wait_until(lambda: requests_of(Side.SERVICE) == REQUESTS)
    found = no_degradation(COMPARED, scene(2, timezone.now()))
    assert found.state == CheckState.NOT_HELD
    assert found.value.startswith("Storage: errors 100.00 % against 0.00 %")


def test_a_week_is_stable_until_its_services_answer_with_errors(small, sides):
    switch_over(small)
    serve(small, 20)
    wait_until(lambda: all_counted(Side.SERVICE))
    on_since = timezone.now() - timedelta(hours=2)
    Flag.objects.filter(key="USE_STORAGE").update(changed_at=on_since)
    Week.objects.filter(number=1).update(soak_started_at=on_since)
    asked = {"week": 1, "for": "1h", "error_rate": 1.0}
    found = week_stable(asked, scene(2, timezone.now()))
    assert (found.state, found.value) == (CheckState.HELD, "stable for 2 h, 0.00 % errors of 20 requests")
    sides["storage"].status = 503
    serve(small, 5)
    read_once()
    found = week_stable(asked, scene(2, timezone.now()))
    assert (found.state, found.value) == (CheckState.NOT_HELD, "stable for 2 h, 20.00 % errors of 25 requests")


def at_rehearsal() -> Scene:
    """Week 1 at the moment of its only rehearsal: a gateway may take a second, and the words tell it."""
    return scene(1, AuditEvent.objects.get(kind=AuditKind.ROLLBACK_REHEARSED).at)


def test_a_rehearsal_goes_through_the_gateway_and_moves_nothing(small):
    asked = {"within": "1h", "under": "30s"}
    assert rollback_rehearsed(asked, scene(1, timezone.now())).value == "never rehearsed"
    change = rehearse_rollback(number=1, actor=SYSTEM)
    outcome = confirm(change.generation, event=change.event, head_start=0.0)
    assert outcome.confirmed, outcome.error
    assert small.ask("/routing-status").json()["generation"] == change.generation
    assert small.ask("/api/storage/x").who == "monolith"
    found = rollback_rehearsed(asked, at_rehearsal())
    assert found.state == CheckState.HELD
    assert found.value == f"rehearsed 0 s ago, confirmed in {outcome.milliseconds:,.0f} ms"


def test_a_rehearsal_on_a_gateway_that_is_away_does_not_hold(small):
    small.stop()
    change = rehearse_rollback(number=1, actor=SYSTEM)
    reconcile_all()
    assert change.changed
    found = rollback_rehearsed({}, at_rehearsal())
    assert (found.state, found.value) == (
        CheckState.NOT_HELD,
        "rehearsed 0 s ago, but not every gateway has confirmed it",
    )


def test_a_table_that_envoys_validator_refuses_is_told_by_the_rehearsal(small):
    # A bootstrap that somebody has broken: Envoy would not start from it, and its validator says so.
    path = small.folder / "bootstrap.json"
    whole = path.read_text()
    path.write_text(whole.replace('"stat_prefix": "gateway"', '"stat_prefix": 7'))
    try:
        with pytest.raises(Invalid, match="Gateway main would not take the routes with the week on: Envoy refuses"):
            rehearse_rollback(number=1, actor=SYSTEM)
    finally:
        path.write_text(whole)
    assert rehearse_rollback(number=1, actor=SYSTEM).changed
