"""Pins on the pages: told for what they are everywhere, and lifted on the page of the gateway."""

from __future__ import annotations

import pytest
from django.urls import reverse

from migrations_app.actions.flags import set_weight
from migrations_app.actions.pins import settle_passes
from migrations_app.actions.weeks import enable_week
from migrations_app.models import Flag, Gateway
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import memory_gateway, tick_all
from tests.web.conftest import HTMX, text_of

KEY = "USE_RAG_SERVICE"
LIFT = "/gateway/pins/lift/"


@pytest.fixture
def pinned(plan, shell):
    """Week 1 is on, and one of its flags was pinned a moment ago: the loop obeys it, and has not rolled it back yet."""
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    reconcile_all()
    gateway = memory_gateway()
    gateway.panic([KEY], by="<anna>", why="it burns")
    reconcile_all()
    return gateway


@pytest.mark.parametrize("page", ["/gateway/", "/weeks/1/", "/services/rag/"])
def test_pages_tell_by_whom_it_is_pinned_since_when_and_why_and_not_that_it_is_applying(manager, pinned, page):
    said = text_of(manager.get(page))
    (pin,) = pinned.pins()
    assert "inned to the old side" in said
    assert f"By <anna> since {pin.at:%Y-%m-%d %H:%M} UTC: it burns." in said
    assert "1 flag pinned" in said
    assert "pplying" not in said
    assert "ot applied" not in said


@pytest.mark.parametrize(
    ("page", "offers"),
    [
        ("/weeks/1/", [("flag-enable", KEY), ("week-enable", 1), ("week-rollout-start", 1)]),
        ("/services/rag/", [("flag-enable", KEY), ("rollout-start", KEY)]),
    ],
)
def test_what_would_be_refused_is_not_offered(manager, pinned, page, offers):
    settle_passes(reconcile_all())
    reconcile_all()
    actions = [f'action="{reverse(name, args=[what])}"' for name, what in offers]
    html = manager.get(page).content.decode()
    assert not [action for action in actions if action in html]
    assert "the pin is lifted" in html
    pinned.lift([KEY], by="ben")
    reconcile_all()
    html = manager.get(page).content.decode()
    assert [action for action in actions if action in html] == actions
    assert "the pin is lifted" not in html


def test_the_timeline_asks_for_it_and_names_the_flag(manager, pinned):
    said = text_of(manager.get("/"))
    assert "The gateway: 1 flag pinned" in said
    assert f"{KEY}: on the old side until somebody lifts the pin." in said


def test_support_reads_that_the_old_system_serves_it_until_further_notice(manager, pinned):
    before = manager.get("/status.json").json()["areas"]
    (area,) = [one for one in before if one["coming"] == "It stays on the old system until further notice"]
    assert area["served_by"] == "The old system"
    assert area["last_change"] == "Moved back to the old system"


def test_a_pin_is_lifted_on_the_page_and_nothing_moves(manager, pinned):
    settle_passes(reconcile_all())
    reconcile_all()
    answer = manager.post(LIFT, {"flags": [KEY], "reason": "mended"}, headers=HTMX)
    assert answer.status_code == 200
    assert f"Lifted: {KEY}." in text_of(answer)
    assert pinned.pins() == ()
    assert "Pinned to the old side" not in text_of(manager.get("/gateway/"))
    reconcile_all()
    assert Flag.objects.get(key=KEY).weight == 0
    assert Gateway.objects.get().pins == []
    again = manager.post(LIFT, {"flags": [KEY]}, headers=HTMX)
    assert (again.status_code, "Not pinned" in text_of(again)) == (404, True)


@pytest.mark.parametrize("flags", [[], ["a\x00b"]])
def test_who_names_no_flag_lifts_none(manager, pinned, flags):
    assert manager.post(LIFT, {"flags": flags}).status_code == 422
    assert [pin.flag for pin in pinned.pins()] == [KEY]


def test_enabling_a_pinned_flag_is_refused_with_what_to_do(manager, pinned):
    settle_passes(reconcile_all())
    reconcile_all()
    answer = manager.post(reverse("flag-enable", args=[KEY]), {"reason": "now"}, headers=HTMX)
    assert answer.status_code == 409
    assert f"Lift the pin first: manage.py pin lift {KEY}" in text_of(answer)


def test_who_may_not_lift_is_told_who_may(people, client, pinned):
    client.force_login(people[Role.SUPPORT].account)
    answer = client.get("/gateway/")
    assert "Release managers can lift pins." in text_of(answer)
    assert LIFT not in answer.content.decode()


def test_the_page_is_shown_anew_when_a_pin_comes_or_goes(manager, pinned, shell):
    before = manager.get("/gateway/live/").content.decode()
    pinned.pin(["USE_STORAGE_SERVICE"], by="ben")
    reconcile_all()
    after = manager.get("/gateway/live/").content.decode()
    assert f'data-token="gateway-main.{KEY}"' in before
    assert f'data-token="gateway-main.{KEY}-main.USE_STORAGE_SERVICE"' in after


def test_a_pinned_flag_that_still_runs_on_the_new_side_is_told_so(manager, plan, shell):
    tick_all(1, shell)
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()
    gateway = memory_gateway()
    gateway.answers = False
    gateway.pin([KEY], by="ben")
    reconcile_all()
    said = text_of(manager.get("/services/rag/"))
    assert "pinned to the old side By ben since" in said
    assert "the gateway does not answer" in said
