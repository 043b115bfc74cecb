"""Everything back at once."""

from uuid import uuid4

import pytest

from migrations_app.actions.approvals import request_approval
from migrations_app.actions.everything import roll_back_everything
from migrations_app.actions.flags import set_weight
from migrations_app.actions.rollouts import start_rollout
from migrations_app.actions.weeks import enable_week
from migrations_app.choices import AuditKind, Health, RolloutState, WeekStatus
from migrations_app.errors import NotFound, NotPermitted
from migrations_app.models import ApprovalRequest, AuditEvent, Flag, Gateway, Plan, Rollout, Week
from migrations_app.models.audit import check_chain
from migrations_app.roles import Role
from tests.factories import make_healthy, put_behind, tick_all

WEEK_1 = {"USE_NOTIFICATION_SERVICE", "USE_STORAGE_SERVICE", "USE_RAG_SERVICE"}


def on_flags() -> set[str]:
    return set(Flag.objects.filter(weight__gt=0).values_list("key", flat=True))


def test_every_week_goes_back_at_one_generation_with_one_event(plan, shell):
    put_behind(1, 2)
    was = dict(Flag.objects.filter(weight__gt=0).values_list("key", "weight"))
    assert was.keys() > WEEK_1
    make_healthy(Health.UNHEALTHY)
    events, generation = AuditEvent.objects.count(), Plan.objects.get().generation
    change = roll_back_everything(actor=shell, reason="errors everywhere")
    assert (change.changed, change.generation, change.title) == (True, generation + 1, "Everything")
    assert on_flags() == set()
    assert set(Flag.objects.filter(key__in=was).values_list("generation", flat=True)) == {generation + 1}
    assert AuditEvent.objects.count() == events + 1
    event = change.event
    assert (event.kind, event.subject, event.week_number) == (AuditKind.EVERYTHING_ROLLED_BACK, "everything", None)
    assert (event.before, event.after) == (was, dict.fromkeys(was, 0) | {"weeks": [2, 1]})
    assert (event.reason, event.verdict) == ("errors everywhere", None)
    statuses = dict(Week.objects.values_list("number", "status"))
    assert {number for number, status in statuses.items() if status == WeekStatus.ROLLED_BACK} == {1, 2}
    assert {status for number, status in statuses.items() if number > 2} == {WeekStatus.PLANNED}
    assert check_chain().intact


def test_pages_of_the_weeks_that_moved_are_old_and_the_others_are_not(plan, shell):
    put_behind(1)
    before = dict(Week.objects.values_list("number", "version"))
    roll_back_everything(actor=shell)
    after = dict(Week.objects.values_list("number", "version"))
    assert {number for number in before if after[number] != before[number]} == {1}


def test_nothing_on_is_a_no_op(plan, shell):
    events, generation = AuditEvent.objects.count(), Plan.objects.get().generation
    change = roll_back_everything(actor=shell)
    assert (change.changed, change.event, change.generation) == (False, None, generation)
    assert AuditEvent.objects.count() == events


def test_the_same_click_again_finds_its_own_event(plan, shell):
    put_behind(1)
    key = uuid4()
    first = roll_back_everything(actor=shell, request_key=key)
    again = roll_back_everything(actor=shell, request_key=key)
    assert (again.changed, again.event, again.generation) == (False, first.event, first.generation)
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    meant_again = roll_back_everything(actor=shell, request_key=key)
    assert meant_again.changed
    assert meant_again.event != first.event
    assert on_flags() == set()


def test_what_a_gateway_that_is_ahead_still_sends_to_the_new_side_goes_back_too(plan, shell):
    put_behind(1)
    ahead = Plan.objects.get().generation + 5
    Gateway.objects.update(observed_generation=ahead, observed_weights={"USE_AUTH_SERVICE": 40})
    change = roll_back_everything(actor=shell)
    assert change.generation == ahead + 1
    assert change.event.before == dict.fromkeys(WEEK_1, 100) | {"USE_AUTH_SERVICE": 40}
    assert Flag.objects.get(key="USE_AUTH_SERVICE").generation == ahead + 1


def test_rollouts_end_and_what_was_approved_is_to_be_approved_anew(plan, people, shell):
    tick_all(1, shell)
    start_rollout(key="USE_RAG_SERVICE", actor=shell)
    put_behind(2)
    week = Week.objects.get(number=2)
    week.approvals_needed, week.approver_role = 1, Role.APPROVER
    week.save()
    set_weight(key=Flag.objects.filter(week=week).first().key, weight=50, actor=shell)
    request_approval(number=2, actor=people[Role.RELEASE_MANAGER], reason="again")
    ApprovalRequest.objects.update(used_at=AuditEvent.objects.first().at)
    change = roll_back_everything(actor=shell)
    assert Rollout.objects.get().state == RolloutState.ENDED
    row = ApprovalRequest.objects.get()
    assert (row.closed_at, row.closed_because) == (change.event.at, "rolled back")


@pytest.mark.parametrize("role", list(Role))
def test_whoever_may_roll_back_a_week_may_roll_back_everything(plan, people, role):
    put_behind(1)
    if role in {Role.VIEWER, Role.SUPPORT}:
        with pytest.raises(NotPermitted):
            roll_back_everything(actor=people[role])
        assert on_flags() == WEEK_1
    else:
        assert roll_back_everything(actor=people[role]).changed


def test_without_a_plan_the_command_to_load_one_is_named(db, shell):
    with pytest.raises(NotFound, match=r"manage\.py plan load"):
        roll_back_everything(actor=shell)
