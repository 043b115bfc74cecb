"""Enable and roll back a week: success, refusal, no-op, replay, staleness."""

from uuid import uuid4

import pytest
from django.db import IntegrityError, ProgrammingError, transaction

from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import AuditKind, Health, WeekStatus
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted, Stale
from migrations_app.models import AuditEvent, Flag, Plan, Service, Week
from migrations_app.roles import Role
from tests.factories import approve, make_healthy, put_behind, tick_all

WEEK_1 = {"USE_NOTIFICATION_SERVICE", "USE_STORAGE_SERVICE", "USE_RAG_SERVICE"}


def on_flags():
    return set(Flag.objects.filter(weight=100).values_list("key", flat=True))


def test_enable_moves_exactly_the_flags_of_the_week_with_one_event(plan, people):
    manager = people[Role.RELEASE_MANAGER]
    tick_all(1, manager)
    before = AuditEvent.objects.count()
    change = enable_week(number=1, actor=manager, reason="as planned")
    assert on_flags() == WEEK_1
    assert AuditEvent.objects.count() == before + 1
    event = change.event
    assert (event.kind, event.actor, event.reason) == (AuditKind.WEEK_ENABLED, "release-manager", "as planned")
    assert event.before == dict.fromkeys(WEEK_1, 0)
    assert event.after == dict.fromkeys(WEEK_1, 100)
    assert event.verdict["open"] is True
    assert event.generation == Plan.objects.get().generation == change.generation
    week = Week.objects.get(number=1)
    assert week.status == WeekStatus.SOAKING
    assert week.started_at == week.soak_started_at == event.at


def test_enable_is_refused_while_a_prerequisite_is_open(plan, shell):
    generation = Plan.objects.get().generation
    with pytest.raises(GateClosed) as refusal:
        enable_week(number=1, actor=shell, reason="too early")
    assert [line.value for line in refusal.value.verdict.blocking] == ["not signed off"]
    assert on_flags() == set()
    assert Plan.objects.get().generation == generation
    event = AuditEvent.objects.first()
    assert (event.kind, event.subject, event.reason) == (AuditKind.ENABLE_REFUSED, "week 1", "too early")
    assert event.verdict["open"] is False


@pytest.mark.parametrize(
    ("state", "said"), [(Health.UNHEALTHY, "unhealthy: refused"), (Health.UNKNOWN, "unknown: refused")]
)
def test_enable_is_refused_while_a_service_is_not_healthy(plan, shell, state, said):
    tick_all(1, shell)
    make_healthy(state, error="refused")
    with pytest.raises(GateClosed) as refusal:
        enable_week(number=1, actor=shell)
    assert {line.value for line in refusal.value.verdict.blocking} == {said}


def test_health_that_nobody_has_polled_for_a_while_blocks(plan, shell, settings, time_machine):
    tick_all(1, shell)
    from datetime import timedelta

    from django.utils import timezone

    time_machine.move_to(timezone.now() + timedelta(seconds=settings.HEALTH_STALE_AFTER + 1))
    with pytest.raises(GateClosed) as refusal:
        enable_week(number=1, actor=shell)
    assert all("the last poll was 31 s ago" in line.value for line in refusal.value.verdict.blocking)


def test_enabling_twice_changes_nothing_the_second_time(plan, shell):
    tick_all(1, shell)
    first = enable_week(number=1, actor=shell)
    events = AuditEvent.objects.count()
    second = enable_week(number=1, actor=shell)
    assert (second.changed, second.generation) == (False, first.generation)
    assert AuditEvent.objects.count() == events


def test_the_same_click_again_returns_the_same_event(plan, shell):
    tick_all(1, shell)
    key = uuid4()
    first = enable_week(number=1, actor=shell, request_key=key)
    again = enable_week(number=1, actor=shell, request_key=key)
    assert (again.changed, again.event, again.generation) == (False, first.event, first.generation)


def test_the_same_click_again_never_says_on_after_a_rollback(plan, shell):
    tick_all(1, shell)
    key = uuid4()
    enable_week(number=1, actor=shell, request_key=key)
    roll_back_flag(key="USE_RAG_SERVICE", actor=shell)
    with pytest.raises(Stale, match="things have changed since"):
        enable_week(number=1, actor=shell, request_key=key)
    assert on_flags() == WEEK_1 - {"USE_RAG_SERVICE"}


def test_a_rollback_pressed_again_on_an_old_page_rolls_back_again(plan, shell):
    tick_all(1, shell)
    key = uuid4()
    enable_week(number=1, actor=shell)
    first = roll_back_week(number=1, actor=shell, request_key=key)
    assert roll_back_week(number=1, actor=shell, request_key=key).event == first.event
    enable_week(number=1, actor=shell)
    again = roll_back_week(number=1, actor=shell, request_key=key)
    assert again.changed
    assert again.event != first.event
    assert on_flags() == set()


def test_the_key_of_another_click_neither_holds_up_a_rollback_nor_speaks_for_it(plan, shell):
    tick_all(1, shell)
    key = uuid4()
    enable_week(number=1, actor=shell, request_key=key)
    assert roll_back_flag(key="USE_RAG_SERVICE", actor=shell, request_key=key).changed
    nothing = roll_back_flag(key="USE_RAG_SERVICE", actor=shell, request_key=key)
    assert (nothing.changed, nothing.event) == (False, None)


