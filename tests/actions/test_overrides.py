"""Overrides: a closed gate opened line by line, for minutes, with a reason; and closed again by itself."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from migrations_app.actions.accounts import set_role
from migrations_app.actions.freezes import add_freeze
from migrations_app.actions.overrides import end_override, override_gate
from migrations_app.actions.prerequisites import tick, untick
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import SYSTEM, Actor
from migrations_app.choices import AuditKind, Health
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.load import verdicts
from migrations_app.models import AuditEvent, Flag, Override, Prerequisite, Service, Week
from migrations_app.models.audit import check_chain
from migrations_app.planfile.load import load_plan
from migrations_app.roles import Role
from tests.factories import make_healthy, make_people, put_behind, tick_all, tracseq
from tests.faults.system import in_threads

CLOSED = {"database-backup", "jwt", "rollback-plan", "support-standby", "user-data", "users-notified", "approval"}
REASON = "sign-in is down, the new side works"


@pytest.fixture(autouse=True)
def _quick_passwords(settings):
    """Nobody signs in here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def admin(people) -> Actor:
    return people[Role.ADMINISTRATOR]


@pytest.fixture
def manager(people) -> Actor:
    return people[Role.RELEASE_MANAGER]


@pytest.fixture
def week_3(plan) -> Week:
    """The weeks before it have soaked; nothing of its own is ticked, and nobody has approved it."""
    put_behind(1, 2)
    assert {line.key for line in verdicts(weeks=[3])[3].blocking} == CLOSED
    return Week.objects.get(number=3)


def break_glass(actor: Actor, *lines: str, minutes: int = 15, **more):
    return override_gate(number=3, lines=lines or CLOSED, minutes=minutes, actor=actor, reason=REASON, **more)


def enable(actor: Actor):
    return enable_week(number=3, actor=actor, reason="as overridden")


def blocking() -> set[str]:
    return {line.key for line in verdicts(weeks=[3])[3].blocking}


def auth_is_on() -> bool:
    return Flag.objects.get(key="USE_AUTH_SERVICE").weight == 100


def refused() -> AuditEvent:
    event = AuditEvent.objects.first()
    assert event.kind == AuditKind.ACTION_REFUSED
    return event


def test_an_override_names_its_lines_and_keeps_the_gate_as_it_was(week_3, admin):
    change = break_glass(admin, "jwt", "approval")
    row = Override.objects.get()
    assert (row.lines, row.actor, row.account, row.reason) == (["approval", "jwt"], admin.name, admin.account, REASON)
    assert row.expires_at - row.at == timedelta(minutes=15)
    event = change.event
    assert (event.kind, event.subject, event.week_number) == (AuditKind.GATE_OVERRIDDEN, "week 3", 3)
    assert (event.reason, event.before) == (REASON, {})
    assert event.after == {"lines": ["approval", "jwt"], "expires_at": row.expires_at.isoformat()}
    assert event.verdict["open"] is False
    assert event.verdict["override"] == ""
    assert {line["key"] for line in event.verdict["lines"] if not line["held"]} == CLOSED
    assert not any(line["overridden"] for line in event.verdict["lines"])
    assert Week.objects.get(number=3).version == week_3.version + 1
    verdict = verdicts(weeks=[3])[3]
    assert verdict.override == f"Overridden by administrator for another 15 min: {REASON}"
    assert {line.key for line in verdict.overridden} == {"approval", "jwt"}


def test_an_override_enables_nothing_by_itself_and_the_enable_tells_of_it(week_3, admin, manager):
    break_glass(admin)
    assert verdicts(weeks=[3])[3].open
    assert not auth_is_on()
    change = enable(manager)
    assert auth_is_on()
    verdict = change.event.verdict
    assert verdict["open"] is True
    assert verdict["override"].startswith("Overridden by administrator")
    assert {line["key"] for line in verdict["lines"] if line["overridden"]} == CLOSED
    assert not any(line["held"] for line in verdict["lines"] if line["overridden"])


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.APPROVER, Role.ADMINISTRATOR])
def test_an_override_gives_nobody_the_right_to_enable(week_3, people, admin, role):
    break_glass(admin)
    with pytest.raises(NotPermitted):
        enable(people[role])
    assert not auth_is_on()


@pytest.mark.parametrize("left_out", sorted(CLOSED))
def test_a_line_that_is_not_named_still_blocks(week_3, admin, manager, left_out):
    break_glass(admin, *(CLOSED - {left_out}))
    with pytest.raises(GateClosed) as refusal:
        enable(manager)
    assert {line.key for line in refusal.value.verdict.blocking} == {left_out}
    assert not auth_is_on()


