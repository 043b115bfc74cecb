"""Maintenance windows: planned for what is to come, ended early or cancelled; no gate and no health minds them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone as clock

from migrations_app.actions.accounts import set_role
from migrations_app.actions.maintenance import end_window, plan_window
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import Actor
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.load import verdicts
from migrations_app.gates.rows import current_health
from migrations_app.models import AuditEvent, MaintenanceWindow, RollupMark, Week
from migrations_app.models.audit import check_chain
from migrations_app.roles import Role
from tests.factories import make_healthy, tick_all

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def _quick_passwords(settings):
    """Nobody signs in here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def manager(people) -> Actor:
    return people[Role.RELEASE_MANAGER]


def plan_one(actor: Actor, title: str = "new disks", **more):
    now = clock.now()
    values = {"title": title, "actor": actor, "targets": ["auth"], "starts_at": now + HOUR, "ends_at": now + 3 * HOUR}
    return plan_window(**values | more)


def only() -> MaintenanceWindow:
    return MaintenanceWindow.objects.get()


def refused() -> AuditEvent:
    event = AuditEvent.objects.first()
    assert event.kind == AuditKind.ACTION_REFUSED
    return event


def test_a_window_is_planned_with_its_event(plan, manager):
    now = clock.now()
    change = plan_window(
        title=" new disks ",
        targets=["rag", "monolith", "rag"],
        starts_at=now + HOUR,
        ends_at=now + 3 * HOUR,
        actor=manager,
        reason="they are full",
    )
    row = only()
    assert (row.title, row.starts_at, row.ends_at) == ("new disks", now + HOUR, now + 3 * HOUR)
    assert (row.targets, row.planned_by, row.ended_at) == (["monolith", "rag"], "release-manager", None)
    event = change.event
    assert (change.changed, change.title, change.generation) == (True, "new disks", plan.generation)
    assert (event.kind, event.subject) == (AuditKind.MAINTENANCE_PLANNED, "maintenance new disks")
    assert (event.reason, event.week_number) == ("they are full", None)
    assert event.after == {
        "window": row.pk,
        "starts_at": (now + HOUR).isoformat(),
        "ends_at": (now + 3 * HOUR).isoformat(),
        "targets": ["monolith", "rag"],
    }


def test_it_begins_now_unless_it_is_said_when(plan, manager, time_machine):
    now = clock.now()
    time_machine.move_to(now, tick=False)
    plan_one(manager, starts_at=None)
    assert (only().starts_at, only().covers(now)) == (now, True)


def test_a_window_changes_no_gate_and_no_state_of_health(plan, manager, time_machine):
    tick_all(1, manager)
    time_machine.move_to(clock.now(), tick=False)
    before = [verdict.as_json() for verdict in verdicts().values()], current_health()
    weeks = list(Week.objects.values())
    plan_one(manager, starts_at=None, targets=["auth", "rag", "storage", "notification", "monolith"])
    end_window(window_id=only().pk, actor=manager)
    plan_one(manager, starts_at=None, targets=["monolith"])
    assert ([verdict.as_json() for verdict in verdicts().values()], current_health()) == before
    assert list(Week.objects.values()) == weeks
    make_healthy()
    assert enable_week(number=1, actor=manager).changed
    assert roll_back_week(number=1, actor=manager).changed


def test_one_that_is_on_is_ended_now(plan, manager, people, time_machine):
    now = clock.now()
    time_machine.move_to(now, tick=False)
    planned = plan_one(manager, starts_at=None)
    time_machine.move_to(now + 20 * MINUTE, tick=False)
    change = end_window(window_id=only().pk, actor=people[Role.ADMINISTRATOR], reason="all went well")
    row = only()
    assert (row.until, row.ended_by, row.cancelled) == (now + 20 * MINUTE, "administrator", False)
    event = change.event
    assert (event.kind, event.subject) == (AuditKind.MAINTENANCE_ENDED, "maintenance new disks")
    assert event.reason == "all went well"
    assert event.before == planned.event.after
    assert event.after == {"window": row.pk, "ended_at": row.ended_at.isoformat(), "cancelled": False}


def test_one_that_is_to_come_is_cancelled(plan, manager):
    plan_one(manager)
    change = end_window(window_id=only().pk, actor=manager)
    assert only().cancelled
    assert change.event.after["cancelled"] is True


