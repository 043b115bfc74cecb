"""The page of the gateway: what it refused, what was put back, and what differs."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.models import Gateway, Plan
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.reconcile.refusals import note_refusal
from migrations_app.roles import Role
from tests.factories import memory_gateway, tick_all, tracseq
from tests.web.conftest import HTMX, text_of

KEY = "USE_RAG_SERVICE"


def refused(manager):
    return text_of(manager.get("/gateway/")).split(" Refused ")[1].split("Changed behind")[0]


@pytest.fixture
def rejected(plan, shell):
    """A change that the gateway refuses, seen twice; its generation."""
    memory_gateway().refuses = "cluster <unknown>"
    tick_all(1, shell)
    generation = set_weight(key=KEY, weight=100, actor=shell).generation
    reconcile_all()
    reconcile_all()
    return generation


def test_before_anything_was_refused_or_put_back_the_page_says_so(manager):
    said = text_of(manager.get("/gateway/"))
    assert "Nothing was ever refused." in said
    assert "Changed behind Switchyard's back Never." in said


def test_a_refusal_is_told_with_its_generation_reason_and_count(manager, rejected):
    said = refused(manager)
    assert f"Generation {rejected}" in said
    assert "2 times until" in said
    assert "cluster <unknown>" in said
    assert "Nothing newer was taken since." in said


def test_it_stays_when_it_is_over_and_tells_what_was_taken_since(manager, rejected, shell):
    memory_gateway().refuses = ""
    newer = roll_back_flag(key=KEY, actor=shell).generation
    reconcile_all()
    said = refused(manager)
    assert "cluster <unknown>" in said
    assert f"Generation {newer} was taken" in said


def test_the_same_generation_may_be_taken_after_all(manager, rejected):
    memory_gateway().refuses = ""
    reconcile_all()
    assert "It was taken after all" in refused(manager)


def test_a_repair_that_was_refused_is_over_when_the_gateway_runs_it_again(manager, shell):
    adapter = memory_gateway()
    adapter.tamper({KEY: 40})
    adapter.refuses = "busy"
    reconcile_all()
    assert "Nothing newer was taken since." in refused(manager)
    adapter.refuses = ""
    reconcile_all()
    assert "The gateway runs what is asked again." in refused(manager)


def test_ten_refusals_are_listed_newest_first(manager):
    for number in range(12):
        note_refusal(Gateway.objects.get(), 7, f"reason {number}.", timezone.now())
    assert re.findall(r"reason (\d+)\.", refused(manager)) == [str(number) for number in range(11, 1, -1)]


def test_drift_that_was_put_back_is_told_and_linked_for_who_may_read_the_log(clients):
    memory_gateway().tamper({KEY: 40})
    reconcile_all()
    for role, links in ((Role.RELEASE_MANAGER, True), (Role.SUPPORT, False)):
        page = clients[role].get("/gateway/")
        said = text_of(page).split("Switchyard's back")[1]
        assert "Put back" in said
        assert "/api/rag" in said
        assert ("in the audit log" in said) is links


def test_flags_that_differ_stand_first(manager, shell):
    tick_all(1, shell)
    set_weight(key="USE_STORAGE_SERVICE", weight=100, actor=shell)
    reconcile_all()
    said = text_of(manager.get("/gateway/"))
    assert "The gateway runs what is asked of all 10 flags." in said
    memory_gateway().refuses = "cluster unknown"
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()
    content = manager.get("/gateway/").content.decode()
    assert "1 of 10 flags wants a look" in content
    assert re.findall(r"<code>(USE_\w+)</code>", content)[0] == KEY


def test_the_live_part_has_the_refusals_and_no_form(manager, rejected):
    part = manager.get("/gateway/live/", headers=HTMX)
    assert "cluster <unknown>" in text_of(part)
    assert "<form" not in part.content.decode()
    assert 'id="gateway-all" hx-swap-oob="true"' in part.content.decode()


def test_without_a_plan_it_says_so(people, client):
    client.force_login(people[Role.VIEWER].account)
    assert "No plan is loaded yet" in text_of(client.get("/gateway/"))


def queries(client):
    client.get("/gateway/")
    with CaptureQueriesContext(connection) as captured:
        assert client.get("/gateway/").status_code == 200
    return len(captured)


def test_it_costs_the_same_with_more_services_refusals_and_drift(manager, shell):
    before = queries(manager)
    document = tracseq(adapter="memory", by_hand=True)
    first = document.services[0]
    more = [
        first.model_copy(
            update={"key": f"more-{n}", "title": f"More {n}", "flag": f"USE_MORE_{n}", "routes": (f"/api/more-{n}",)}
        )
        for n in range(20)
    ]
    weeks = list(document.weeks)
    weeks[0] = weeks[0].model_copy(update={"flags": (*weeks[0].flags, *(one.flag for one in more))})
    load_plan(
        document.model_copy(update={"services": (*document.services, *more), "weeks": tuple(weeks)}),
        actor=shell,
        reason="more",
    )
    reconcile_all()
    for number in range(15):
        note_refusal(Gateway.objects.get(), Plan.objects.get().generation, f"reason {number}", timezone.now())
        memory_gateway().tamper({KEY: 40})
        reconcile_all()
    assert queries(manager) == before <= 9
