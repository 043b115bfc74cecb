"""The rollouts of a whole week: started at once under its gate, paused, resumed and aborted together."""

from __future__ import annotations

import io
import json
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from migrations_app.actions import week_rollouts
from migrations_app.actions.change import shift
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.rollouts import start_rollout, step_to
from migrations_app.actions.week_rollouts import (
    abort_week_rollout,
    pause_week_rollout,
    resume_week_rollout,
    start_week_rollout,
)
from migrations_app.actions.weeks import roll_back_week
from migrations_app.choices import AuditKind, Health, RolloutState, WeekStatus
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted, Partly, Pinned, Stale
from migrations_app.models import ApprovalRequest, AuditEvent, Flag, Gateway, HealthState, Rollout, Service, Week
from migrations_app.roles import Role
from tests.factories import approve, put_behind, tick_all

KEYS = ["USE_NOTIFICATION_SERVICE", "USE_STORAGE_SERVICE", "USE_RAG_SERVICE"]


@pytest.fixture
def ready(plan, shell):
    """Week 1 with its gate open."""
    tick_all(1, shell)
    return plan


@pytest.fixture
def ready_4(plan, people):
    """Week 4, of high risk, with two services, its gate open and one approval for the whole of it."""
    put_behind(1, 2, 3)
    tick_all(4, people[Role.RELEASE_MANAGER])
    approve(4, people)
    return people[Role.RELEASE_MANAGER]


def weights(week: int = 1) -> dict[str, int]:
    return dict(Flag.objects.filter(week__number=week).values_list("key", "weight"))


def states() -> list[str]:
    return list(Rollout.objects.order_by("pk").values_list("state", flat=True))


def test_all_of_it_takes_its_first_step_in_one_change(ready, shell):
    change = start_week_rollout(number=1, actor=shell, reason="a quiet morning")
    assert weights() == dict.fromkeys(KEYS, 1)
    event = change.event
    assert (event.kind, event.subject, event.verdict["open"]) == (AuditKind.ROLLOUT_STARTED, "week 1", True)
    assert event.after["rollout"]["steps"]["USE_RAG_SERVICE"] == [1, 5, 25, 50, 100]
    assert {row.generation for row in Rollout.objects.all()} == {change.generation}
    assert states() == [RolloutState.RUNNING] * 3
    assert Week.objects.get(number=1).status == WeekStatus.IN_PROGRESS


def test_what_is_on_or_under_way_is_left_alone(ready, shell):
    set_weight(key="USE_RAG_SERVICE", weight=100, actor=shell)
    start_rollout(key="USE_STORAGE_SERVICE", actor=shell)
    step_to(key="USE_STORAGE_SERVICE", position=2, actor=shell)
    start_week_rollout(number=1, actor=shell)
    assert weights() == {"USE_NOTIFICATION_SERVICE": 1, "USE_STORAGE_SERVICE": 25, "USE_RAG_SERVICE": 100}
    with pytest.raises(Invalid, match="Nothing of week 1 is there to start"):
        start_week_rollout(number=1, actor=shell)


def test_first_steps_that_differ_are_a_change_each_the_lowest_first(ready, shell):
    Service.objects.filter(key="rag").update(rollout={"template": "halves"})
    click = uuid4()
    change = start_week_rollout(number=1, actor=shell, request_key=click)
    assert weights() == {"USE_NOTIFICATION_SERVICE": 1, "USE_STORAGE_SERVICE": 1, "USE_RAG_SERVICE": 10}
    events = AuditEvent.objects.filter(kind=AuditKind.ROLLOUT_STARTED).order_by("pk")
    assert [event.after.get("USE_RAG_SERVICE") for event in events] == [None, 10]
    assert change.event == events[1]
    assert start_week_rollout(number=1, actor=shell, request_key=click).changed is False


def test_a_rollback_of_the_week_between_two_changes_wins(ready, shell, monkeypatch):
    Service.objects.filter(key="rag").update(rollout={"template": "halves"})

    def and_then_somebody_rolls_back(*args, **told):
        change = shift(*args, **told)
        roll_back_flag(key="USE_NOTIFICATION_SERVICE", actor=shell)
        return change

    monkeypatch.setattr(week_rollouts, "shift", and_then_somebody_rolls_back)
    click = uuid4()
    for _ in range(2):  # the same click again undoes it neither
        with pytest.raises(Partly, match="has rolled this back"):
            start_week_rollout(number=1, actor=shell, request_key=click)
        assert weights() == {"USE_NOTIFICATION_SERVICE": 0, "USE_STORAGE_SERVICE": 1, "USE_RAG_SERVICE": 0}


