"""Freezes: added and lifted, once or every week; while one is on nothing is enabled and everything rolls back."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone as clock

from migrations_app.actions.accounts import set_role
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.freezes import add_freeze, lift_freeze
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import SYSTEM, Actor
from migrations_app.choices import AuditKind
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.load import verdicts
from migrations_app.models import AuditEvent, Flag, Freeze, Plan, Week
from migrations_app.models.audit import check_chain
from migrations_app.planfile.load import load_plan
from migrations_app.roles import Role
from tests.factories import make_healthy, make_people, tick_all, tracseq
from tests.faults.system import in_threads

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _quick_passwords(settings):
    """Nobody signs in here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def manager(people) -> Actor:
    return people[Role.RELEASE_MANAGER]


def freeze_now(actor: Actor, title: str = "holidays", **more):
    now = clock.now()
    return add_freeze(**({"title": title, "actor": actor, "starts_at": now - HOUR, "ends_at": now + HOUR} | more))


def frozen(week: int = 1) -> list[str]:
    return [line.title for line in verdicts(weeks=[week])[week].blocking if line.kind == "freeze"]


def versions() -> list[int]:
    return list(Week.objects.values_list("version", flat=True))


def refused() -> AuditEvent:
    event = AuditEvent.objects.first()
    assert event.kind == AuditKind.ACTION_REFUSED
    return event


def test_a_freeze_from_a_date_to_a_date_closes_every_gate(plan, manager):
    tick_all(1, manager)
    before = versions()
    now = clock.now()
    change = add_freeze(
        title=" holidays ",
        actor=manager,
        starts_at=now - HOUR,
        ends_at=now + HOUR,
        timezone="Europe/Berlin",
        reason="x",
    )
    row = Freeze.objects.get()
    assert (row.title, row.starts_at, row.ends_at) == ("holidays", now - HOUR, now + HOUR)
    assert (row.weekdays, row.from_time, row.until_time, row.timezone) == ("", None, None, "Europe/Berlin")
    assert (row.added_by, row.lifted_at) == ("release-manager", None)
    assert versions() == [version + 1 for version in before]
    assert len(before) == 6
    assert all(frozen(week) == ["No freeze: holidays"] for week in range(1, 7))
    event = change.event
    assert (event.kind, event.subject, event.reason, event.week_number) == (
        AuditKind.FREEZE_ADDED,
        "freeze holidays",
        "x",
        None,
    )
    assert event.after == {
        "freeze": row.pk,
        "timezone": "Europe/Berlin",
        "starts_at": (now - HOUR).isoformat(),
        "ends_at": (now + HOUR).isoformat(),
    }
    with pytest.raises(GateClosed, match="No freeze: holidays: frozen"):
        enable_week(number=1, actor=manager)
    with pytest.raises(GateClosed):
        set_weight(key="USE_RAG_SERVICE", weight=1, actor=manager)
    assert not Flag.objects.filter(weight__gt=0).exists()


def test_a_freeze_of_certain_hours_comes_back(plan, manager, time_machine):
    tick_all(1, manager)
    change = add_freeze(
        title="nights", actor=manager, weekdays="51523", from_time=time(18), until_time=time(8), timezone="Asia/Tokyo"
    )
    row = Freeze.objects.get()
    assert (row.weekdays, row.from_time, row.until_time) == ("1235", time(18), time(8))
    assert (row.starts_at, row.ends_at) == (None, None)
    assert change.event.after == {
        "freeze": row.pk,
        "timezone": "Asia/Tokyo",
        "weekdays": "1235",
        "from_time": "18:00:00",
        "until_time": "08:00:00",
    }
    monday = datetime(2026, 11, 23, 17, 59, tzinfo=ZoneInfo("Asia/Tokyo"))
    for days, on in enumerate([True, True, True, False, True, False, False, True]):
        for moment, expected in ((monday, False), (monday + timedelta(minutes=1), on)):
            time_machine.move_to(moment + timedelta(days=days), tick=False)
            assert bool(frozen()) is expected, moment + timedelta(days=days)


