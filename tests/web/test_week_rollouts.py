"""Rollouts and points of no return on the page of a week, and rollouts on the timeline."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from migrations_app.actions.rollouts import pause_rollout, start_rollout
from migrations_app.actions.week_rollouts import start_week_rollout
from migrations_app.choices import RolloutState
from migrations_app.models import Flag, Gateway, Rollout, Service
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import approve, put_behind, tick_all
from tests.web.conftest import HTMX, fields, text_of

PAGE, AT = "/weeks/1/", "/weeks/1/rollout"
POINT = "the index is rebuilt in the new format"


@pytest.fixture
def ready(manager, people):
    """Week 1 with its gate open."""
    tick_all(1, people[Role.RELEASE_MANAGER])
    return manager


@pytest.fixture
def started(ready, people):
    start_week_rollout(number=1, actor=people[Role.RELEASE_MANAGER])
    reconcile_all()
    return ready


@pytest.fixture
def past(manager):
    Service.objects.filter(key="rag").update(point_of_no_return=POINT)
    return manager


def click(client, verb: str, **more):
    data = fields(client.get(PAGE), f"{AT}/{verb}/") | more
    return client.post(f"{AT}/{verb}/", data, headers=HTMX)


def weights() -> list[int]:
    return sorted(Flag.objects.filter(week__number=1).values_list("weight", flat=True))


def test_a_week_is_rolled_out_from_its_page(ready):
    answer = click(ready, "start")
    assert answer.status_code == 200
    said = text_of(answer)
    assert "The rollout of Week 1 is under way. Applied on the gateway" in said
    assert said.count("step 1 of 5, 1 % next in 10 min") == 3
    assert "Start rollout" not in said
    assert weights() == [1, 1, 1]


def test_a_plain_form_leads_back_to_the_steps(ready):
    answer = ready.post(f"{AT}/start/")
    assert (answer.status_code, answer["Location"]) == (303, f"{PAGE}#in-steps")


def test_a_closed_gate_is_told_with_what_is_in_the_way(manager):
    answer = click(manager, "start")
    assert answer.status_code == 409
    assert "No step was taken: " in text_of(answer)
    assert weights() == [0, 0, 0]


def test_what_is_done_in_part_is_told_as_that(ready):
    Service.objects.filter(key="rag").update(rollout={"template": "halves"})
    data = fields(ready.get(PAGE), f"{AT}/start/")
    Gateway.objects.update(pins=[{"flag": "USE_RAG_SERVICE", "by": "", "at": None, "why": ""}])
    answer = ready.post(f"{AT}/start/", data, headers=HTMX)
    assert (answer.status_code, weights()) == (409, [0, 1, 1])
    said = text_of(answer)
    assert "Only a part was done" in said
    assert "Some of week 1 is under way; the rest is not." in said
    assert "Nothing was done" not in said


def test_pause_and_resume_are_for_all_of_it(started):
    said = text_of(click(started, "pause"))
    assert "The rollout of Week 1 is paused." in said
    assert said.count("step 1 of 5, 1 % paused: release-manager paused it") == 3
    assert set(Rollout.objects.values_list("state", flat=True)) == {RolloutState.PAUSED}
    said = text_of(click(started, "resume"))
    assert "The rollout of Week 1 goes on." in said
    assert said.count("next in 10 min") == 6  # in the lever, and with each service


def test_what_is_left_is_started_beside_what_is_under_way(ready, people):
    start_rollout(key="USE_RAG_SERVICE", actor=people[Role.RELEASE_MANAGER])
    assert "Start the others" in text_of(ready.get(PAGE))
    click(ready, "start")
    assert weights() == [1, 1, 1]


def test_an_old_page_is_told_so(ready):
    answer = click(ready, "start", seen="0")
    assert answer.status_code == 409
    assert weights() == [0, 0, 0]


@pytest.mark.parametrize("number", [1, 2, 6])
def test_what_refreshes_by_itself_has_its_place_on_the_page(manager, number):
    put_behind(1)
    page, live = (manager.get(f"/weeks/{number}/{more}").content.decode() for more in ("", "live/"))
    for part in ("steps-now", "downtime"):
        assert (f'<div id="{part}"' in live) == (f'<div id="{part}"' in page) == (number != 6)


def test_who_may_not_enable_sees_the_steps_without_the_buttons(started, support):
    said = support.get(PAGE).content.decode()
    assert "step 1 of 5" in said.lower()
    assert "/rollout/" not in said


def test_a_high_risk_asks_for_a_reason(manager, people):
    put_behind(1, 2, 3)
    tick_all(4, people[Role.RELEASE_MANAGER])
    approve(4, people)
    assert 'id="week-rollout-why"' in manager.get("/weeks/4/").content.decode()
    assert manager.post("/weeks/4/rollout/start/", headers=HTMX).status_code == 422
    assert manager.post("/weeks/4/rollout/start/", {"reason": "as planned"}, headers=HTMX).status_code == 200


def test_rollouts_cost_no_question_while_none_is_under_way_and_one_for_all(ready, people):
    def queries(address: str) -> int:
        with CaptureQueriesContext(connection) as found:
            ready.get(address)
        return len(found)

    queries(PAGE), queries("/")
    before = queries("/"), queries(PAGE)
    start_rollout(key="USE_RAG_SERVICE", actor=people[Role.RELEASE_MANAGER])
    one = queries("/"), queries(PAGE)
    start_week_rollout(number=1, actor=people[Role.RELEASE_MANAGER])
    assert one == (queries("/"), queries(PAGE)) == (before[0] + 1, before[1] + 1)


def test_the_timeline_has_one_line_for_each_week(started, people):
    assert "3 services in steps" in text_of(started.get("/"))
    pause_rollout(key="USE_RAG_SERVICE", actor=people[Role.RELEASE_MANAGER])
    assert "3 services in steps, 1 paused" in text_of(started.get("/live/"))
    for key in ("USE_STORAGE_SERVICE", "USE_NOTIFICATION_SERVICE"):
        started.post(f"/flags/{key}/rollback/")
    assert "Step 1 of 5, 1 %, paused" in text_of(started.get("/"))


# -- points of no return ----------------------------------------------------------------------------------------------


def test_it_is_told_before_the_click_with_a_box_to_tick(past, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    said = past.get(PAGE).content.decode()
    dialog = said.partition('<dialog id="dialog-week-1"')[2].partition("</dialog>")[0]
    assert f"once RAG service is on, {POINT}." in dialog
    assert re.search(r'<input type="checkbox"[^>]*name="past_no_return" required', dialog)
    assert "Why now" in dialog
    assert "<textarea" in dialog
    assert "required>" not in dialog.partition("<textarea")[2].partition("</textarea>")[0]
    assert 'id="know-week-rollout"' in said
    page = past.get("/services/rag/").content.decode()
    assert 'id="know-rollout"' in page
    assert 'id="know-rag"' in page
    assert "Point of no return" not in text_of(past.get("/services/storage/"))


@pytest.mark.parametrize(
    "address",
    ["/weeks/1/enable/", "/flags/USE_RAG_SERVICE/enable/", "/flags/USE_RAG_SERVICE/rollout/start/", f"{AT}/start/"],
)
def test_without_the_box_nothing_moves_and_with_it_it_does(past, people, address):
    tick_all(1, people[Role.RELEASE_MANAGER])
    answer = past.post(address, headers=HTMX)
    assert answer.status_code == 422
    assert f"Point of no return: once RAG service is on, {POINT}." in text_of(answer)
    assert weights() == [0, 0, 0]
    assert past.post(address, {"past_no_return": "on"}, headers=HTMX).status_code == 200
    assert Flag.objects.get(key="USE_RAG_SERVICE").weight > 0


def test_without_javascript_a_page_of_its_own_asks(past, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    said = text_of(past.get("/flags/USE_RAG_SERVICE/enable/"))
    assert f"Point of no return: once RAG service is on, {POINT}." in said
    assert "I know that the old side cannot serve it again" in said


def test_what_closes_the_gate_is_told_first(past):
    answer = past.post("/weeks/1/enable/", headers=HTMX)
    assert answer.status_code == 409
    assert "in the way" in text_of(answer)


def test_afterwards_it_stands_beside_the_rollback_which_works(past, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    past.post("/weeks/1/enable/", {"past_no_return": "on"}, headers=HTMX)
    told = f"RAG service is past its point of no return: {POINT}. Rolling back moves its traffic, not that."
    for page in (PAGE, "/services/rag/"):
        assert told in text_of(past.get(page))
    assert past.post("/weeks/1/rollback/", headers=HTMX).status_code == 200
    assert weights() == [0, 0, 0]
    assert told not in text_of(past.get(PAGE))
