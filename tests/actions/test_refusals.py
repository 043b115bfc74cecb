"""Refusals are audit events, and fill no log."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from migrations_app.actions.approvals import decline_approval, withdraw_approval
from migrations_app.actions.pins import lift_pins
from migrations_app.actor import Actor
from migrations_app.choices import AuditKind
from migrations_app.errors import NotFound, NotPermitted
from migrations_app.models import AuditEvent
from migrations_app.roles import Role

FORGED = [f"{number:0200}" for number in range(60)]


def refusals() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(kind=AuditKind.ACTION_REFUSED).order_by("pk"))


def lift(actor: Actor, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(NotPermitted):
            lift_pins(flags=FORGED, actor=actor, reason="y" * 1000)


def test_who_may_not_leaves_one_short_event_a_minute_for_each_act(people, noon, time_machine):
    viewer, support = people[Role.VIEWER], people[Role.SUPPORT]
    time_machine.move_to(noon, tick=False)
    lift(viewer, 5)
    (event,) = refusals()
    assert "times" not in event.after
    assert len(json.dumps(event.before)) < 1500
    assert len(event.reason) == 200
    lift(support)
    with pytest.raises(NotPermitted):
        decline_approval(request_id=1, actor=viewer, reason="no")
    assert [(one.actor, one.before["asked"]) for one in refusals()[1:]] == [
        ("support", "lift pins"),
        ("viewer", "decline approval"),
    ]
    time_machine.shift(61)
    lift(viewer, 2)
    assert [one.after["times"] for one in refusals()[3:]] == [5]
    time_machine.shift(-3600)  # a clock that is put back silences nobody
    lift(viewer)
    assert refusals()[-1].after["times"] == 2


def test_what_names_nothing_leaves_one_event_a_minute_but_each_from_a_shell(people):
    for actor in (people[Role.VIEWER], people[Role.VIEWER], Actor.at_shell("x"), Actor.at_shell("x")):
        with pytest.raises(NotFound):
            withdraw_approval(request_id=4711, actor=actor, request_key=uuid4())
    assert [one.actor for one in refusals()] == ["viewer", "x", "x"]