def test_what_is_ended_or_over_stays_as_it_is(plan, manager, time_machine):
    plan_one(manager)
    plan_one(manager, "audit")
    first, second = MaintenanceWindow.objects.order_by("pk")
    end_window(window_id=first.pk, actor=manager)
    events = AuditEvent.objects.count()
    assert not end_window(window_id=first.pk, actor=manager).changed
    time_machine.move_to(second.ends_at, tick=False)
    assert not end_window(window_id=second.pk, actor=manager).changed
    second.refresh_from_db()
    assert second.ended_at is None
    assert AuditEvent.objects.count() == events


def test_the_same_window_again_changes_nothing(plan, manager, shell):
    now = clock.now()
    values = {"title": "new disks", "targets": ["auth"], "starts_at": now + HOUR, "ends_at": now + 2 * HOUR}
    assert plan_window(**values, actor=manager).changed
    events = AuditEvent.objects.count()
    assert not plan_window(**values, actor=shell, request_key=uuid4()).changed
    assert (AuditEvent.objects.count(), MaintenanceWindow.objects.count()) == (events, 1)
    for other in ({"targets": ["rag"]}, {"title": "x"}, {"ends_at": now + 3 * HOUR}, {"starts_at": now + MINUTE}):
        assert plan_window(**values | other, actor=manager).changed
    end_window(window_id=MaintenanceWindow.objects.order_by("pk").first().pk, actor=manager)
    assert plan_window(**values, actor=manager).changed


@pytest.mark.parametrize("starts", [None, HOUR])
def test_the_same_click_plans_one_window_and_none_once_it_is_ended(plan, manager, starts, time_machine):
    key, now = uuid4(), clock.now()
    values = {"request_key": key, "starts_at": now + starts if starts else None, "ends_at": now + 3 * HOUR}
    first = plan_one(manager, **values)
    time_machine.move_to(now + 90 * MINUTE, tick=False)
    again = plan_one(manager, **values)
    assert (again.changed, again.event) == (False, first.event)
    end_window(window_id=only().pk, actor=manager)
    with pytest.raises(Stale, match="This click was carried out before"):
        plan_one(manager, **values)
    assert MaintenanceWindow.objects.count() == 1
    assert (refused().before["asked"], refused().before["request_key"]) == ("plan maintenance", str(key))