def test_the_zone_is_the_plans_unless_another_is_named(plan, manager):
    Plan.objects.update(timezone="America/New_York")
    add_freeze(title="lunch", actor=manager, weekdays="1", from_time=time(12), until_time=time(13))
    freeze_now(manager)
    assert set(Freeze.objects.values_list("timezone", flat=True)) == {"America/New_York"}


def test_a_freeze_to_come_closes_nothing_yet(plan, manager, time_machine):
    now = clock.now()
    add_freeze(title="holidays", actor=manager, starts_at=now + HOUR, ends_at=now + 2 * HOUR)
    assert frozen() == []
    time_machine.move_to(now + HOUR, tick=False)
    assert frozen() == ["No freeze: holidays"]
    time_machine.move_to(now + 2 * HOUR, tick=False)
    assert frozen() == []


def test_rolling_back_is_never_frozen(plan, manager, people):
    tick_all(1, manager)
    enable_week(number=1, actor=manager)
    freeze_now(manager)
    add_freeze(title="always", actor=manager, weekdays="1234567", from_time=time(0), until_time=time(0))
    assert len(frozen()) == 2
    assert set_weight(key="USE_STORAGE_SERVICE", weight=40, actor=manager).changed
    assert roll_back_flag(key="USE_RAG_SERVICE", actor=people[Role.APPROVER]).changed
    assert roll_back_week(number=1, actor=people[Role.ADMINISTRATOR]).changed
    assert not Flag.objects.filter(weight__gt=0).exists()
    with pytest.raises(GateClosed):
        enable_week(number=1, actor=manager)


def test_a_lifted_freeze_closes_nothing_any_more(plan, manager, people):
    tick_all(1, manager)
    added = freeze_now(manager)
    row, before = Freeze.objects.get(), versions()
    change = lift_freeze(freeze_id=row.pk, actor=people[Role.ADMINISTRATOR], reason="all are back")
    row.refresh_from_db()
    assert row.lifted_by == "administrator"
    assert versions() == [version + 1 for version in before]
    event = change.event
    assert (event.kind, event.subject, event.reason) == (AuditKind.FREEZE_LIFTED, "freeze holidays", "all are back")
    assert (event.before, event.after) == (added.event.after, {"freeze": row.pk, "lifted": True})
    assert frozen() == []
    assert enable_week(number=1, actor=manager).changed


def test_lifting_one_freeze_leaves_the_others(plan, manager):
    freeze_now(manager)
    freeze_now(manager, "audit")
    lift_freeze(freeze_id=Freeze.objects.get(title="holidays").pk, actor=manager)
    assert frozen() == ["No freeze: audit"]


def test_lifting_what_is_lifted_or_over_changes_nothing(plan, manager, time_machine):
    freeze_now(manager)
    freeze_now(manager, "audit")
    first, second = Freeze.objects.order_by("pk")
    lift_freeze(freeze_id=first.pk, actor=manager)
    events, before = AuditEvent.objects.count(), versions()
    assert not lift_freeze(freeze_id=first.pk, actor=manager).changed
    time_machine.move_to(second.ends_at, tick=False)
    assert not lift_freeze(freeze_id=second.pk, actor=manager).changed
    second.refresh_from_db()
    assert second.lifted_at is None
    assert (AuditEvent.objects.count(), versions()) == (events, before)


def test_the_same_freeze_again_changes_nothing(plan, manager, shell):
    now, key = clock.now(), uuid4()
    one_off = {"title": "holidays", "starts_at": now, "ends_at": now + HOUR}
    nights = {"title": "nights", "weekdays": "12", "from_time": time(18), "until_time": time(8)}
    for values in (one_off, nights):
        assert add_freeze(**values, actor=manager).changed
        events, before = AuditEvent.objects.count(), versions()
        assert not add_freeze(**values, actor=shell, request_key=key).changed
        assert (AuditEvent.objects.count(), versions()) == (events, before)
    assert Freeze.objects.count() == 2
    assert add_freeze(**nights | {"weekdays": "13"}, actor=manager).changed


