"""Pages where a plan has several gateways: how many run what is asked, and which does not and why."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import set_weight
from migrations_app.models import Flag, Gateway
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.web.gateway_state import flag_state
from tests.factories import memory_gateway, on_gateways, tick_all, tracseq
from tests.web.conftest import HTMX, text_of

KEY = "USE_RAG_SERVICE"


@pytest.fixture
def three(plan, shell):
    load_plan(on_gateways(tracseq(adapter="memory", by_hand=True), "gw-2", "gw-3"), actor=shell, reason="for a test")
    reconcile_all()
    tick_all(1, shell)


@pytest.fixture
def one_away(three, shell):
    """rag is on, but not on gw-3, which does not answer."""
    memory_gateway("gw-3").answers = False
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()


def section(page, key: str) -> str:
    return re.split(r" Gateway \S+ State ", text_of(page).split(f" Gateway {key} State ")[1])[0]


def test_the_header_tells_that_all_are_in_step_or_the_worst_and_how_many_are(manager, three, shell):
    assert "Gateway: all 3 in step" in text_of(manager.get("/"))
    memory_gateway("gw-3").answers = False
    reconcile_all()
    for page in (manager.get("/"), manager.get("/live/", headers=HTMX)):
        assert "Gateway: gw-3 does not answer, 2 of 3 in step" in text_of(page)


@pytest.mark.parametrize("page", ["/weeks/1/", "/services/rag/", "/gateway/"])
def test_a_flag_is_applied_when_all_of_them_run_it_else_on_how_many_and_which_not_and_why(manager, one_away, page):
    Flag.objects.update(changed_at=timezone.now() - timedelta(minutes=1))
    why = Gateway.objects.get(key="gw-3").error
    said = text_of(manager.get(page))
    assert re.search(r"applied on 2 of 3", said, re.IGNORECASE)
    assert (f"Not on gw-3: {why}." if page != "/gateway/" else f"It says: {why}") in said
    memory_gateway("gw-3").answers = True
    reconcile_all()
    said = text_of(manager.get(page))
    assert not re.search(r"applied on 2 of 3", said, re.IGNORECASE)
    assert re.search(r"applied", said, re.IGNORECASE)


def test_a_change_that_is_on_its_way_to_one_of_them_is_applying(three, shell):
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all(only="gw-2")
    flag, gateways = Flag.objects.select_related("service").get(key=KEY), list(Gateway.objects.all())
    assert flag_state(flag, gateways).word == "applying"
    later = timezone.now() + timedelta(seconds=6)
    Gateway.objects.update(observed_at=later)
    told = flag_state(flag, list(Gateway.objects.all()), later)
    assert (told.word, told.why) == (
        "applied on 1 of 3",
        "Not on gw-3: it has not taken it yet. main: it has not taken it yet.",
    )


def test_services_tells_by_how_many_it_is_known_what_serves(manager, one_away):
    assert "New side, 100 %, by 2 of 3 gateways" in text_of(manager.get("/services/"))


def test_the_status_page_goes_by_those_that_are_seen(manager, one_away):
    Gateway.objects.filter(key="gw-3").update(observed_at=timezone.now() - timedelta(minutes=5))
    assert "The new system" in text_of(manager.get("/status/"))


def test_each_gateway_has_its_own_section_with_its_drift_refusals_and_command(manager, three, shell):
    memory_gateway("gw-2").tamper({KEY: 40})
    reconcile_all()
    memory_gateway("gw-3").refuses = "cluster unknown"
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()
    page = manager.get("/gateway/")
    drifted, refused, first = (section(page, key) for key in ("gw-2", "gw-3", "main"))
    assert "Put back" in drifted
    assert "Never." in refused
    assert "Never." in first
    assert "cluster unknown" in refused
    assert "cluster unknown" not in drifted
    assert f"{KEY} asked 100 %, runs 0 %" in refused
    assert "Not as asked here" not in drifted
    assert "manage.py reconcile --gateway gw-3" in refused
    assert "Gateway gw-3 not in step, 2 of 3 in step." in text_of(page)
    ids = re.findall(r'id="([^"]+)"', page.content.decode())
    assert len(ids) == len(set(ids))


def test_the_answer_to_a_click_says_on_how_many_it_is_applied_and_how_to_do_the_rest(manager, three, settings):
    settings.CONFIRM_WITHIN, settings.WORKER_HEAD_START = 0.2, 0.0
    memory_gateway("gw-3").answers = False
    answer = manager.post(f"/flags/{KEY}/enable/", {"reason": "as planned"})
    said = text_of(answer)
    assert answer.status_code == 202
    assert "Applied on 2 of 3 gateways" in said
    assert "Not on gw-3: " in said
    assert "manage.py reconcile --gateway gw-3" in said


def questions(client, page: str) -> int:
    client.get(page)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(page).status_code == 200
    return len(captured)


def test_more_gateways_cost_no_page_but_their_own_a_question(manager, plan, shell):
    pages = ("/", "/services/", "/services/rag/", "/weeks/1/", "/status/", "/gateway/")
    before = {page: questions(manager, page) for page in pages}
    load_plan(on_gateways(tracseq(adapter="memory", by_hand=True), "gw-2", "gw-3"), actor=shell, reason="for a test")
    reconcile_all()
    after = {page: questions(manager, page) for page in pages}
    assert after == before | {"/gateway/": before["/gateway/"] + 6}
