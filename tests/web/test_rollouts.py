"""A rollout from the page of its service: what it shows, and what a click does or is told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.rollouts import start_rollout, under_way
from migrations_app.choices import AuditKind, RolloutState
from migrations_app.gateways.base import NO_LATENCY, Side
from migrations_app.models import AuditEvent, Flag, Rollout, Service, TrafficSample
from migrations_app.observe.traffic import read_once
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import approve, memory_gateway, put_behind, tick_all
from tests.web.conftest import HTMX, fields, text_of

KEY, PAGE = "USE_RAG_SERVICE", "/services/rag/"
AT = f"/flags/{KEY}/rollout"


@pytest.fixture
def ready(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    return manager


@pytest.fixture
def started(ready, people):
    start_rollout(key=KEY, actor=people[Role.RELEASE_MANAGER])
    reconcile_all()
    return ready


def weight(key: str = KEY) -> int:
    return Flag.objects.get(key=key).weight


def click(client, verb: str, **more):
    """As the form on the page sends it."""
    data = fields(client.get(PAGE), f"{AT}/{verb}/") | more
    return client.post(f"{AT}/{verb}/", data, headers=HTMX)


def test_before_it_the_steps_of_the_plan_are_shown_with_a_button(ready):
    said = text_of(ready.get(PAGE))
    assert "1 % 10 min and 100 requests" in said
    assert "100 % 10 min" in said
    assert "Start rollout" in said
    assert "Errors: not watched rolls it back" in said
    Service.objects.filter(key="rag").update(triggers=[])
    assert "The plan has no trigger for it" in text_of(ready.get(PAGE))


def test_where_only_reads_move_the_page_says_so(started, people):
    assert "Writes" not in text_of(started.get(PAGE))
    Service.objects.filter(key="rag").update(writes_from=50)
    assert weight() == 1
    said = "Only reads go to the new side now: writes stay on the old side until 50 % move."
    assert said in text_of(started.get(PAGE))
    roll_back_flag(key=KEY, actor=people[Role.RELEASE_MANAGER])
    said = "Writes move together with reads from 50 % on; below that they stay on the old side."
    assert said in text_of(started.get(PAGE))


def test_start_takes_the_first_step_and_says_what_it_waits_for(ready):
    answer = click(ready, "start")
    assert answer.status_code == 200
    said = text_of(answer)
    assert "The rollout of RAG service is under way. Applied on the gateway" in said
    assert "Running at step 1 of 5 (1 %), started by release-manager" in said
    assert "too few requests to tell: 0" in said
    assert 'aria-current="step"' in answer.content.decode()
    assert weight() == 1


def test_a_plain_form_leads_back_to_the_steps(ready):
    answer = ready.post(f"{AT}/start/")
    assert (answer.status_code, answer["Location"]) == (303, f"{PAGE}#rollout")


def test_the_same_click_twice_is_one_change(ready):
    data = fields(ready.get(PAGE), f"{AT}/start/")
    answers = [ready.post(f"{AT}/start/", data, headers=HTMX).status_code for _ in range(2)]
    assert answers == [200, 200]
    assert AuditEvent.objects.filter(kind=AuditKind.ROLLOUT_STARTED).count() == 1


def test_a_closed_gate_is_told_with_what_is_in_the_way(manager):
    answer = click(manager, "start")
    assert answer.status_code == 409
    assert "No step was taken: " in text_of(answer)
    assert weight() == 0


def test_pause_resume_jump_and_back(started):
    assert "The rollout of RAG service is paused." in text_of(click(started, "pause"))
    assert under_way(KEY).state == RolloutState.PAUSED
    assert "The rollout of RAG service goes on." in text_of(click(started, "resume"))
    assert "RAG service has taken the step." in text_of(click(started, "step", position="3"))
    assert weight() == 50
    said = text_of(click(started, "back"))
    assert "RAG service is one step back, and stays there." in said
    assert "Paused at step 3 of 5 (25 %)" in said
    assert weight() == 25


def test_the_rollback_button_ends_it(started):
    started.post(f"/flags/{KEY}/rollback/", {"page": "service"}, headers=HTMX)
    assert (weight(), under_way(KEY)) == (0, None)
    assert "Start rollout" in text_of(started.get(PAGE))


def test_a_page_of_another_step_is_told_so_and_nothing_is_done(started):
    data = fields(started.get(PAGE), f"{AT}/step/") | {"position": "2", "seen": ""}
    assert click(started, "step", position="1").status_code == 200
    answer = started.post(f"{AT}/step/", data, headers=HTMX)
    assert answer.status_code == 409
    assert "The rollout is at step 2 of 5 (5 %) now." in text_of(answer)
    assert weight() == 5


@pytest.mark.parametrize("wrong", ["", "x", "-1", "9"])
def test_a_step_that_makes_no_sense_is_told(started, wrong):
    answer = click(started, "step", position=wrong)
    assert answer.status_code == 422
    assert weight() == 1


def test_what_is_not_under_way_is_told(ready):
    answer = ready.post(f"{AT}/pause/", headers=HTMX)
    assert answer.status_code == 404
    assert "No rollout of RAG service is under way" in text_of(answer)
    assert ready.post("/flags/USE_NOTHING/rollout/pause/").status_code == 404


def test_a_week_of_high_risk_wants_a_word_on_why(manager, people):
    put_behind(1, 2)
    tick_all(3, people[Role.RELEASE_MANAGER])
    approve(3, people)
    assert 'name="reason"' in manager.get("/services/auth/").content.decode().split('id="rollout"')[1].split("past")[0]
    where = "/flags/USE_AUTH_SERVICE/rollout/start/"
    assert manager.post(where, headers=HTMX).status_code == 422
    assert manager.post(where, {"reason": "as planned"}, headers=HTMX).status_code == 200
    assert weight("USE_AUTH_SERVICE") == 1


def test_who_may_not_enable_sees_who_may_and_no_button(started, clients):
    said = clients[Role.APPROVER].get(PAGE).content.decode()
    assert 'id="rollout-pause"' in said
    assert 'id="rollout-step"' not in said
    said = clients[Role.SUPPORT].get(PAGE).content.decode()
    assert "Running" in said
    assert 'id="rollout-pause"' not in said


def test_what_refreshes_by_itself_has_the_steps_and_no_form(started):
    live = started.get("/services/rag/live/", headers=HTMX).content.decode()
    assert 'id="rollout-state" hx-swap-oob="true"' in live
    assert "<form" not in live


def test_triggers_are_shown_with_value_limit_and_when_they_fired(started):
    rows = [
        {"key": "errors", "when": "errors", "above": 5.0},
        {"key": "away", "when": "failover", "dry_run": True},
    ]
    Service.objects.filter(key="rag").update(triggers=rows)
    assert "Errors: not watched" in text_of(started.get(PAGE))
    TrafficSample.objects.create(
        service=Service.objects.get(key="rag"),
        side=Side.SERVICE.value,
        read_at=timezone.now() + timedelta(seconds=1),
        requests=100,
        errors=10,
        latency=list(NO_LATENCY),
    )
    memory_gateway().down = {"rag"}
    read_once()
    from migrations_app.actions.triggers import watch_triggers

    fired = watch_triggers(timezone.now() + timedelta(seconds=2))
    assert fired == [f"{KEY}/errors", f"{KEY}/away"]
    said = text_of(started.get(PAGE))
    assert "10.00 % errors of 100 requests (limit: at most 5 % in 30 s)" in said
    assert "tells" in said or "dry run: only tells" in said
    assert (weight(), Rollout.objects.get().state) == (0, RolloutState.ENDED)