def test_a_line_that_closes_afterwards_still_blocks(week_3, admin, manager):
    jwt = Prerequisite.objects.get(key="jwt")
    tick(prerequisite_id=jwt.pk, actor=manager)
    break_glass(admin, *(CLOSED - {"jwt"}))
    assert blocking() == set()
    untick(prerequisite_id=jwt.pk, actor=manager)
    assert blocking() == {"jwt"}
    tick(prerequisite_id=jwt.pk, actor=manager)
    make_healthy(Health.UNHEALTHY, error="refused")
    assert blocking() == {"health-auth"}
    make_healthy()
    now = timezone.now()
    add_freeze(title="holidays", actor=manager, starts_at=now, ends_at=now + timedelta(hours=1))
    (freeze,) = blocking()
    assert freeze.startswith("freeze-")
    with pytest.raises(GateClosed):
        enable(manager)


def test_one_freeze_that_is_overridden_is_not_the_next_one(week_3, admin, manager):
    tick_all(3, manager)
    now = timezone.now()
    add_freeze(title="holidays", actor=manager, starts_at=now, ends_at=now + timedelta(hours=1))
    (first,) = blocking() - {"approval"}
    break_glass(admin, "approval", first)
    assert blocking() == set()
    add_freeze(title="audit", actor=manager, starts_at=now, ends_at=now + timedelta(hours=1))
    assert len(blocking()) == 1
    assert first not in blocking()


def test_an_override_is_void_once_the_week_moves_something_else(week_3, admin, manager):
    break_glass(admin)
    Service.objects.filter(key="auth").update(port=4010)
    assert verdicts(weeks=[3])[3].override == ""
    with pytest.raises(GateClosed):
        enable(manager)
    Service.objects.filter(key="auth").update(port=3010)
    assert enable(manager).changed


def test_an_override_ends_with_its_last_minute(week_3, admin, manager, time_machine):
    break_glass(admin, minutes=1)
    end = Override.objects.get().expires_at
    time_machine.move_to(end - timedelta(microseconds=1), tick=False)
    make_healthy()
    assert blocking() == set()
    time_machine.move_to(end, tick=False)
    assert blocking() == CLOSED
    with pytest.raises(GateClosed) as refusal:
        enable(manager)
    assert not refusal.value.verdict.overridden
    assert AuditEvent.objects.first().kind == AuditKind.ENABLE_REFUSED
    assert not auth_is_on()


def test_an_override_is_for_its_week_alone(week_3, admin):
    break_glass(admin)
    assert not verdicts(weeks=[4])[4].overridden


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.RELEASE_MANAGER, Role.APPROVER])
def test_only_administrators_break_the_glass(week_3, people, role):
    with pytest.raises(NotPermitted):
        break_glass(people[role], "jwt")
    assert not Override.objects.exists()
    event = refused()
    assert (event.actor, event.subject, event.reason) == (people[role].name, "week 3", REASON)
    assert (event.before["lines"], event.before["minutes"]) == (["jwt"], 15)
    with pytest.raises(NotPermitted):
        end_override(number=3, actor=people[role])


def test_a_role_that_was_taken_breaks_no_glass(week_3, admin, shell):
    assert admin.account.has_perm("migrations_app.override_gate")  # as the session of an open page still has it
    set_role(name="administrator", role=Role.SUPPORT, actor=shell)
    with pytest.raises(NotPermitted, match="may no longer override a gate"):
        break_glass(admin)
    assert not Override.objects.exists()


@pytest.mark.parametrize(
    ("asking", "said"),
    [
        ({"reason": ""}, "Say why"),
        ({"reason": " \t"}, "Say why"),
        ({"minutes": 0}, "from 1 to 120 minutes, not 0"),
        ({"minutes": -5}, "not -5"),
        ({"minutes": 121}, "not 121"),
        ({"lines": []}, "Name the lines"),
        ({"lines": ["jwt", "moon", "sun"]}, "Nothing called moon, sun blocks week 3 now. These do: approval, "),
        ({"lines": ["health-auth"]}, "Nothing called health-auth blocks"),
        ({"lines": ["after-2"]}, "Nothing called after-2 blocks"),
        ({"lines": ["x" * 5000]}, "Nothing called xxxx"),
    ],
)
def test_an_override_that_makes_no_sense_is_refused_and_told(week_3, admin, asking, said):
    with pytest.raises(Invalid, match=said) as refusal:
        override_gate(**({"number": 3, "lines": ["jwt"], "minutes": 5, "actor": admin, "reason": REASON} | asking))
    assert len(str(refusal.value)) < 600
    assert not Override.objects.exists()
    assert blocking() == CLOSED
    assert refused().after["because"] == "Invalid"


