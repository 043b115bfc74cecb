"""Rehearse a rollback: all of its way, and no traffic moved."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import transaction

from migrations_app.actions import rehearsals
from migrations_app.actions.confirm import confirm
from migrations_app.actions.rehearsals import rehearse_rollback
from migrations_app.choices import AuditKind, Health
from migrations_app.errors import Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.target import targets
from migrations_app.models import AuditEvent, Flag, HealthState, Plan, Service, Week
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.roles import Role
from tests.factories import make_healthy, memory_gateway, put_behind


def weights():
    return dict(Flag.objects.values_list("key", "weight"))


def test_a_rehearsal_takes_a_generation_that_the_gateway_confirms_and_moves_nothing(plan, people):
    put_behind(1)
    before, version = weights(), Week.objects.get(number=1).version
    change = rehearse_rollback(number=1, actor=people[Role.RELEASE_MANAGER], reason="before the weekend")
    assert change.changed
    assert change.generation == Plan.objects.get().generation
    outcome = confirm(change.generation, event=change.event, head_start=0.0)
    assert outcome.confirmed
    assert outcome.milliseconds is not None
    assert memory_gateway().observe().generation == change.generation
    assert memory_gateway().observe().weights == before == weights()
    week = Week.objects.get(number=1)
    assert (week.version, week.status) == (version + 1, "soaking")
    event = change.event
    assert (event.kind, event.actor, event.reason) == (
        AuditKind.ROLLBACK_REHEARSED,
        "release-manager",
        "before the weekend",
    )
    assert event.after["target"] == targets([1])[1]
    assert event.after["taken_by"] == ["main"]
    assert event.after["weights"] == {key: before[key] for key in event.after["weights"]}
    assert len(event.after["weights"]) == 3


def test_it_is_allowed_before_a_week_has_started_and_through_a_closed_gate(plan, shell):
    change = rehearse_rollback(number=3, actor=shell)
    assert change.changed
    assert set(weights().values()) == {0}
    assert Week.objects.get(number=3).started_at is None


def test_a_monolith_that_is_not_healthy_refuses_it(plan, shell):
    HealthState.objects.filter(target=MONOLITH_TARGET).update(state=Health.UNHEALTHY, error="no connection")
    generation = Plan.objects.get().generation
    with pytest.raises(Invalid, match="to the monolith, and it is unhealthy: no connection"):
        rehearse_rollback(number=1, actor=shell)
    assert Plan.objects.get().generation == generation
    event = AuditEvent.objects.first()
    assert (event.kind, event.week_number, event.after["because"]) == (AuditKind.ACTION_REFUSED, 1, "Invalid")


def test_a_monolith_that_nobody_has_polled_refuses_it(plan, shell):
    HealthState.objects.filter(target=MONOLITH_TARGET).delete()
    with pytest.raises(Invalid, match="it is unknown: no poll yet"):
        rehearse_rollback(number=1, actor=shell)


def test_services_of_the_new_side_may_be_ill(plan, shell):
    make_healthy(Health.UNHEALTHY)
    HealthState.objects.filter(target=MONOLITH_TARGET).update(state=Health.HEALTHY)
    assert rehearse_rollback(number=1, actor=shell).changed


def test_a_table_that_the_gateway_would_not_take_refuses_it(plan, shell):
    memory_gateway().refuses = "a regex that it cannot read"
    generation = Plan.objects.get().generation
    with pytest.raises(Invalid, match="Gateway main would not take the routes with the week on: a regex that it"):
        rehearse_rollback(number=1, actor=shell)
    assert Plan.objects.get().generation == generation
    assert not AuditEvent.objects.filter(kind=AuditKind.ROLLBACK_REHEARSED).exists()


def test_both_tables_are_asked_about_all_on_and_all_off(plan, shell, monkeypatch):
    put_behind(2)
    asked = []
    adapter = memory_gateway()
    real = adapter.render

    def render(table):
        asked.append({route.flag: route.weight for route in table.routes})
        return real(table)

    monkeypatch.setattr(adapter, "render", render)
    rehearse_rollback(number=1, actor=shell)
    week_1 = {"USE_NOTIFICATION_SERVICE", "USE_STORAGE_SERVICE", "USE_RAG_SERVICE"}
    assert [{table[key] for key in week_1} for table in asked] == [{100}, {0}]
    assert [table["USE_TEMPLATE_SERVICE"] for table in asked] == [100, 100]


def test_a_week_without_flags_has_nothing_to_rehearse(plan, shell):
    with pytest.raises(Invalid, match="Week 6 moves no traffic"):
        rehearse_rollback(number=6, actor=shell)


def test_an_unknown_week_is_named(plan, shell):
    with pytest.raises(NotFound, match="no week 9"):
        rehearse_rollback(number=9, actor=shell)
    assert AuditEvent.objects.first().kind == AuditKind.ACTION_REFUSED


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT])
def test_only_who_may_roll_back_may_rehearse_it(plan, people, role):
    generation = Plan.objects.get().generation
    with pytest.raises(NotPermitted, match="may not rehearse a rollback"):
        rehearse_rollback(number=1, actor=people[role])
    assert Plan.objects.get().generation == generation


@pytest.mark.parametrize("role", [Role.RELEASE_MANAGER, Role.APPROVER, Role.ADMINISTRATOR])
def test_whoever_may_roll_back_may_rehearse_it(plan, people, role):
    assert rehearse_rollback(number=1, actor=people[role]).changed


def test_a_role_that_is_taken_meanwhile_counts_no_more(plan, people, monkeypatch):
    actor = people[Role.APPROVER]
    real = rehearsals.desired_table

    def table_while_the_role_is_taken(row):
        actor.account.groups.clear()
        return real(row)

    monkeypatch.setattr(rehearsals, "desired_table", table_while_the_role_is_taken)
    with pytest.raises(NotPermitted, match="may no longer rehearse"):
        rehearse_rollback(number=1, actor=actor)


def test_the_same_click_again_is_the_same_rehearsal(plan, shell):
    key = uuid4()
    first = rehearse_rollback(number=1, actor=shell, request_key=key)
    memory_gateway().refuses = "anything"
    again = rehearse_rollback(number=1, actor=shell, request_key=key)
    assert (again.changed, again.event, again.generation) == (False, first.event, first.generation)
    with pytest.raises(Stale, match="carried out before"):
        rehearse_rollback(number=2, actor=shell, request_key=key)


def test_a_second_rehearsal_is_one_of_its_own(plan, shell):
    first = rehearse_rollback(number=1, actor=shell)
    second = rehearse_rollback(number=1, actor=shell)
    assert second.changed
    assert second.generation == first.generation + 1


def test_a_page_older_than_the_week_is_refused(plan, shell):
    seen = Week.objects.get(number=1).version
    rehearse_rollback(number=1, actor=shell, seen=seen)
    with pytest.raises(Stale, match="has changed since"):
        rehearse_rollback(number=1, actor=shell, seen=seen)


def test_a_change_of_the_routes_during_the_rehearsal_refuses_it(plan, shell, monkeypatch):
    real = rehearsals.desired_table

    def table_while_the_plan_changes(row):
        with transaction.atomic():
            Service.objects.filter(key="rag").update(port=4321)
        return real(row)

    monkeypatch.setattr(rehearsals, "desired_table", table_while_the_plan_changes)
    with pytest.raises(Stale, match="has changed during the rehearsal"):
        rehearse_rollback(number=1, actor=shell)
    assert not AuditEvent.objects.filter(kind=AuditKind.ROLLBACK_REHEARSED).exists()
