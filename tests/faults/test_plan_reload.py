"""A changed plan reaches the gateway like any other change."""

from __future__ import annotations

import pytest

from migrations_app.actions.flags import set_weight
from migrations_app.choices import AuditKind
from migrations_app.errors import GateClosed
from migrations_app.models import AuditEvent, Plan
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import make_healthy, tick_all
from tests.faults.load import load_on
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, OPERATOR, System, wait_for


def address(system: System, prefix: str) -> str:
    """Of the new side, as Envoy runs it."""
    clusters = system.envoy.ask("/clusters?format=json", port=system.envoy.admin_port).json()["cluster_statuses"]
    (found,) = [cluster for cluster in clusters if cluster["name"] == f"{prefix}.service"]
    (host,) = found["host_statuses"]
    return f"127.0.0.1:{host['address']['socket_address']['port_value']}"


def test_a_new_address_of_a_service_that_is_off_reaches_the_gateway(system: System):
    ports = system.estate.sides
    generations = [Plan.objects.get().generation]
    with load_on(system.envoy.port) as load:
        for port in (ports["sample"], ports["template"], ports["rag"]):
            system.load(rag=port)
            generations.append(Plan.objects.get().generation)
            assert reconcile_all()[0].error == ""
            assert system.status()["generation"] == generations[-1]
            wait_for(lambda port=port: address(system, "rag") == f"127.0.0.1:{port}", "Envoy has the address")
            assert system.served_by() == ON_THE_MONOLITH
            served = len(load.answers)
            wait_for(lambda served=served: len(load.answers) >= served + 20, "requests were answered")
    assert {answer.who for answer in load.answers} == {"monolith"}
    assert generations == sorted(set(generations))
    assert AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).count() == 0
    hold(system, load=load)


def test_after_a_reload_traffic_goes_to_the_new_address_and_only_there(system: System):
    system.load(rag=system.estate.sides["sample"])
    make_healthy()
    # What was signed off for another address vouches for nothing here.
    with pytest.raises(GateClosed, match="not signed off"):
        set_weight(key="USE_RAG_SERVICE", weight=100, actor=OPERATOR)
    tick_all(1, OPERATOR)
    set_weight(key="USE_RAG_SERVICE", weight=100, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    # The process that stands for `sample` answers where the plan now says that RAG is.
    assert system.served_by() == ON_THE_MONOLITH | {"rag": "sample"}


def test_the_same_plan_again_moves_nothing(system: System):
    before, events = system.status(), AuditEvent.objects.count()
    system.load()
    (done,) = reconcile_all()
    assert (done.changed, done.error) == (False, "")
    assert system.status() == before
    assert AuditEvent.objects.count() == events