@pytest.mark.parametrize("minutes", [1, 120])
def test_the_shortest_and_the_longest_override(week_3, admin, minutes):
    break_glass(admin, minutes=minutes)
    row = Override.objects.get()
    assert row.expires_at - row.at == timedelta(minutes=minutes)


def test_a_name_that_two_lines_share_lets_neither_through(week_3, admin):
    Prerequisite.objects.filter(key="jwt").update(key="approval")
    with pytest.raises(Invalid, match="More than one line is called approval"):
        break_glass(admin, "approval", "user-data")
    assert not Override.objects.exists()
    assert break_glass(admin, "user-data").changed


def test_an_open_gate_has_nothing_to_override(plan, admin, manager):
    tick_all(1, manager)
    assert verdicts(weeks=[1])[1].open
    with pytest.raises(Invalid, match=r"Nothing called services-healthy blocks week 1 now\. Its gate is open\."):
        override_gate(number=1, lines=["services-healthy"], minutes=5, actor=admin, reason=REASON)


def test_an_unknown_week_is_named(plan, admin):
    for act in (
        lambda: override_gate(number=99, lines=["jwt"], minutes=5, actor=admin, reason=REASON),
        lambda: end_override(number=99, actor=admin),
    ):
        with pytest.raises(NotFound, match="no week 99"):
            act()
        assert (refused().subject, refused().week_number) == ("week 99", None)


def test_a_page_older_than_the_week_breaks_no_glass(week_3, admin, manager):
    tick(prerequisite_id=Prerequisite.objects.get(key="jwt").pk, actor=manager)
    with pytest.raises(Stale, match="has changed since this page was loaded"):
        break_glass(admin, "approval", seen=week_3.version)
    assert not Override.objects.exists()
    assert refused().before["seen"] == week_3.version


def test_the_same_click_breaks_the_glass_once_and_never_again(week_3, admin):
    key = uuid4()
    first = break_glass(admin, request_key=key)
    again = break_glass(admin, request_key=key)
    assert (again.changed, again.event) == (False, first.event)
    assert Override.objects.count() == 1
    end_override(number=3, actor=admin)
    with pytest.raises(Stale, match="This click was carried out before"):
        break_glass(admin, request_key=key)
    assert blocking() == CLOSED
    assert refused().before["request_key"] == str(key)


def test_a_click_of_an_override_that_is_over_does_not_break_the_glass_again(week_3, admin, time_machine):
    key = uuid4()
    break_glass(admin, minutes=1, request_key=key)
    time_machine.move_to(timezone.now() + timedelta(minutes=2))
    with pytest.raises(Stale):
        break_glass(admin, minutes=1, request_key=key)
    assert Override.objects.count() == 1
    assert refused().after["because"] == "Stale"


def test_the_next_override_takes_the_place_of_the_one_before(week_3, admin, shell):
    first = break_glass(admin, "jwt", "approval")
    change = break_glass(shell, "jwt", minutes=30)
    assert change.event.before == first.event.after
    old, new = Override.objects.order_by("at")
    assert (old.ended_by, old.ended_at) == ("tester", new.at)
    assert new.ended_at is None
    assert blocking() == CLOSED - {"jwt"}
    overridden = [line["key"] for line in change.event.verdict["lines"] if line["overridden"]]
    assert sorted(overridden) == ["approval", "jwt"]  # the gate as it was before
    with pytest.raises(IntegrityError, match="one_override_per_week_at_a_time"), transaction.atomic():
        Override.objects.filter(pk=old.pk).update(ended_at=None)


def test_an_override_that_is_over_is_closed_by_the_next(week_3, admin):
    break_glass(admin)
    hour = timedelta(hours=1)
    row = Override.objects.get()
    Override.objects.update(at=row.at - hour, expires_at=row.expires_at - hour)
    change = break_glass(admin, "jwt")
    row.refresh_from_db()
    assert (row.ended_at, row.ended_by) == (row.expires_at, "switchyard")
    assert change.event.before == {}
    assert Override.objects.get(ended_at=None).lines == ["jwt"]


