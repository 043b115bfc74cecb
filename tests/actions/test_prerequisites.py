"""Ticks: who, when, with what note; and undo."""

from uuid import uuid4

import pytest

from migrations_app.actions.prerequisites import tick, untick
from migrations_app.choices import AuditKind, Phase
from migrations_app.errors import Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.load import verdicts
from migrations_app.models import AuditEvent, Prerequisite, SignOff, Week
from migrations_app.roles import Role


def lines_of_week_3():
    return Prerequisite.objects.filter(week__number=3, phase=Phase.START)


@pytest.fixture
def backup(plan):
    return lines_of_week_3().first()


def test_a_tick_keeps_who_when_and_the_note(backup, people):
    change = tick(prerequisite_id=backup.pk, actor=people[Role.RELEASE_MANAGER], note="dump of 02:10, 1.2 GB")
    row = SignOff.objects.get()
    assert (row.actor, row.note, row.withdrawn_at) == ("release-manager", "dump of 02:10, 1.2 GB", None)
    assert change.event.kind == AuditKind.PREREQUISITE_TICKED
    assert change.event.reason == "dump of 02:10, 1.2 GB"
    line = next(line for line in verdicts()[3].lines if line.prerequisite == backup.pk)
    assert (line.held, line.value) == (True, "signed off by release-manager")


def test_untick_opens_the_line_and_keeps_the_history(backup, shell):
    tick(prerequisite_id=backup.pk, actor=shell, note="done")
    untick(prerequisite_id=backup.pk, actor=shell, reason="wrong database")
    row = SignOff.objects.get()
    assert row.withdrawn_by == "tester"
    assert verdicts()[3].progress == "0/6"
    assert AuditEvent.objects.first().before == {"held": True, "by": "tester", "note": "done"}
    tick(prerequisite_id=backup.pk, actor=shell)
    assert SignOff.objects.count() == 2


def test_ticking_twice_and_unticking_twice_change_nothing(backup, shell):
    assert tick(prerequisite_id=backup.pk, actor=shell).changed
    assert not tick(prerequisite_id=backup.pk, actor=shell).changed
    assert untick(prerequisite_id=backup.pk, actor=shell).changed
    assert not untick(prerequisite_id=backup.pk, actor=shell).changed


def test_a_tick_from_an_older_page_is_refused(backup, shell):
    seen = backup.week.version
    other = lines_of_week_3().last()
    tick(prerequisite_id=other.pk, actor=shell)
    with pytest.raises(Stale):
        tick(prerequisite_id=backup.pk, actor=shell, seen=seen)
    assert Week.objects.get(number=3).version == seen + 1


def test_an_automatic_line_is_ticked_by_nobody(plan, shell):
    automatic = Prerequisite.objects.get(kind="automatic")
    with pytest.raises(Invalid, match="checked automatically"):
        tick(prerequisite_id=automatic.pk, actor=shell)


def test_an_unknown_line_is_named(plan, shell):
    with pytest.raises(NotFound, match="no prerequisite 999999"):
        tick(prerequisite_id=999999, actor=shell)


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.ADMINISTRATOR])
def test_a_role_without_the_permission_ticks_nothing(backup, people, role):
    with pytest.raises(NotPermitted):
        tick(prerequisite_id=backup.pk, actor=people[role])
    assert not SignOff.objects.exists()


def test_the_same_tick_again_never_says_held_after_it_was_withdrawn(backup, shell):
    key = uuid4()
    first = tick(prerequisite_id=backup.pk, actor=shell, request_key=key)
    assert tick(prerequisite_id=backup.pk, actor=shell, request_key=key).event == first.event
    untick(prerequisite_id=backup.pk, actor=shell)
    with pytest.raises(Stale):
        tick(prerequisite_id=backup.pk, actor=shell, request_key=key)
    assert not SignOff.objects.filter(withdrawn_at__isnull=True).exists()