def test_a_page_older_than_the_week_is_refused(plan, shell):
    seen = Week.objects.get(number=1).version
    tick_all(1, shell)
    with pytest.raises(Stale, match="has changed since"):
        enable_week(number=1, actor=shell, seen=seen)
    assert on_flags() == set()
    assert enable_week(number=1, actor=shell, seen=Week.objects.get(number=1).version).changed


def test_roll_back_needs_no_gate_no_health_and_no_reason(plan, shell):
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    make_healthy(Health.UNHEALTHY)
    change = roll_back_week(number=1, actor=shell)
    assert change.changed
    assert on_flags() == set()
    assert change.event.kind == AuditKind.WEEK_ROLLED_BACK
    assert Week.objects.get(number=1).status == WeekStatus.ROLLED_BACK
    assert roll_back_week(number=1, actor=shell).changed is False


def test_roll_back_of_the_last_flag_makes_the_week_rolled_back(plan, shell):
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    for count, key in enumerate(sorted(WEEK_1), start=1):
        roll_back_flag(key=key, actor=shell)
        expected = WeekStatus.ROLLED_BACK if count == len(WEEK_1) else WeekStatus.IN_PROGRESS
        assert Week.objects.get(number=1).status == expected


def test_unknown_week_is_named(plan, shell):
    with pytest.raises(NotFound, match="no week 9"):
        enable_week(number=9, actor=shell)


def test_without_a_plan_the_command_to_load_one_is_named(db, shell):
    with pytest.raises(NotFound, match=r"manage\.py plan load"):
        enable_week(number=1, actor=shell)


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.APPROVER, Role.ADMINISTRATOR])
def test_only_release_managers_enable(plan, people, role):
    tick_all(1, people[Role.RELEASE_MANAGER])
    with pytest.raises(NotPermitted):
        enable_week(number=1, actor=people[role])
    assert on_flags() == set()


def test_support_cannot_roll_back_and_the_others_can(plan, people, shell):
    tick_all(1, shell)
    with pytest.raises(NotPermitted):
        roll_back_week(number=1, actor=people[Role.SUPPORT])
    for role in (Role.RELEASE_MANAGER, Role.APPROVER, Role.ADMINISTRATOR):
        enable_week(number=1, actor=shell)
        assert roll_back_week(number=1, actor=people[role]).changed


def test_the_database_itself_refuses_a_weight_that_no_open_gate_vouches_for(plan):
    with pytest.raises(IntegrityError, match="newest generation"), transaction.atomic():
        Flag.objects.filter(key="USE_AUTH_SERVICE").update(weight=100)
    generation = plan.generation + 1
    Plan.objects.update(generation=generation)
    with pytest.raises(IntegrityError, match="no open gate vouches"), transaction.atomic():
        Flag.objects.filter(key="USE_AUTH_SERVICE").update(weight=100, generation=generation)
    with pytest.raises(IntegrityError, match="is lower than"), transaction.atomic():
        Plan.objects.update(generation=1)


def test_a_flag_that_is_deleted_and_made_anew_on_the_new_side_is_refused(plan):
    flag = Flag.objects.get(key="USE_AUTH_SERVICE")
    flag.delete()
    flag.weight = 100
    with pytest.raises(IntegrityError, match="no open gate vouches"), transaction.atomic():
        flag.save(force_insert=True)


def test_a_flag_that_is_on_cannot_be_given_to_another_service(plan, shell):
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    Flag.objects.filter(key="USE_AUTH_SERVICE").delete()
    auth = Service.objects.get(key="auth")
    with pytest.raises(IntegrityError, match="no open gate vouches"), transaction.atomic():
        Flag.objects.filter(key="USE_RAG_SERVICE").update(service=auth)


def test_an_open_gate_of_one_flag_vouches_for_no_other(plan, shell):
    tick_all(1, shell)
    change = enable_week(number=1, actor=shell)
    with pytest.raises(IntegrityError, match="no open gate vouches"), transaction.atomic():
        Flag.objects.filter(key="USE_AUTH_SERVICE").update(weight=100, generation=change.generation)


def test_audit_events_can_be_neither_changed_nor_deleted(plan):
    event = AuditEvent.objects.first()
    for attempt in (
        lambda: AuditEvent.objects.filter(pk=event.pk).update(actor="nobody"),
        lambda: AuditEvent.objects.filter(pk=event.pk).delete(),
    ):
        with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
            attempt()


def test_a_high_risk_is_not_taken_without_a_reason(plan, people, shell):
    put_behind(1, 2)
    tick_all(3, shell)
    approve(3, people)
    with pytest.raises(Invalid, match="Say why now: week 3 is of high risk"):
        enable_week(number=3, actor=shell, reason="  ")
    assert "USE_AUTH_SERVICE" not in on_flags()
    assert enable_week(number=3, actor=shell, reason="as planned, all on standby").changed
    assert roll_back_week(number=3, actor=shell).changed
