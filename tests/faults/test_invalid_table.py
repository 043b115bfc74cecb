"""A configuration that is not valid never reaches the gateway, and the gateway's page says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import IntegrityError, connection, transaction

from migrations_app.actions.confirm import confirm
from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import AuditKind
from migrations_app.gateways.base import Rendered
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway, Route, Service
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.promises import hold
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


@contextmanager
def without(constraint: str) -> Iterator[None]:
    """The service table as it would be had somebody dropped a constraint of it."""
    [rule] = [rule for rule in Service._meta.constraints if rule.name == constraint]
    with connection.schema_editor() as editor:
        editor.remove_constraint(Service, rule)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.add_constraint(Service, rule)


@pytest.mark.parametrize(
    ("values", "told", "constraint"),
    [
        ({"host": "no host at all"}, "upstream has no valid host", "service_host_is_a_host"),
        ({"strip": "else"}, "strip 'else'", "service_strip_is_a_path"),
        ({"timeout": float("nan")}, "timeout nan", "service_timeout_within_bounds"),
    ],
)
def test_a_row_that_cannot_be_rendered_leaves_the_gateway_as_it_is_and_is_named(
    on: System, values: dict, told: str, constraint: str
):
    """Written into a database without its constraint; the plan file's rules refuse the like too."""
    with without(constraint):
        leaves_the_gateway_as_it_is_and_is_named(on, values, told)


def test_a_strip_that_is_not_of_the_prefix_leaves_the_gateway_as_it_is_and_is_named(on: System):
    """No constraint can compare the two rows."""
    leaves_the_gateway_as_it_is_and_is_named(on, {"strip": "/else"}, "strip '/else'")


def leaves_the_gateway_as_it_is_and_is_named(on: System, values: dict, told: str) -> None:
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
    hold(on)


REFUSED = [
    ({"key": "a.b"}, "service_key_is_a_name"),
    ({"host": ""}, "service_host_is_a_host"),
    ({"host": "no host"}, "service_host_is_a_host"),
    ({"host": "127.0.0.1\n"}, "service_host_is_a_host"),
    ({"health_path": "health"}, "service_health_path_is_a_path"),
    ({"strip": "api"}, "service_strip_is_a_path"),
    ({"strip": "/api/"}, "service_strip_is_a_path"),
    ({"strip": "/api/.."}, "service_strip_is_a_path"),
    ({"timeout": 0}, "service_timeout_within_bounds"),
    ({"timeout": 0.09}, "service_timeout_within_bounds"),
    ({"timeout": 3600.5}, "service_timeout_within_bounds"),
    ({"timeout": float("nan")}, "service_timeout_within_bounds"),
    ({"timeout": float("inf")}, "service_timeout_within_bounds"),
]


@pytest.mark.parametrize(("values", "constraint"), REFUSED, ids=str)
def test_the_database_refuses_a_service_that_no_gateway_could_express(plan, values: dict, constraint: str):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Service.objects.filter(key="template").update(**values)


@pytest.mark.parametrize("prefix", ["", "api/templates", "/api/", "//api", "/api/a b", "/api/../x", "/api/.", "/api\n"])
def test_the_database_refuses_a_prefix_that_no_request_could_match(plan, prefix: str):
    with pytest.raises(IntegrityError, match="route_prefix_is_a_path"), transaction.atomic():
        Route.objects.filter(prefix="/api/templates").update(prefix=prefix)


def test_the_database_refuses_a_prefix_that_the_gateway_answers_itself(plan):
    with pytest.raises(IntegrityError, match="route_prefix_is_not_the_gateways_own"), transaction.atomic():
        Route.objects.filter(prefix="/api/templates").update(prefix="/routing-status")


def test_the_database_refuses_a_flag_that_is_no_name(plan):
    with pytest.raises(IntegrityError, match="flag_key_is_a_name"), transaction.atomic():
        Flag.objects.filter(key="USE_RAG_SERVICE").update(key="USE RAG")


@pytest.mark.parametrize(
    "values", [{"host": "::1"}, {"host": "a-b_c.example"}, {"strip": ""}, {"timeout": 0.1}, {"timeout": 3600}], ids=str
)
def test_the_database_takes_a_service_that_every_gateway_can_express(plan, values: dict):
    Service.objects.filter(key="template").update(**values)
    assert reconcile_all()[0].error == ""


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
    hold(on)