def test_an_override_is_ended_before_its_time(week_3, admin, manager):
    begun = break_glass(admin)
    version = Week.objects.get(number=3).version
    change = end_override(number=3, actor=admin, reason="not needed")
    assert (change.event.kind, change.event.subject) == (AuditKind.OVERRIDE_ENDED, "week 3")
    assert (change.event.before, change.event.after) == (begun.event.after, {"lines": []})
    assert Override.objects.get().ended_by == "administrator"
    assert Week.objects.get(number=3).version == version + 1
    with pytest.raises(GateClosed):
        enable(manager)


def test_where_there_is_no_override_nothing_is_ended(week_3, admin):
    events = AuditEvent.objects.count()
    assert not end_override(number=3, actor=admin).changed
    assert AuditEvent.objects.count() == events
    break_glass(admin)
    row = Override.objects.get()
    hour = timedelta(hours=1)
    Override.objects.update(at=row.at - hour, expires_at=row.expires_at - hour)
    assert not end_override(number=3, actor=admin).changed
    row.refresh_from_db()
    assert (row.ended_at, row.ended_by) == (row.expires_at, "switchyard")
    assert AuditEvent.objects.count() == events + 1


def test_the_click_that_ended_one_override_does_not_end_the_next(week_3, admin):
    key = uuid4()
    break_glass(admin)
    first = end_override(number=3, actor=admin, request_key=key)
    again = end_override(number=3, actor=admin, request_key=key)
    assert (again.changed, again.event) == (False, first.event)
    break_glass(admin)
    with pytest.raises(Stale):
        end_override(number=3, actor=admin, request_key=key)
    assert blocking() == set()


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_jumps_changes_no_order(week_3, admin, time_machine, jump):
    now, last = timezone.now(), AuditEvent.objects.first().pk
    time_machine.move_to(now, tick=False)
    break_glass(admin, "jwt", minutes=120)
    time_machine.move_to(now + jump, tick=False)
    make_healthy()
    break_glass(admin, "jwt", "approval", minutes=120)
    time_machine.move_to(now, tick=False)
    end_override(number=3, actor=admin)
    events = list(AuditEvent.objects.filter(pk__gt=last).order_by("pk"))
    assert [event.kind for event in events] == [AuditKind.GATE_OVERRIDDEN] * 2 + [AuditKind.OVERRIDE_ENDED]
    assert [event.at for event in events] == [now, now + jump, now]
    assert [event.before for event in events[1:]] == [event.after for event in events[:2]]
    assert check_chain().broken_at is None
    assert blocking() >= {"jwt", "approval"}


@pytest.fixture
def committed(transactional_db, settings) -> dict[Role, Actor]:
    """Week 3 behind its closed gate, committed, so that threads see it."""
    settings.CELERY_BROKER_URL = ""
    settings.HEALTH_STALE_AFTER = 600.0
    load_plan(tracseq(adapter="memory", by_hand=True), actor=SYSTEM)
    make_healthy()
    put_behind(1, 2)
    return make_people()


def test_two_who_break_the_glass_at_once_leave_one_override(committed):
    admin = committed[Role.ADMINISTRATOR]
    raised = in_threads(lambda: break_glass(admin, "jwt"), lambda: break_glass(admin, "approval"))
    assert raised == []
    first, last = AuditEvent.objects.filter(kind=AuditKind.GATE_OVERRIDDEN).order_by("pk")
    assert (first.before, last.before) == ({}, first.after)
    live = Override.objects.get(ended_at=None)
    assert last.after["lines"] == live.lines
    assert blocking() == CLOSED - set(live.lines)


def test_ending_an_override_against_enabling_has_one_order(committed):
    admin, manager = committed[Role.ADMINISTRATOR], committed[Role.RELEASE_MANAGER]
    for _ in range(12):
        break_glass(admin)
        raised = in_threads(lambda: enable(manager), lambda: end_override(number=3, actor=admin))
        ended = AuditEvent.objects.filter(kind=AuditKind.OVERRIDE_ENDED).first()
        enabled = AuditEvent.objects.filter(kind=AuditKind.WEEK_ENABLED, actor=manager.name).first()
        if raised:
            assert [type(error) for error in raised] == [GateClosed]
            assert not auth_is_on()
            assert AuditEvent.objects.filter(kind=AuditKind.ENABLE_REFUSED).first().pk > ended.pk
        else:
            assert auth_is_on()
            assert enabled.pk < ended.pk
            roll_back_week(number=3, actor=manager)
    assert check_chain().broken_at is None
