"""Envoy refuses a configuration: the gateway's page tells when, which and why, and what was taken since."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.weeks import enable_week
from migrations_app.gateways.base import Rendered
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.models import Gateway, Refusal
from migrations_app.reconcile.adapters import adapter_for, forget_adapters
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.faults.promises import hold
from tests.faults.system import ON_THE_SERVICES, OPERATOR, System
from tests.web.conftest import text_of


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on."""
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    return system


@pytest.fixture
def support(on: System) -> Client:
    user = User.objects.create_user("somebody")
    user.groups.add(Group.objects.get(name=Role.SUPPORT.value))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(params=["by its validator", "by Envoy itself"])
def reason(on: System, settings, request: pytest.FixtureRequest) -> str:
    """What is said, with the generation left open."""
    if request.param == "by its validator":
        return "Envoy refuses the configuration: "
    adapter_for(Gateway.objects.get()).close()
    settings.ENVOY_BINARY = ""
    forget_adapters()
    assert reconcile_all()[0].error == ""
    return "Envoy refuses generation {generation}, its log says why"


def refused(client: Client) -> str:
    """What the page says of refusals, at first and as it refreshes itself."""
    pages = [text_of(client.get(address)) for address in ("/gateway/", "/gateway/live/")]
    first, live = (page.split(" Refused ")[1].split("Changed behind")[0].strip() for page in pages)
    assert first == live
    return first


@contextmanager
def routes_to_nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A renderer that goes wrong: it routes to a cluster that is not there."""
    render = EnvoyGateway.render

    def broken(self: EnvoyGateway, table) -> Rendered:
        rendered = render(self, table)
        wrong = rendered.files["rds/rds.json"].replace(b'"cluster":"rag.', b'"cluster":"gone.')
        assert wrong != rendered.files["rds/rds.json"]
        return Rendered(rendered.generation, dict(rendered.files) | {"rds/rds.json": wrong})

    with monkeypatch.context() as patched:
        patched.setattr(EnvoyGateway, "render", broken)
        yield


def test_what_envoy_refuses_is_told_on_its_page_and_stays_there(
    on: System, support: Client, monkeypatch: pytest.MonkeyPatch, reason: str
):
    assert refused(support).startswith("Nothing was ever refused.")
    with routes_to_nowhere(monkeypatch):
        generation = roll_back_flag(key="USE_STORAGE_SERVICE", actor=OPERATOR).generation
        (first,) = reconcile_all()
        (again,) = reconcile_all()
    expected = reason.format(generation=generation)
    assert expected in first.error
    assert again.error
    assert on.served_by() == ON_THE_SERVICES
    row = Refusal.objects.get()
    assert (row.generation, row.reason, row.times) == (generation, first.error, 2)
    said = refused(support)
    assert f"Generation {generation} " in said
    assert "2 times until" in said
    assert expected in said
    assert "Nothing newer was taken since." in said
    newer = roll_back_flag(key="USE_RAG_SERVICE", actor=OPERATOR).generation
    assert reconcile_all()[0].error == ""
    assert on.served_by() == ON_THE_SERVICES | {"storage": "monolith", "rag": "monolith"}
    said = refused(support)
    assert expected in said
    assert f"Generation {newer} was taken" in said
    assert Refusal.objects.get().times == 2
    hold(on)