def test_the_same_click_adds_one_freeze_and_none_once_it_is_lifted(plan, manager):
    key, now = uuid4(), clock.now()
    values = {"title": "holidays", "actor": manager, "starts_at": now, "ends_at": now + HOUR, "request_key": key}
    first = add_freeze(**values)
    again = add_freeze(**values)
    assert (again.changed, again.event) == (False, first.event)
    lift_freeze(freeze_id=first.event.after["freeze"], actor=manager)
    with pytest.raises(Stale, match="This click was carried out before"):
        add_freeze(**values)
    assert frozen() == []
    assert (refused().before["asked"], refused().before["request_key"]) == ("freeze", str(key))


def test_the_click_that_lifted_one_freeze_lifts_no_other(plan, manager):
    key = uuid4()
    freeze_now(manager)
    freeze_now(manager, "audit")
    first, second = Freeze.objects.order_by("pk")
    change = lift_freeze(freeze_id=first.pk, actor=manager, request_key=key)
    assert lift_freeze(freeze_id=first.pk, actor=manager, request_key=key).event == change.event
    with pytest.raises(Stale):
        lift_freeze(freeze_id=second.pk, actor=manager, request_key=key)
    assert frozen() == ["No freeze: audit"]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


ONE_OFF = {"starts_at": at("2030-12-20T18:00"), "ends_at": at("2030-12-27T08:00")}
WEEKLY = {"weekdays": "12345", "from_time": time(18), "until_time": time(8)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (ONE_OFF | {"title": "  "}, "title: say what"),
        (ONE_OFF | {"title": "x" * 201}, "title: at most 200 characters, not 201"),
        ({}, "starts_at: say from when"),
        ({"ends_at": ONE_OFF["ends_at"]}, "starts_at: say from when"),
        ({"starts_at": ONE_OFF["starts_at"]}, "ends_at: say from when"),
        (ONE_OFF | {"starts_at": ONE_OFF["ends_at"]}, "ends_at: it must be after starts_at"),
        (ONE_OFF | {"ends_at": at("2030-12-20T17:59")}, "ends_at: it must be after starts_at"),
        ({"starts_at": at("2029-12-20T18:00"), "ends_at": at("2029-12-24T18:00")}, "ends_at: it is over already"),
        (ONE_OFF | {"starts_at": datetime(2030, 12, 20)}, "starts_at: 2030-12-20T00:00:00 has no time zone"),  # noqa: DTZ001
        (ONE_OFF | {"ends_at": datetime(2030, 12, 30)}, "ends_at: 2030-12-30T00:00:00 has no time zone"),  # noqa: DTZ001
        (ONE_OFF | {"ends_at": at("2300-12-20T18:00")}, "ends_at: 2300-12-20 is more than five years away"),
        (ONE_OFF | {"ends_at": datetime.max.replace(tzinfo=timezone(-HOUR))}, "ends_at: 9999-12-31 is more than"),
        (ONE_OFF | {"starts_at": datetime.min.replace(tzinfo=timezone(HOUR))}, "starts_at: 0?0?0?1-01-01 is more than"),
        (ONE_OFF | WEEKLY, "weekdays: a freeze is one-off or recurring"),
        (ONE_OFF | {"until_time": time(8)}, "until_time: a freeze is one-off or recurring"),
        (WEEKLY | {"ends_at": ONE_OFF["ends_at"]}, "weekdays: .* cannot have ends_at as well"),
        (WEEKLY | {"weekdays": ""}, "weekdays: digits"),
        (WEEKLY | {"weekdays": "0"}, "weekdays: digits"),
        (WEEKLY | {"weekdays": "128"}, "weekdays: digits"),
        (WEEKLY | {"weekdays": "mon"}, "weekdays: digits"),
        (WEEKLY | {"weekdays": "1\n"}, "weekdays: digits"),
        (WEEKLY | {"weekdays": "٣"}, "weekdays: digits"),
        (WEEKLY | {"from_time": None}, "from_time: say from which time"),
        (WEEKLY | {"until_time": None}, "until_time: say from which time"),
        (WEEKLY | {"until_time": time(8, tzinfo=UTC)}, "until_time: a time of day alone"),
        (WEEKLY | {"timezone": "Mars/Olympus"}, "timezone: Mars/Olympus is no time zone"),
        (WEEKLY | {"timezone": "../../etc/passwd"}, "timezone: "),
        (WEEKLY | {"timezone": "Europe"}, "timezone: Europe is no time zone"),
        (WEEKLY | {"timezone": "x" * 5000}, "timezone: xxxx"),
        (ONE_OFF | {"timezone": "Mars/Olympus"}, "timezone: Mars/Olympus"),
    ],
)
def test_a_freeze_that_makes_no_sense_is_refused_by_the_name_of_its_field(plan, shell, time_machine, given, said):
    time_machine.move_to(at("2030-11-24T12:00"), tick=False)
    before = versions()
    with pytest.raises(Invalid, match=f"^{said}") as refusal:
        add_freeze(**({"title": "holidays", "actor": shell} | given))
    assert len(str(refusal.value)) < 400
    assert not Freeze.objects.exists()
    assert versions() == before
    event = refused()
    assert event.after == {"refused": str(refusal.value), "because": "Invalid"}
    assert event.before["asked"] == "freeze"
    assert len(event.subject) <= 200


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.APPROVER])
def test_only_release_managers_and_administrators_freeze(plan, people, shell, role):
    with pytest.raises(NotPermitted, match="may not freeze the plan"):
        freeze_now(people[role])
    assert (refused().actor, refused().subject) == (people[role].name, "freeze holidays")
    freeze_now(shell)
    with pytest.raises(NotPermitted, match="may not lift freezes"):
        lift_freeze(freeze_id=Freeze.objects.get().pk, actor=people[role])
    assert frozen() == ["No freeze: holidays"]


