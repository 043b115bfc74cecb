"""Enable and roll back a week: success, refusal, no-op, replay, staleness."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, ProgrammingError, transaction
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.prerequisites import untick
from migrations_app.actions.weeks import enable_week, finish_week, roll_back_week
from migrations_app.actor import SYSTEM
from migrations_app.choices import AuditKind, CheckState, Health, Phase, WeekStatus
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.checks import PROBES
from migrations_app.gates.load import verdicts
from migrations_app.gates.seen import Finding
from migrations_app.gates.verdict import LineKind
from migrations_app.models import AuditEvent, Flag, HealthState, Plan, Prerequisite, Service, Week
from migrations_app.observe.checks import run_checks
from migrations_app.planfile.load import load_plan
from migrations_app.roles import MATRIX, Permission, Role
from tests.factories import approve, make_healthy, put_behind, tick_all, tracseq

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
    assert {line.value for line in refusal.value.verdict.blocking} == {"not signed off"}
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


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.RELEASE_MANAGER}))
def test_only_release_managers_enable(plan, people, role):
    tick_all(1, people[Role.RELEASE_MANAGER])
    with pytest.raises(NotPermitted):
        enable_week(number=1, actor=people[role])
    assert on_flags() == set()


def test_viewers_and_support_cannot_roll_back_and_the_others_can(plan, people, shell):
    tick_all(1, shell)
    for role in (Role.VIEWER, Role.SUPPORT):
        with pytest.raises(NotPermitted):
            roll_back_week(number=1, actor=people[role])
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


def ready_for_done(number, actor):
    """Soaked, and every done-criterion that a person ticks is ticked."""
    put_behind(number)
    tick_all(number, actor, phase=Phase.DONE)


def test_a_week_that_has_soaked_is_called_done_by_a_person(plan, people):
    manager = people[Role.RELEASE_MANAGER]
    ready_for_done(1, manager)
    version = Week.objects.get(number=1).version
    change = finish_week(number=1, actor=manager, reason="nobody noticed", seen=version)
    week = Week.objects.get(number=1)
    assert (week.status, week.done_at, week.done_by) == (WeekStatus.DONE, change.event.at, "release-manager")
    assert week.version == version + 1
    assert change.event.kind == AuditKind.WEEK_DONE
    assert (change.event.before, change.event.after) == ({"status": "soaking"}, {"status": "done"})
    assert change.event.verdict["open"] is True
    assert change.generation == Plan.objects.get().generation, "traffic stays as it is"
    assert on_flags() == WEEK_1


def test_done_is_refused_with_what_is_missing_and_the_log_keeps_it(plan, shell):
    put_behind(1)
    now = timezone.now()
    Week.objects.filter(number=1).update(soak_started_at=now)
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="refused")
    with pytest.raises(GateClosed) as refusal:
        finish_week(number=1, actor=shell, reason="too early")
    kinds = {line.kind for line in refusal.value.verdict.blocking}
    assert {LineKind.SOAK, LineKind.MANUAL, LineKind.HEALTH} <= kinds
    event = AuditEvent.objects.first()
    assert (event.kind, event.subject, event.reason) == (AuditKind.DONE_REFUSED, "week 1", "too early")
    assert event.verdict["open"] is False
    assert Week.objects.get(number=1).status == WeekStatus.SOAKING


@pytest.mark.parametrize("open_gate", ["soak", "criterion", "health"])
def test_each_of_the_three_alone_keeps_a_week_from_being_done(plan, shell, open_gate):
    ready_for_done(1, shell)
    if open_gate == "soak":
        Week.objects.filter(number=1).update(soak_started_at=timezone.now())
    elif open_gate == "criterion":
        criterion = Prerequisite.objects.filter(week__number=1, phase=Phase.DONE, kind="manual").first()
        untick(prerequisite_id=criterion.pk, actor=shell)
    else:
        HealthState.objects.filter(target="rag").update(state=Health.UNKNOWN)
    with pytest.raises(GateClosed) as refusal:
        finish_week(number=1, actor=shell)
    assert len(refusal.value.verdict.blocking) == 1


def test_a_week_that_is_done_already_stays_as_it_was(plan, shell, people):
    ready_for_done(1, shell)
    first = finish_week(number=1, actor=shell)
    events = AuditEvent.objects.count()
    again = finish_week(number=1, actor=people[Role.RELEASE_MANAGER])
    assert (again.changed, AuditEvent.objects.count()) == (False, events)
    assert (Week.objects.get(number=1).done_by, Week.objects.get(number=1).done_at) == ("tester", first.event.at)


def test_a_page_older_than_the_week_does_not_call_it_done(plan, shell):
    ready_for_done(1, shell)
    seen = Week.objects.get(number=1).version - 1
    with pytest.raises(Stale, match="has changed since"):
        finish_week(number=1, actor=shell, seen=seen)
    assert Week.objects.get(number=1).status == WeekStatus.SOAKING


def test_the_click_that_called_a_week_done_does_not_do_so_again_after_a_rollback(plan, shell):
    ready_for_done(1, shell)
    key = uuid4()
    first = finish_week(number=1, actor=shell, request_key=key)
    assert finish_week(number=1, actor=shell, request_key=key).event == first.event
    roll_back_week(number=1, actor=shell)
    week = Week.objects.get(number=1)
    assert (week.status, week.done_at, week.done_by) == (WeekStatus.ROLLED_BACK, None, "")
    with pytest.raises(Stale, match="carried out before"):
        finish_week(number=1, actor=shell, request_key=key)


@pytest.mark.parametrize("status", ["planned", "in progress", "rolled back"])
def test_a_week_that_does_not_soak_is_not_called_done(plan, shell, status):
    tick_all(1, shell)
    tick_all(1, shell, phase=Phase.DONE)
    if status != "planned":
        enable_week(number=1, actor=shell)
        roll_back_flag(key="USE_RAG_SERVICE", actor=shell)
    if status == "rolled back":
        roll_back_week(number=1, actor=shell)
    with pytest.raises(GateClosed) as refusal:
        finish_week(number=1, actor=shell)
    assert status in {line.value for line in refusal.value.verdict.blocking}


@pytest.mark.parametrize("role", list(Role))
def test_who_may_call_a_week_done_may_and_nobody_else(plan, people, shell, role):
    ready_for_done(1, shell)
    if Permission.FINISH in MATRIX[role]:
        assert finish_week(number=1, actor=people[role]).changed
    else:
        with pytest.raises(NotPermitted):
            finish_week(number=1, actor=people[role])
        assert Week.objects.get(number=1).status == WeekStatus.SOAKING


def test_a_role_that_was_taken_since_the_sign_in_calls_nothing_done(plan, people, shell):
    ready_for_done(1, shell)
    manager = people[Role.RELEASE_MANAGER]
    assert manager.can(Permission.FINISH)
    User.objects.get(username="release-manager").groups.clear()
    with pytest.raises(NotPermitted, match="may no longer call a week done"):
        finish_week(number=1, actor=manager)


def test_a_week_that_moves_no_traffic_is_started_and_soaks(plan, people):
    put_behind(1, 2, 3, 4, 5)
    manager = people[Role.RELEASE_MANAGER]
    tick_all(6, manager)
    generation = Plan.objects.get().generation
    change = enable_week(number=6, actor=manager, reason="the last one")
    week = Week.objects.get(number=6)
    assert (week.status, week.started_at, week.soak_started_at) == (
        WeekStatus.SOAKING,
        change.event.at,
        change.event.at,
    )
    assert change.event.kind == AuditKind.WEEK_STARTED
    assert change.event.verdict["open"] is True
    assert change.event.generation is None
    assert Plan.objects.get().generation == generation, "nothing moves at the gateway"


def test_a_week_that_moves_no_traffic_goes_through_the_same_gate(plan, shell):
    with pytest.raises(GateClosed) as refusal:
        enable_week(number=6, actor=shell, reason="too early")
    assert {line.key for line in refusal.value.verdict.blocking} >= {"all-flags-on", "after-5"}
    event = AuditEvent.objects.first()
    assert (event.kind, event.subject, event.reason) == (AuditKind.ENABLE_REFUSED, "week 6", "too early")
    assert Week.objects.get(number=6).status == WeekStatus.PLANNED
    assert roll_back_week(number=6, actor=shell).changed is False


def test_a_week_that_was_started_is_not_started_again(plan, shell):
    put_behind(1, 2, 3, 4, 5)
    tick_all(6, shell)
    key, seen = uuid4(), Week.objects.get(number=6).version
    first = enable_week(number=6, actor=shell, seen=seen, request_key=key)
    events, started_at = AuditEvent.objects.count(), Week.objects.get(number=6).started_at
    assert enable_week(number=6, actor=shell, seen=seen, request_key=key).event == first.event
    assert not enable_week(number=6, actor=shell).changed
    assert (AuditEvent.objects.count(), Week.objects.get(number=6).started_at) == (events, started_at)


def test_the_start_of_a_week_without_traffic_is_refused_on_an_old_page_and_to_other_roles(plan, people, shell):
    put_behind(1, 2, 3, 4, 5)
    tick_all(6, shell)
    with pytest.raises(Stale, match="has changed since"):
        enable_week(number=6, actor=shell, seen=Week.objects.get(number=6).version + 1)
    for role in set(Role) - {Role.RELEASE_MANAGER}:
        with pytest.raises(NotPermitted):
            enable_week(number=6, actor=people[role])
    assert Week.objects.get(number=6).status == WeekStatus.PLANNED
    assert enable_week(number=6, actor=people[Role.RELEASE_MANAGER]).changed


def test_each_week_waits_for_the_soak_of_the_one_before_it(plan, shell):
    tick_all(1, shell)
    tick_all(2, shell)
    enable_week(number=1, actor=shell)
    with pytest.raises(GateClosed) as refusal:
        enable_week(number=2, actor=shell)
    assert [(line.key, line.value) for line in refusal.value.verdict.blocking] == [("after-1", "soaking, 0 s of 48 h")]
    put_behind(1)
    assert enable_week(number=2, actor=shell).changed


def test_services_that_were_on_the_new_side_before_the_plan_was_loaded_can_be_rolled_back(db, shell):
    document = tracseq(adapter="memory", by_hand=True)
    services = tuple(one.model_copy(update={"weight": 100}) if one.key == "rag" else one for one in document.services)
    load_plan(document.model_copy(update={"services": services}), actor=SYSTEM)
    assert on_flags() == {"USE_RAG_SERVICE"}
    assert roll_back_week(number=1, actor=shell).changed
    assert on_flags() == set()
    assert Week.objects.get(number=1).status == WeekStatus.ROLLED_BACK


def test_a_gate_is_judged_on_a_check_that_was_run_for_the_click(plan, shell, monkeypatch):
    asked = []

    def probe(_parameters, _scene):
        asked.append(1)
        state = CheckState.HELD if len(asked) < 3 else CheckState.NOT_HELD
        return Finding(state, f"asked {len(asked)} times", "held twice")

    monkeypatch.setitem(PROBES, "probe", probe)
    tick_all(1, shell)
    week = Week.objects.get(number=1)
    Prerequisite.objects.create(week=week, key="probe", title="Probe", kind="automatic", check_name="probe")
    run_checks()
    assert verdicts(weeks=[1])[1].open
    assert enable_week(number=1, actor=shell).changed
    assert len(asked) == 2
    roll_back_week(number=1, actor=shell)
    assert verdicts(weeks=[1])[1].open, "what is stored still holds"
    with pytest.raises(GateClosed) as refusal:
        enable_week(number=1, actor=shell)
    assert [line.value for line in refusal.value.verdict.blocking] == ["asked 3 times"]
    assert len(asked) == 3


def test_a_check_that_seems_to_come_from_the_future_is_run_anew(plan, shell, monkeypatch, time_machine):
    """The clock of the host was put back by an hour since the check: nobody knows how old it is."""
    monkeypatch.setitem(PROBES, "probe", lambda *_: Finding(CheckState.HELD, "yes", "yes"))
    tick_all(1, shell)
    week = Week.objects.get(number=1)
    Prerequisite.objects.create(week=week, key="probe", title="Probe", kind="automatic", check_name="probe")
    now = timezone.now()
    time_machine.move_to(now + timedelta(hours=1))
    run_checks()
    time_machine.move_to(now + timedelta(seconds=1))
    monkeypatch.setitem(PROBES, "probe", lambda *_: Finding(CheckState.NOT_HELD, "no", "yes"))
    with pytest.raises(GateClosed):
        enable_week(number=1, actor=shell)
    assert on_flags() == set()
