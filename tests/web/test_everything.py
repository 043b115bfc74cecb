"""Everything back from the page: what it says first, the one button, and the weeks that rest on a week."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.choices import AuditKind
from migrations_app.gateways.base import Side, SideTraffic
from migrations_app.models import AuditEvent, Flag, Gateway, Plan, Service
from migrations_app.observe.traffic import store
from migrations_app.roles import Role
from tests.factories import memory_gateway, put_behind
from tests.web.conftest import HTMX, fields, text_of

PAGE = "/rollback/"
BUTTON = 'id="rollback-everything"'


def on() -> set[str]:
    return set(Flag.objects.filter(weight__gt=0).values_list("key", flat=True))


def test_the_page_says_in_numbers_what_will_move(manager):
    put_behind(1, 2)
    now, none = timezone.now(), SideTraffic(0, 0)
    served = {("rag", Side.SERVICE): 900, ("rag", Side.MONOLITH): 7, ("storage", Side.SERVICE): 300}
    store(dict.fromkeys(served, none), now - timedelta(seconds=2))
    store({side: SideTraffic(requests, 0) for side, requests in served.items()}, now - timedelta(seconds=1))
    page = manager.get(PAGE)
    words = text_of(page)
    assert "4 services of weeks 1 and 2 go back to the monolith, all at once." in words
    assert "That is about 1,200 requests a minute." in words
    assert "It waits for no gate, and needs no reason now." in words
    assert fields(page, PAGE).keys() == {"csrfmiddlewaretoken", "request_key"}
    assert page.content.decode().count("<button") == 2  # this one, and that to sign out


def test_what_the_monolith_never_had_is_said(manager):
    put_behind(1)
    assert "never had" not in text_of(manager.get(PAGE))
    Service.objects.filter(key="rag").update(new_side_only=True)
    title = Service.objects.get(key="rag").title
    assert f"The monolith never had {title} : it has no answer there." in text_of(manager.get(PAGE))


def test_one_click_rolls_everything_back_and_tells_what_the_gateway_says(manager):
    put_behind(1, 2)
    response = manager.post(PAGE, fields(manager.get(PAGE), PAGE))
    assert (response.status_code, response["Location"]) == (303, "/")
    words = text_of(manager.get("/"))
    assert re.search(r"Everything is rolled back. Applied on the gateway in \d+ ms.", words)
    assert on() == set()
    assert set(memory_gateway().observe().weights.values()) == {0}
    again = manager.post(PAGE)
    assert again.status_code == 303
    assert "Everything was on the old side already." in text_of(manager.get("/"))
    assert AuditEvent.objects.filter(kind=AuditKind.EVERYTHING_ROLLED_BACK).count() == 1


def test_in_the_dialog_the_timeline_comes_back_with_the_result(manager):
    put_behind(1)
    response = manager.post(PAGE, headers=HTMX)
    assert response.status_code == 200
    assert response.content.decode().lstrip().startswith('<div id="panel"')
    assert "Everything is rolled back. Applied on the gateway in" in text_of(response)
    assert BUTTON not in response.content.decode()


def test_what_the_gateway_does_not_confirm_is_said_in_place(manager, settings):
    put_behind(1)
    settings.CONFIRM_WITHIN = 0.05
    memory_gateway().answers = False
    response = manager.post(PAGE)
    assert response.status_code == 202
    assert "Not confirmed yet" in text_of(response)
    assert "manage.py reconcile" in text_of(response)
    assert on() == set()


def test_fields_that_make_no_sense_hold_up_nothing(manager):
    put_behind(1)
    assert manager.post(PAGE, {"request_key": "x", "reason": "y" * 2000}).status_code == 303
    assert on() == set()


def test_nothing_on_is_said_with_the_way_back(manager):
    page = manager.get(PAGE)
    assert "Nothing is on the new side: every request goes to the monolith." in text_of(page)
    assert "confirm-everything" not in page.content.decode()
    for address in ("/", "/gateway/"):
        assert PAGE not in manager.get(address).content.decode()


@pytest.mark.parametrize("role", list(Role))
def test_the_way_there_is_shown_to_whoever_may_roll_back(clients, role):
    put_behind(1)
    may = role not in {Role.VIEWER, Role.SUPPORT}
    for address in ("/", "/gateway/", "/gateway/live/"):
        assert (f'"{PAGE}"' in clients[role].get(address).content.decode()) == may, address
    assert ('id="dialog-everything"' in clients[role].get("/").content.decode()) == may
    assert ('id="everything-words"' in clients[role].get("/live/").content.decode()) == may
    page = clients[role].get(PAGE)
    assert ("confirm-everything" in page.content.decode()) == may
    assert ("administrators can roll back." in text_of(page)) != may
    if not may:
        assert clients[role].post(PAGE).status_code == 403
        assert on()


def test_what_a_gateway_that_is_ahead_still_sends_there_can_be_rolled_back(manager):
    ahead = Plan.objects.get().generation + 5
    Gateway.objects.update(observed_generation=ahead, observed_weights={"USE_AUTH_SERVICE": 40})
    assert BUTTON in manager.get("/").content.decode()
    assert f'"{PAGE}"' in manager.get("/gateway/").content.decode()
    assert "1 service of week 3 goes back" in text_of(manager.get(PAGE))


def test_without_a_plan_the_page_says_how_to_load_one(db, client, people):
    client.force_login(people[Role.RELEASE_MANAGER].account)
    assert "plan load" in text_of(client.get(PAGE))


# -- a week, and what rests on it -------------------------------------------------------------------------------------


def test_a_week_tells_which_later_ones_rest_on_it_and_rolls_them_back_with_it(manager):
    put_behind(1, 2, 3)
    page = manager.get("/weeks/1/")
    assert "Weeks 3 and 2 rest on this week and are still on." in text_of(page)
    assert "Roll back weeks 3, 2 and 1" in text_of(page)
    assert "Roll back week 1" in text_of(page)
    assert "rests on this week" not in text_of(manager.get("/weeks/3/"))
    form = re.search(r'<form[^>]*>(?:(?!</form>).)*id="rollback-later"', page.content.decode(), re.DOTALL)
    sent = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[0].rpartition("<form")[2]))
    assert sent["with_later"] == "on"
    assert manager.post("/weeks/1/rollback/", sent).status_code == 303
    assert "Week 1 with what rests on it is rolled back." in text_of(manager.get("/weeks/1/"))
    assert on() == set()


def test_later_weeks_are_told_also_when_the_week_itself_is_off(manager):
    put_behind(1, 2)
    page = manager.get("/weeks/1/")
    manager.post("/weeks/1/rollback/")
    after = manager.get("/weeks/1/")
    assert "Week 2 rests on this week and is still on." in text_of(after)
    assert "Roll back week 2" in text_of(after)
    token = re.compile(r'data-token="([^"]+)"')
    assert token.search(page.content.decode())[1] != token.search(after.content.decode())[1]


def test_a_page_of_a_week_is_shown_anew_when_a_later_week_goes_on_or_off(manager):
    put_behind(1, 2)
    token = re.compile(r'data-token="([^"]+)"')
    before = token.search(manager.get("/weeks/1/").content.decode())[1]
    manager.post("/weeks/2/rollback/")
    assert token.search(manager.get("/weeks/1/live/").content.decode())[1] != before


def test_who_may_not_roll_back_is_told_but_gets_no_button(support):
    put_behind(1, 2)
    page = support.get("/weeks/1/")
    assert "Week 2 rests on this week and is still on." in text_of(page)
    assert "rollback-later" not in page.content.decode()
