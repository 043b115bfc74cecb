"""Passes of the loop on the in-memory gateway; tests/faults has them on Envoy."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from migrations_app.actions.confirm import confirm
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Confirmation, Gateway, Plan
from migrations_app.reconcile.decide import Step
from migrations_app.reconcile.desired import desired_table
from migrations_app.reconcile.loop import reconcile, reconcile_all
from tests.factories import memory_gateway, tick_all

KEY = "USE_RAG_SERVICE"


def turn_on(shell):
    tick_all(1, shell)
    return set_weight(key=KEY, weight=100, actor=shell)


def test_a_change_reaches_the_gateway_and_is_written_as_observed(plan, shell):
    change = turn_on(shell)
    (done,) = reconcile_all()
    assert (done.step, done.changed, done.error, done.generation) == (Step.APPLY, True, "", change.generation)
    row = Gateway.objects.get()
    assert row.observed_generation == change.generation
    assert row.observed_weights[KEY] == 100
    assert memory_gateway().observe().weights[KEY] == 100
    assert Confirmation.objects.filter(generation=change.generation).count() == 1


def test_a_duplicate_pass_changes_nothing(plan, shell):
    turn_on(shell)
    reconcile_all()
    (done,) = reconcile_all()
    assert (done.step, done.changed) == (Step.NOTHING, False)


def test_a_late_pass_with_an_older_table_is_refused(plan, shell, monkeypatch):
    turn_on(shell)
    old = desired_table(Plan.objects.get())
    roll_back_flag(key=KEY, actor=shell)
    reconcile_all()
    newest = Plan.objects.get().generation
    monkeypatch.setattr("migrations_app.reconcile.loop.desired_table", lambda _plan: old)
    done = reconcile(Gateway.objects.get())
    assert (done.step, done.changed, done.error) == (Step.STAND_BACK, False, "")
    assert memory_gateway().observe().generation == newest
    assert memory_gateway().observe().weights[KEY] == 0
    assert Gateway.objects.get().observed_generation == newest


def test_passes_in_any_order_end_at_the_newest(plan, shell, monkeypatch):
    turn_on(shell)
    tables = [desired_table(Plan.objects.get())]
    for weight in (10, 100, 60):
        set_weight(key=KEY, weight=weight, actor=shell)
        tables.append(desired_table(Plan.objects.get()))
    for table in (tables[1], tables[3], tables[0], tables[2], tables[3]):
        monkeypatch.setattr("migrations_app.reconcile.loop.desired_table", lambda _plan, table=table: table)
        reconcile(Gateway.objects.get())
    assert memory_gateway().observe().weights[KEY] == 60
    assert memory_gateway().observe().generation == tables[3].generation


def test_drift_is_put_back_and_audited_once(plan, shell):
    turn_on(shell)
    reconcile_all()
    adapter = memory_gateway()
    adapter.tamper({KEY: 0})
    (done,) = reconcile_all()
    assert (done.step, done.changed, done.error) == (Step.REPAIR, True, "")
    assert adapter.observe().weights[KEY] == 100
    event = AuditEvent.objects.get(kind=AuditKind.DRIFT_CORRECTED)
    assert event.actor == "switchyard"
    assert any(KEY in sentence or "/api/rag" in sentence for sentence in event.before["found"])
    reconcile_all()
    assert AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).count() == 1


def test_a_gateway_that_is_away_is_said_and_caught_up_with(plan, shell):
    adapter = memory_gateway()
    adapter.answers = False
    change = turn_on(shell)
    (done,) = reconcile_all()
    assert done.error
    row = Gateway.objects.get()
    assert row.error == done.error
    assert row.observed_generation is None
    adapter.answers = True
    (done,) = reconcile_all()
    assert done.error == ""
    assert Gateway.objects.get().observed_generation == change.generation


def test_after_a_restored_backup_the_gateway_is_left_alone_until_a_person_acts(plan, shell):
    turn_on(shell)
    reconcile_all()
    adapter = memory_gateway()
    ahead = replace(desired_table(Plan.objects.get()), generation=1000)
    adapter.apply(adapter.render(ahead))
    (done,) = reconcile_all()
    assert done.step == Step.STAND_BACK
    assert "restored or replaced" in done.error
    change = roll_back_flag(key=KEY, actor=shell)
    assert change.generation == 1001
    assert reconcile_all()[0].error == ""
    assert adapter.observe().weights[KEY] == 0


def test_after_a_restored_backup_a_rollback_reaches_what_this_database_calls_off(plan, shell):
    adapter = memory_gateway()
    table = desired_table(Plan.objects.get())
    routes = tuple(replace(route, weight=100 if route.flag == KEY else 0) for route in table.routes)
    adapter.apply(adapter.render(replace(table, generation=1000, routes=routes)))
    reconcile_all()
    change = roll_back_flag(key=KEY, actor=shell)
    assert (change.changed, change.event.before, change.event.after) == (True, {KEY: 100}, {KEY: 0})
    assert reconcile_all()[0].error == ""
    assert (adapter.observe().generation, adapter.observe().weights[KEY]) == (1001, 0)
    assert not roll_back_flag(key=KEY, actor=shell).changed


def test_after_a_restored_backup_a_rollback_before_any_pass_is_not_called_applied(plan, shell):
    turn_on(shell)
    reconcile_all()
    adapter = memory_gateway()
    ahead = replace(desired_table(Plan.objects.get()), generation=1000)
    adapter.apply(adapter.render(ahead))
    change = roll_back_flag(key=KEY, actor=shell)
    assert change.generation < 1000
    outcome = confirm(change.generation, event=change.event, head_start=0)
    assert not outcome.confirmed
    assert "restored or replaced" in outcome.error
    assert not Confirmation.objects.filter(generation__gte=change.generation).exists()
    again = roll_back_flag(key=KEY, actor=shell)
    assert confirm(again.generation, event=again.event, head_start=0).confirmed
    assert adapter.observe().weights[KEY] == 0


def test_an_edit_that_a_change_meets_at_a_gateway_that_is_away_is_audited_once(plan, shell):
    reconcile_all()
    adapter = memory_gateway()
    adapter.answers = False
    adapter.tamper_folder(b"{}")
    turn_on(shell)
    for _ in range(2):
        assert reconcile_all()[0].error
    event = AuditEvent.objects.get(kind=AuditKind.DRIFT_CORRECTED)
    assert any("had been changed" in sentence for sentence in event.before["found"])


def test_drift_that_cannot_be_audited_is_not_written_as_seen(plan, shell, monkeypatch):
    turn_on(shell)
    reconcile_all()
    before = Gateway.objects.get().observed_at

    def fails(*_arguments, **_words):
        raise OperationalError("the database went away")

    memory_gateway().tamper({KEY: 0})
    monkeypatch.setattr("migrations_app.reconcile.loop.record", fails)
    with pytest.raises(OperationalError):
        reconcile_all()
    assert Gateway.objects.get().observed_at == before


def test_who_does_not_know_where_a_gateway_is_leaves_what_another_process_sees(plan, shell):
    turn_on(shell)
    reconcile_all()
    Gateway.objects.update(adapter="envoy", key="gw-2", first=False)
    assert "GATEWAYS" in reconcile_all()[0].error
    assert Gateway.objects.get().error == ""
    Gateway.objects.update(observed_at=timezone.now() - timedelta(seconds=10))
    reconcile_all()
    assert "GATEWAYS" in Gateway.objects.get().error


def test_files_put_back_while_the_gateway_is_down_are_audited_once(plan, shell):
    adapter = memory_gateway()
    adapter.answers = False
    adapter.tamper_folder(b"{}")
    for _ in range(3):
        assert reconcile_all()[0].error
    event = AuditEvent.objects.get(kind=AuditKind.DRIFT_CORRECTED)
    assert any("was changed" in sentence for sentence in event.before["found"])


def test_a_clock_that_was_put_back_does_not_stop_the_loop(plan, shell):
    Gateway.objects.update(observed_at=timezone.now() + timedelta(hours=1))
    change = turn_on(shell)
    reconcile_all()
    row = Gateway.objects.get()
    assert row.observed_generation == change.generation
    assert row.observed_at <= timezone.now()