def test_the_click_that_ended_one_window_ends_no_other(plan, manager):
    key = uuid4()
    plan_one(manager)
    plan_one(manager, "audit")
    first, second = MaintenanceWindow.objects.order_by("pk")
    change = end_window(window_id=first.pk, actor=manager, request_key=key)
    assert end_window(window_id=first.pk, actor=manager, request_key=key).event == change.event
    with pytest.raises(Stale):
        end_window(window_id=second.pk, actor=manager, request_key=key)
    with pytest.raises(Stale):
        plan_one(manager, "again", starts_at=None, request_key=key)
    second.refresh_from_db()
    assert second.ended_at is None


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOW = at("2030-11-24T12:00")
TIMES = {"starts_at": at("2030-11-24T18:00"), "ends_at": at("2030-11-24T20:00")}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"title": "  "}, "title: say what"),
        ({"title": "x" * 201}, "title: at most 200 characters, not 201"),
        ({"targets": []}, "targets: say what is maintained"),
        ({"targets": ["auth", "nothing"]}, "targets: the plan has no service nothing"),
        ({"targets": ["x" * 5000]}, "targets: the plan has no service xxx"),
        ({"ends_at": None}, "ends_at: say until when"),
        ({"starts_at": TIMES["ends_at"]}, "ends_at: it must be after starts_at"),
        ({"ends_at": at("2030-11-24T17:59")}, "ends_at: it must be after starts_at"),
        ({"starts_at": NOW - MINUTE - SECOND}, "starts_at: maintenance cannot be planned for the past"),
        ({"starts_at": NOW - MINUTE, "ends_at": NOW}, "ends_at: it is over already"),
        ({"starts_at": datetime(2030, 12, 20)}, "starts_at: 2030-12-20T00:00:00 has no time zone"),  # noqa: DTZ001
        ({"ends_at": datetime(2030, 12, 20)}, "ends_at: 2030-12-20T00:00:00 has no time zone"),  # noqa: DTZ001
        ({"ends_at": at("2300-12-20T18:00")}, "ends_at: 2300-12-20 is more than five years away"),
        ({"ends_at": datetime.max.replace(tzinfo=timezone(-HOUR))}, "ends_at: 9999-12-31 is more than"),
        ({"starts_at": datetime.min.replace(tzinfo=timezone(HOUR))}, "starts_at: 0?0?0?1-01-01 is more than"),
        ({"ends_at": TIMES["starts_at"] + 31 * DAY + SECOND}, "ends_at: at most 31 days after starts_at"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused_by_the_name_of_its_field(plan, shell, time_machine, given, said):
    time_machine.move_to(NOW, tick=False)
    with pytest.raises(Invalid, match=f"^{said}") as refusal:
        plan_window(**({"title": "new disks", "targets": ["auth"], "actor": shell} | TIMES | given))
    assert len(str(refusal.value)) < 400
    assert not MaintenanceWindow.objects.exists()
    event = refused()
    assert event.after == {"refused": str(refusal.value), "because": "Invalid"}
    assert event.before["asked"] == "plan maintenance"
    assert len(event.subject) <= 200


@pytest.mark.parametrize("ahead", [5 * SECOND, 10 * MINUTE])
def test_where_the_clock_of_the_workers_is_ahead_the_present_is_how_far_they_have_summed_up(
    plan, manager, time_machine, ahead
):
    """The database would refuse both (migration 0012): a click must not end in an error."""
    now = clock.now()
    time_machine.move_to(now, tick=False)
    RollupMark.objects.create(source="health", done_until=now + ahead)
    with pytest.raises(Invalid, match="starts_at: maintenance cannot be planned for the past"):
        plan_one(manager, starts_at=now + ahead - MINUTE - SECOND)
    plan_one(manager, starts_at=None)
    assert only().starts_at == now + ahead
    RollupMark.objects.update(done_until=now + HOUR + ahead)
    time_machine.move_to(now + HOUR, tick=False)
    end_window(window_id=only().pk, actor=manager)
    assert only().until == now + HOUR + ahead


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.APPROVER])
def test_only_release_managers_and_administrators_plan(plan, people, shell, role):
    with pytest.raises(NotPermitted, match="may not plan maintenance"):
        plan_one(people[role])
    assert (refused().actor, refused().subject) == (people[role].name, "maintenance new disks")
    plan_one(shell)
    with pytest.raises(NotPermitted, match="may not end maintenance"):
        end_window(window_id=only().pk, actor=people[role])
    assert only().ended_at is None


def test_a_role_that_was_taken_plans_and_ends_nothing(plan, manager, shell):
    plan_one(manager)
    set_role(name="release-manager", role=Role.SUPPORT, actor=shell)
    with pytest.raises(NotPermitted, match="may no longer plan"):
        plan_one(manager, "audit")
    with pytest.raises(NotPermitted, match="may no longer end"):
        end_window(window_id=only().pk, actor=manager)
    assert only().ended_at is None


def test_an_unknown_window_is_named(plan, manager):
    with pytest.raises(NotFound, match=r"There is no window 4711\. List them with: manage\.py maintenance list"):
        end_window(window_id=4711, actor=manager)
    assert refused().before == {"asked": "end maintenance", "window": 4711}


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_that_jumps_changes_no_order(plan, manager, time_machine, jump):
    now, last = clock.now(), AuditEvent.objects.first().pk
    time_machine.move_to(now, tick=False)
    plan_one(manager, ends_at=now + 5 * HOUR)
    time_machine.move_to(now + jump, tick=False)
    end_window(window_id=only().pk, actor=manager)
    events = list(AuditEvent.objects.filter(pk__gt=last).order_by("pk"))
    assert [event.kind for event in events] == ["maintenance.planned", "maintenance.ended"]
    assert [event.at for event in events] == [now, now + jump]
    assert check_chain().broken_at is None


def test_open_pages_are_told(transactional_db, plan, manager):
    """By the audit event, in the transaction of the change."""
    import psycopg

    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}, autocommit=True) as other:
        other.execute("LISTEN switchyard_live")
        plan_one(manager)
        end_window(window_id=only().pk, actor=manager)
        told = [message.payload for message in other.notifies(timeout=5, stop_after=2)]
    assert told == ['["plan", [""]]'] * 2
