"""A configuration that is not valid never reaches the gateway, and the gateway's page says why."""

from __future__ import annotations

import pytest

from migrations_app.actions.confirm import confirm
from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import AuditKind
from migrations_app.gateways.base import Rendered
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.models import AuditEvent, Confirmation, Gateway, Service
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, System

FILES = ("bootstrap.json", "cds/cds.json", "rds/rds.json", "applied.json")


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on."""
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    return system


def files(system: System) -> dict[str, tuple[int, bytes]]:
    """Name -> (inode, content)."""
    paths = [system.envoy.folder / name for name in FILES]
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in paths}


@pytest.mark.parametrize(
    ("values", "told"),
    [({"host": "no host at all"}, "upstream has no valid host"), ({"strip": "/else"}, "strip '/else'")],
)
def test_a_row_that_cannot_be_rendered_leaves_the_gateway_as_it_is_and_is_named(on: System, values: dict, told: str):
    """Written into the database by hand; the plan file's rules refuse the like."""
    before, status = files(on), on.status()
    good = {name: getattr(Service.objects.get(key="template"), name) for name in values}
    Service.objects.filter(key="template").update(**values)
    change = roll_back_week(number=1, actor=OPERATOR)
    outcome = confirm(change.generation, event=change.event, head_start=0.0)
    assert outcome.confirmed is False
    assert told in outcome.error
    assert "/api/templates" in outcome.error
    assert Gateway.objects.get().error == outcome.error
    assert Gateway.objects.get().observed_generation == status["generation"]
    assert not Confirmation.objects.filter(generation=change.generation).exists()
    assert files(on) == before
    assert on.status() == status
    assert on.served_by() == ON_THE_SERVICES
    Service.objects.filter(key="template").update(**good)
    (done,) = reconcile_all()
    assert (done.error, done.generation) == ("", change.generation)
    assert on.served_by() == ON_THE_MONOLITH


BROKEN = {
    "a timeout that is none": (b'"timeout":"15s"', b'"timeout":"15 parsecs"', "rds/rds.json"),
    "an unknown field": (b'"stat_prefix":"rag.', b'"stat_suffix":"rag.', "rds/rds.json"),
    "a policy that is none": (b'"type":"STATIC"', b'"type":"NEVER"', "cds/cds.json"),
    "a route to a cluster that is not there": (b'"cluster":"rag.', b'"cluster":"gone.', "rds/rds.json"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_envoy_would_refuse_is_refused_before_it_is_written(on: System, monkeypatch, name: str):
    """A renderer that goes wrong meets Envoy's own validator."""
    right, wrong, file = BROKEN[name]
    render = EnvoyGateway.render

    def broken(self, table):
        rendered = render(self, table)
        assert right in rendered.files[file]
        files = dict(rendered.files) | {file: rendered.files[file].replace(right, wrong)}
        return Rendered(rendered.generation, files)

    before, status = files(on), on.status()
    with monkeypatch.context() as patched:
        patched.setattr(EnvoyGateway, "render", broken)
        change = roll_back_flag(key="USE_STORAGE_SERVICE", actor=OPERATOR)
        (done,) = reconcile_all()
    assert (done.generation, done.changed) == (change.generation, False)
    assert "Envoy refuses the configuration" in done.error
    assert Gateway.objects.get().error == done.error
    assert files(on) == before
    assert on.status() == status
    assert on.served_by() == ON_THE_SERVICES
    assert reconcile_all()[0].error == ""
    assert on.served_by() == ON_THE_SERVICES | {"storage": "monolith"}
    assert not AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).exists()
