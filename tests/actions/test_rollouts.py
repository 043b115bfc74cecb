"""Rollouts by hand: start, pause, resume, jump, go back, abort; and whatever else moves the flag."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.freezes import add_freeze
from migrations_app.actions.rollouts import (
    abort_rollout,
    pause_rollout,
    resume_rollout,
    start_rollout,
    step_back,
    step_to,
    under_way,
)
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import AuditKind, Health, RolloutState, WeekStatus
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted, Stale
from migrations_app.models import ApprovalRequest, AuditEvent, Flag, Rollout, Service, Week
from migrations_app.roles import Role
from tests.factories import approve, make_healthy, put_behind, tick_all

KEY = "USE_STORAGE_SERVICE"


@pytest.fixture
def ready(plan, shell):
    """Week 1 with its gate open."""
    tick_all(1, shell)
    return plan


def weight(key: str = KEY) -> int:
    return Flag.objects.get(key=key).weight


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("-id").first()


def test_it_starts_with_the_first_step_of_the_plan_and_says_all_of_them(ready, shell):
    change = start_rollout(key=KEY, actor=shell, reason="a quiet morning")
    assert weight() == 1
    assert change.event.kind == AuditKind.ROLLOUT_STARTED
    assert change.event.after == {KEY: 1, "rollout": {"step": 1, "steps": [1, 5, 25, 50, 100]}}
    assert change.event.verdict["open"] is True
    row = under_way(KEY)
    assert (row.state, row.position, row.weight, row.started_by) == (RolloutState.RUNNING, 0, 1, shell.name)
    assert Week.objects.get(number=1).status == WeekStatus.IN_PROGRESS


def test_it_starts_above_the_weight_that_the_flag_has(ready, shell):
    set_weight(key=KEY, weight=25, actor=shell)
    start_rollout(key=KEY, actor=shell)
    assert (weight(), under_way(KEY).position) == (50, 3)


def test_the_steps_are_those_of_the_plan(ready, shell):
    steps = [{"weight": 40, "hold": "1m", "requests": 7}, {"weight": 100}]
    Service.objects.filter(key="storage").update(rollout={"steps": steps, "error_rate": 2.0, "on_failure": "pause"})
    start_rollout(key=KEY, actor=shell)
    row = under_way(KEY)
    assert row.steps == [
        {"weight": 40, "hold": 60.0, "requests": 7},
        {"weight": 100, "hold": 0.0, "requests": 0},
    ]
    assert (row.error_rate, row.p95, row.on_failure) == (2.0, None, "pause")


def test_it_goes_through_the_gate(plan, shell):
    with pytest.raises(GateClosed):
        start_rollout(key=KEY, actor=shell)
    assert (weight(), Rollout.objects.count()) == (0, 0)
    assert last_event().kind == AuditKind.ENABLE_REFUSED


def test_the_same_click_again_changes_nothing(ready, shell):
    click = uuid4()
    first = start_rollout(key=KEY, actor=shell, request_key=click)
    again = start_rollout(key=KEY, actor=shell, request_key=click)
    assert (again.changed, again.event) == (False, first.event)
    assert Rollout.objects.count() == 1


def test_there_is_one_at_a_time(ready, shell):
    start_rollout(key=KEY, actor=shell)
    with pytest.raises(Invalid, match=r"Storage service is at step 1 of 5 \(1 %\) of a rollout already"):
        start_rollout(key=KEY, actor=shell)
    row = under_way(KEY)
    row.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        row.save(force_insert=True)


def test_what_is_all_on_has_no_rollout(ready, shell):
    set_weight(key=KEY, weight=100, actor=shell)
    with pytest.raises(Invalid, match="all on the new side already"):
        start_rollout(key=KEY, actor=shell)


def test_up_through_the_gate_and_down_without_one(ready, shell):
    start_rollout(key=KEY, actor=shell)
    step_to(key=KEY, position=3, actor=shell)
    assert (weight(), last_event().kind) == (50, AuditKind.ROLLOUT_STEPPED)
    make_healthy(Health.UNHEALTHY)
    with pytest.raises(GateClosed):
        step_to(key=KEY, position=4, actor=shell)
    assert (weight(), under_way(KEY).position) == (50, 3)
    step_to(key=KEY, position=1, actor=shell)
    assert (weight(), under_way(KEY).state) == (5, RolloutState.RUNNING)


def test_a_step_back_stays_there(ready, shell):
    start_rollout(key=KEY, actor=shell)
    step_to(key=KEY, position=2, actor=shell)
    step_back(key=KEY, actor=shell)
    row = under_way(KEY)
    assert (weight(), row.position, row.state) == (5, 1, RolloutState.PAUSED)
    assert row.paused_because == f"{shell.name} went back"
    assert last_event().after["rollout"]["state"] == "paused"


def test_there_is_nothing_before_the_first_step(ready, shell):
    start_rollout(key=KEY, actor=shell)
    with pytest.raises(Invalid, match="Roll it back instead"):
        step_back(key=KEY, actor=shell)


@pytest.mark.parametrize("position", [-1, 5, 99])
def test_a_step_that_it_does_not_have_is_refused(ready, shell, position):
    start_rollout(key=KEY, actor=shell)
    with pytest.raises(Invalid, match=f"the steps 1 to 5, not {position + 1}"):
        step_to(key=KEY, position=position, actor=shell)


def test_a_step_from_where_it_no_longer_is_is_stale(ready, shell):
    start_rollout(key=KEY, actor=shell)
    step_to(key=KEY, position=1, at=0, actor=shell)
    with pytest.raises(Stale, match=r"at step 2 of 5 \(5 %\) now"):
        step_to(key=KEY, position=1, at=0, actor=shell)
    with pytest.raises(Stale):
        pause_rollout(key=KEY, at=0, actor=shell)


def test_pause_and_resume(ready, shell):
    start_rollout(key=KEY, actor=shell)
    before = under_way(KEY)
    assert pause_rollout(key=KEY, actor=shell, reason="lunch").changed
    assert not pause_rollout(key=KEY, actor=shell).changed
    row = under_way(KEY)
    assert (row.state, row.paused_because, weight()) == (RolloutState.PAUSED, f"{shell.name} paused it", 1)
    assert (last_event().kind, last_event().reason) == (AuditKind.ROLLOUT_PAUSED, "lunch")
    assert resume_rollout(key=KEY, actor=shell).changed
    assert not resume_rollout(key=KEY, actor=shell).changed
    row = under_way(KEY)
    assert (row.state, row.paused_because) == (RolloutState.RUNNING, "")
    assert row.since > before.since


def test_who_may_roll_back_may_pause_and_step_down_but_not_go_on(ready, people, shell):
    start_rollout(key=KEY, actor=shell)
    step_to(key=KEY, position=2, actor=shell)
    approver = people[Role.APPROVER]
    for refused in (
        lambda: start_rollout(key=KEY, actor=approver),
        lambda: step_to(key=KEY, position=3, actor=approver),
        lambda: pause_rollout(key=KEY, actor=people[Role.SUPPORT]),
        lambda: abort_rollout(key=KEY, actor=people[Role.VIEWER]),
    ):
        with pytest.raises(NotPermitted):
            refused()
    assert step_to(key=KEY, position=1, actor=approver).changed
    assert pause_rollout(key=KEY, actor=approver).changed
    with pytest.raises(NotPermitted):
        resume_rollout(key=KEY, actor=approver)
    assert abort_rollout(key=KEY, actor=approver).changed
    assert weight() == 0


@pytest.mark.parametrize(
    ("move", "told"),
    [
        (lambda actor: abort_rollout(key=KEY, actor=actor), "0 %"),
        (lambda actor: roll_back_flag(key=KEY, actor=actor), "0 %"),
        (lambda actor: roll_back_week(number=1, actor=actor), "0 %"),
        (lambda actor: set_weight(key=KEY, weight=30, actor=actor), "30 %"),
        (lambda actor: enable_week(number=1, actor=actor), "100 %"),
    ],
)
def test_whoever_moves_the_flag_otherwise_ends_it(ready, shell, move, told):
    start_rollout(key=KEY, actor=shell)
    pause_rollout(key=KEY, actor=shell)
    move(shell)
    assert under_way(KEY) is None
    row = Rollout.objects.get()
    assert (row.state, row.ended_because) == (RolloutState.ENDED, f"the flag was moved to {told} by other means")
    for gone in (pause_rollout, resume_rollout, step_back, abort_rollout):
        with pytest.raises(NotFound, match="No rollout of Storage service is under way"):
            gone(key=KEY, actor=shell)


def test_a_rollback_of_another_service_leaves_it_alone(ready, shell):
    start_rollout(key=KEY, actor=shell)
    set_weight(key="USE_RAG_SERVICE", weight=100, actor=shell)
    roll_back_flag(key="USE_RAG_SERVICE", actor=shell)
    assert under_way(KEY).state == RolloutState.RUNNING


def test_an_older_page_of_the_week_is_refused(ready, shell):
    seen = Week.objects.get(number=1).version
    start_rollout(key=KEY, actor=shell, seen=seen)
    with pytest.raises(Stale):
        pause_rollout(key=KEY, actor=shell, seen=seen)
    with pytest.raises(Stale):
        step_to(key=KEY, position=1, actor=shell, seen=seen)


# -- approvals -----------------------------------------------------------------------------------------------------

AUTH = "USE_AUTH_SERVICE"


@pytest.fixture
def approved(plan, people):
    """Week 3, which is of high risk, with its gate open."""
    put_behind(1, 2)
    tick_all(3, people[Role.RELEASE_MANAGER])
    approve(3, people)
    return people[Role.RELEASE_MANAGER]


def request() -> ApprovalRequest:
    return ApprovalRequest.objects.get()


def start_auth(actor) -> None:
    start_rollout(key=AUTH, actor=actor, reason="as planned")


def test_one_approval_is_for_all_steps_and_spent_by_the_last(approved):
    start_auth(approved)
    assert (request().used_at is not None, request().spent_at) == (True, None)
    step_to(key=AUTH, position=3, actor=approved, reason="as planned")
    assert request().spent_at is None
    step_to(key=AUTH, position=4, actor=approved, reason="as planned")
    assert request().spent_at is not None
    assert weight(AUTH) == 100


def test_an_approval_that_is_used_does_not_expire_on_the_way(approved):
    start_auth(approved)
    ApprovalRequest.objects.update(expires_at=timezone.now() - timedelta(hours=1))
    step_to(key=AUTH, position=1, actor=approved, reason="as planned")
    assert weight(AUTH) == 5


def test_one_that_is_not_used_yet_does(approved):
    ApprovalRequest.objects.update(expires_at=timezone.now() - timedelta(hours=1))
    with pytest.raises(GateClosed) as closed:
        start_auth(approved)
    assert [line.key for line in closed.value.verdict.blocking] == ["approval"]


def test_what_was_rolled_back_on_its_way_is_to_be_approved_anew(approved):
    start_auth(approved)
    abort_rollout(key=AUTH, actor=approved)
    assert request().closed_because == "rolled back"
    with pytest.raises(GateClosed) as closed:
        start_auth(approved)
    assert [line.key for line in closed.value.verdict.blocking] == ["approval"]


def test_an_approval_that_was_not_used_stays_when_something_else_is_rolled_back(approved):
    roll_back_week(number=1, actor=approved)
    assert (request().closed_at, request().used_at) == (None, None)


def test_a_freeze_stops_the_next_step_and_no_way_back(ready, people, shell):
    start_rollout(key=KEY, actor=shell)
    now = timezone.now()
    manager = people[Role.RELEASE_MANAGER]
    add_freeze(title="Sale", actor=manager, starts_at=now, ends_at=now + timedelta(hours=1))
    with pytest.raises(GateClosed):
        step_to(key=KEY, position=1, actor=shell)
    assert abort_rollout(key=KEY, actor=shell).changed