def test_a_role_that_was_taken_freezes_and_lifts_nothing(plan, manager, shell):
    freeze_now(manager)
    set_role(name="release-manager", role=Role.SUPPORT, actor=shell)
    with pytest.raises(NotPermitted, match="may no longer freeze"):
        freeze_now(manager, "audit")
    with pytest.raises(NotPermitted, match="may no longer lift"):
        lift_freeze(freeze_id=Freeze.objects.get().pk, actor=manager)
    assert frozen() == ["No freeze: holidays"]


def test_an_unknown_freeze_is_named(plan, manager):
    with pytest.raises(NotFound, match=r"There is no freeze 4711\. List them with: manage\.py freeze list"):
        lift_freeze(freeze_id=4711, actor=manager)
    assert refused().before == {"asked": "lift a freeze", "freeze": 4711}


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_that_jumps_changes_no_order(plan, manager, time_machine, jump):
    now, last = clock.now(), AuditEvent.objects.first().pk
    time_machine.move_to(now, tick=False)
    change = freeze_now(manager, ends_at=now + 5 * HOUR)
    time_machine.move_to(now + jump, tick=False)
    lift_freeze(freeze_id=change.event.after["freeze"], actor=manager)
    time_machine.move_to(now, tick=False)
    freeze_now(manager, ends_at=now + 5 * HOUR)
    events = list(AuditEvent.objects.filter(pk__gt=last).order_by("pk"))
    assert [event.kind for event in events] == ["freeze.added", "freeze.lifted", "freeze.added"]
    assert [event.at for event in events] == [now, now + jump, now]
    assert check_chain().broken_at is None
    assert frozen() == ["No freeze: holidays"]


def test_freezing_against_enabling_has_one_order(transactional_db, settings):
    settings.CELERY_BROKER_URL = ""
    settings.HEALTH_STALE_AFTER = 600.0
    load_plan(tracseq(adapter="memory", by_hand=True), actor=SYSTEM)
    make_healthy()
    manager = make_people()[Role.RELEASE_MANAGER]
    tick_all(1, manager)
    for _ in range(12):
        raised = in_threads(lambda: enable_week(number=1, actor=manager), lambda: freeze_now(manager))
        added = AuditEvent.objects.filter(kind=AuditKind.FREEZE_ADDED).first()
        if raised:
            assert [type(error) for error in raised] == [GateClosed]
            assert AuditEvent.objects.filter(kind=AuditKind.ENABLE_REFUSED).first().pk > added.pk
            assert not Flag.objects.filter(weight__gt=0).exists()
        else:
            assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ENABLED).first().pk < added.pk
            roll_back_week(number=1, actor=manager)
        lift_freeze(freeze_id=added.after["freeze"], actor=manager)
    assert check_chain().broken_at is None