def test_what_refuses_a_later_change_says_that_some_is_done_and_the_same_click_does_the_rest(ready, shell):
    Service.objects.filter(key="rag").update(rollout={"template": "halves"})
    pin = {"flag": "USE_RAG_SERVICE", "by": "anna", "at": None, "why": ""}
    Gateway.objects.update(pins=[pin])
    out = io.StringIO()
    with pytest.raises(CommandError) as refused:
        call_command("rollout", "start", "--week", "1", "--json", stdout=out)
    assert refused.value.returncode == 3
    assert json.loads(out.getvalue())["changed"] is True
    roll_back_week(number=1, actor=shell)
    click, seen = uuid4(), Week.objects.get(number=1).version
    with pytest.raises(Partly) as partly:
        start_week_rollout(number=1, actor=shell, seen=seen, request_key=click)
    assert str(partly.value) == (
        "Some of week 1 is under way; the rest is not. USE_RAG_SERVICE is pinned to the old side by anna. "
        "Nothing more was done. Lift the pin first: manage.py pin lift USE_RAG_SERVICE"
    )
    assert isinstance(partly.value.__cause__, Pinned)
    step_to(key="USE_STORAGE_SERVICE", position=1, actor=shell)
    Gateway.objects.update(pins=[])
    assert start_week_rollout(number=1, actor=shell, seen=seen, request_key=click).changed
    assert weights() == {"USE_NOTIFICATION_SERVICE": 1, "USE_STORAGE_SERVICE": 5, "USE_RAG_SERVICE": 10}
    assert start_week_rollout(number=1, actor=shell, seen=seen, request_key=click).changed is False


def test_the_same_click_again_changes_nothing(ready, shell):
    click = uuid4()
    first = start_week_rollout(number=1, actor=shell, request_key=click)
    again = start_week_rollout(number=1, actor=shell, request_key=click)
    assert (again.changed, again.event) == (False, first.event)
    assert Rollout.objects.count() == 3


def test_it_goes_through_the_gate_of_the_whole_week(plan, shell):
    with pytest.raises(GateClosed):
        start_week_rollout(number=1, actor=shell)
    assert (weights(), Rollout.objects.count()) == (dict.fromkeys(KEYS, 0), 0)
    assert AuditEvent.objects.order_by("-id").first().kind == AuditKind.ENABLE_REFUSED


def test_an_old_page_and_the_wrong_role_are_refused(ready, shell, people):
    with pytest.raises(Stale):
        start_week_rollout(number=1, actor=shell, seen=Week.objects.get(number=1).version - 1)
    with pytest.raises(NotPermitted):
        start_week_rollout(number=1, actor=people[Role.APPROVER])
    with pytest.raises(NotPermitted):
        pause_week_rollout(number=1, actor=people[Role.VIEWER])
    with pytest.raises(NotFound):
        pause_week_rollout(number=1, actor=shell)
    assert weights() == dict.fromkeys(KEYS, 0)


def test_it_is_paused_and_goes_on_together(ready, shell):
    start_week_rollout(number=1, actor=shell)
    set_weight(key="USE_RAG_SERVICE", weight=0, actor=shell)
    seen = Week.objects.get(number=1).version
    assert pause_week_rollout(number=1, actor=shell, reason="lunch", seen=seen).changed
    assert sorted(states()) == [RolloutState.ENDED, RolloutState.PAUSED, RolloutState.PAUSED]
    assert pause_week_rollout(number=1, actor=shell).changed is False
    assert resume_week_rollout(number=1, actor=shell).changed
    assert sorted(states()) == [RolloutState.ENDED, RolloutState.RUNNING, RolloutState.RUNNING]
    paused = AuditEvent.objects.filter(kind=AuditKind.ROLLOUT_PAUSED)
    assert {event.subject for event in paused} == {"USE_NOTIFICATION_SERVICE", "USE_STORAGE_SERVICE"}
    assert {event.reason for event in paused} == {"lunch"}


def test_abort_rolls_the_week_back(ready, shell):
    start_week_rollout(number=1, actor=shell)
    change = abort_week_rollout(number=1, actor=shell)
    assert change.event.kind == AuditKind.WEEK_ROLLED_BACK
    assert weights() == dict.fromkeys(KEYS, 0)
    assert states() == [RolloutState.ENDED] * 3
    with pytest.raises(NotFound):
        abort_week_rollout(number=1, actor=shell)


def test_one_approval_is_for_all_steps_of_all_services_and_spent_by_the_last(ready_4):
    def request() -> ApprovalRequest:
        return ApprovalRequest.objects.get(week__number=4)

    start_week_rollout(number=4, actor=ready_4, reason="as planned")
    assert request().used_at is not None
    for key in ("USE_SAMPLE_SERVICE", "USE_SEQUENCING_SERVICE"):
        assert request().spent_at is None
        step_to(key=key, position=2, actor=ready_4, reason="on")
        step_to(key=key, position=4, actor=ready_4, reason="on")
    assert set(weights(4).values()) == {100}
    assert request().spent_at is not None


def test_a_step_is_not_taken_while_another_service_of_the_week_is_ill(ready, shell):
    start_week_rollout(number=1, actor=shell)
    HealthState.objects.filter(target="storage").update(state=Health.UNHEALTHY)
    with pytest.raises(GateClosed):
        step_to(key="USE_RAG_SERVICE", position=1, actor=shell)
    assert weights() == dict.fromkeys(KEYS, 1)


def test_the_shell_takes_a_flag_or_a_week(ready, settings):
    settings.CONFIRM_WITHIN = 5.0
    out = io.StringIO()
    for verb in ("start", "pause", "resume", "abort"):
        call_command("rollout", verb, "--week", "1", stdout=out)
    said = out.getvalue()
    assert "The rollout of week 1 is under way. Applied on the gateway" in said
    assert "The rollout of week 1 is paused." in said
    assert "Week 1 is rolled back. Applied" in said
    for wrong in ([], [KEYS[0], "--week", "1"]):
        with pytest.raises(CommandError, match="Name either a flag") as refused:
            call_command("rollout", "start", *wrong, stdout=out)
        assert refused.value.returncode == 2
