"""Passes over several gateways: each gets what is asked, and one that is away or hangs holds up nobody else."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from migrations_app.actions.confirm import confirm
from migrations_app.actions.flags import set_weight
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway, Plan
from migrations_app.models.gateways import verified_at
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile, reconcile_all
from migrations_app.reconcile.side_by_side import SideBySide
from tests.factories import memory_gateway, on_gateways, tick_all, tracseq

KEY = "USE_RAG_SERVICE"
MORE = ("gw-2", "gw-3")
ALL = ("gw-2", "gw-3", "main")


def load(shell, *keys: str):
    return load_plan(on_gateways(tracseq(adapter="memory", by_hand=True), *keys), actor=shell, reason="more gateways")


@pytest.fixture
def three(plan, shell):
    load(shell, *MORE)
    reconcile_all()
    tick_all(1, shell)


def turn_on(shell):
    return set_weight(key=KEY, weight=100, actor=shell)


def observed() -> dict[str, int | None]:
    return dict(Gateway.objects.values_list("key", "observed_generation"))


def test_a_change_reaches_all_of_them(three, shell):
    change = turn_on(shell)
    done = reconcile_all()
    assert [(one.gateway, one.changed, one.error) for one in done] == [(key, True, "") for key in ALL]
    assert {memory_gateway(key).observe().weights[KEY] for key in ALL} == {100}
    assert observed() == dict.fromkeys(ALL, change.generation)
    assert Confirmation.objects.filter(generation=change.generation).count() == 3
    assert confirm(change.generation, event=change.event).sentence().startswith("Applied on all 3 gateways in ")
    assert confirm(change.generation).sentence() == "All 3 gateways already run this."


def test_one_that_is_away_is_named_with_its_reason_and_catches_up_by_itself(three, shell, settings):
    settings.CONFIRM_WITHIN = 0.2
    memory_gateway("gw-3").answers = False
    change = turn_on(shell)
    outcome = confirm(change.generation, event=change.event, head_start=0.0)
    assert not outcome.confirmed
    why = Gateway.objects.get(key="gw-3").error
    assert outcome.sentence() == (
        f"Applied on 2 of 3 gateways, not on gw-3: {why}. By hand: manage.py reconcile --gateway gw-3"
    )
    assert [(one.gateway, bool(one.error)) for one in outcome.answers] == [
        ("gw-2", False),
        ("gw-3", True),
        ("main", False),
    ]
    assert observed() == {"gw-2": change.generation, "gw-3": None, "main": change.generation}
    assert verified_at([change.generation]) == {}
    memory_gateway("gw-3").answers = True
    reconcile_all()
    assert memory_gateway("gw-3").observe().weights[KEY] == 100
    assert confirm(change.generation, event=change.event).confirmed
    assert change.generation in verified_at([change.generation])


def test_with_all_of_them_away_the_change_is_stored_and_every_reason_told(three, shell, settings):
    settings.CONFIRM_WITHIN = 0.2
    for key in ALL:
        memory_gateway(key).answers = False
    outcome = confirm(turn_on(shell).generation, head_start=0.0)
    assert outcome.sentence().startswith("Stored, but not confirmed by any gateway: gw-2: ")
    assert all(f"{key}: " in outcome.error for key in ALL)
    assert outcome.command == "manage.py reconcile"


def test_a_pass_over_one_of_them_leaves_the_others_alone(three, shell):
    change = turn_on(shell)
    before = observed()
    (done,) = reconcile_all(only="gw-2")
    assert (done.gateway, done.changed) == ("gw-2", True)
    assert observed() == before | {"gw-2": change.generation}


def test_one_that_hangs_holds_up_neither_the_others_nor_the_next_pass(three, shell, monkeypatch):
    """By order, not by a clock: the hung one is let go only when the others have been seen to be done, twice."""
    hung, freed, began = memory_gateway("gw-3"), threading.Event(), []
    apply, observe = hung.apply, hung.observe

    def hang(rendered):
        began.append(rendered.generation)
        assert freed.wait(30)
        return apply(rendered)

    def away():
        began.append(0)
        assert freed.wait(30)
        return observe()

    monkeypatch.setattr(hung, "apply", hang)
    monkeypatch.setattr(hung, "observe", away)
    Gateway.objects.filter(key="gw-3").update(observed_generation=None, error="it did not answer")
    first = turn_on(shell)
    assert [one.gateway for one in reconcile_all(leave_late=True)] == ["gw-2", "main"]
    assert observed() == {"gw-2": first.generation, "gw-3": None, "main": first.generation}
    second = set_weight(key=KEY, weight=50, actor=shell)
    assert [one.gateway for one in reconcile_all(leave_late=True)] == ["gw-2", "main"]
    assert observed() == {"gw-2": second.generation, "gw-3": None, "main": second.generation}
    assert len(began) == 1  # no call was begun beside the one that is still out
    freed.set()
    reconcile_all()
    assert observed() == dict.fromkeys(ALL, second.generation)
    assert hung.observe().weights[KEY] == 50


def test_calls_that_are_late_are_told_in_a_later_round_and_faults_are_told_as_such():
    rounds: SideBySide[int] = SideBySide()
    freed = threading.Event()
    late, early = {1: lambda: 10, 2: lambda: freed.wait(30) and 20}, {1: lambda: 11, 2: lambda: 21}
    assert [(key, one.result()) for key, one in rounds.round(late, wait_for={1})] == [(1, 10)]
    assert [(key, one.result()) for key, one in rounds.round(early, wait_for={1})] == [(1, 11)]
    freed.set()
    both = {key: [] for key in early}
    while 20 not in both[2]:
        for key, one in rounds.round(early, wait_for={1}):
            both[key].append(one.result())
    assert set(both[2]) <= {20, 21}
    assert 20 in both[2]
    ((_, one),) = rounds.round({3: lambda: 1 // 0})
    assert isinstance(one.exception(), ZeroDivisionError)


def test_a_fault_of_ours_at_one_is_raised_when_the_others_are_written(three, shell, monkeypatch):
    def fault(_rendered):
        raise RuntimeError("a fault")

    monkeypatch.setattr(memory_gateway("gw-2"), "apply", fault)
    change = turn_on(shell)
    with pytest.raises(RuntimeError, match="a fault"):
        reconcile_all()
    assert {observed()[key] for key in ("gw-3", "main")} == {change.generation}


def test_drift_of_one_is_found_by_the_first_look_put_back_by_that_pass_and_audited_with_what_was_changed(three, shell):
    turn_on(shell)
    reconcile_all()
    memory_gateway("gw-2").tamper({KEY: 40})
    writes = {key: memory_gateway(key).writes for key in ALL}
    reconcile_all()
    assert memory_gateway("gw-2").observe().weights[KEY] == 100
    assert {key: memory_gateway(key).writes - writes[key] for key in ALL} == {"gw-2": 1, "gw-3": 0, "main": 0}
    event = AuditEvent.objects.get(kind=AuditKind.DRIFT_CORRECTED)
    assert (event.subject, event.actor) == ("gateway gw-2", "switchyard")
    assert any("/api/rag" in sentence and "weight=40" in sentence for sentence in event.before["found"])
    assert event.after[KEY] == 100


def test_what_was_confirmed_before_one_was_added_stays_confirmed(plan, shell):
    tick_all(1, shell)
    change = turn_on(shell)
    reconcile_all()
    before = verified_at([change.generation])
    loaded = load(shell, "gw-2")
    assert verified_at([change.generation, loaded.generation]) == before
    reconcile_all()
    assert verified_at([change.generation]) == before
    assert loaded.generation in verified_at([loaded.generation])


def test_one_is_added_and_taken_out_by_a_load_in_the_middle_of_a_week(three, shell):
    turn_on(shell)
    reconcile_all()
    taken = memory_gateway("gw-3")
    loaded = load(shell, "gw-2")
    assert loaded.difference.lines == ("gateway 'gw-3' removed",)
    event = AuditEvent.objects.get(kind=AuditKind.PLAN_LOADED, after__revision=loaded.revision)
    assert event.after["difference"] == ["gateway 'gw-3' removed"]
    assert sorted(observed()) == ["gw-2", "main"]
    assert not Confirmation.objects.exclude(gateway__key__in=["gw-2", "main"]).exists()
    writes = taken.writes
    set_weight(key=KEY, weight=50, actor=shell)
    reconcile_all()
    assert taken.writes == writes
    load(shell, *MORE)
    assert Flag.objects.get(key=KEY).weight == 50
    reconcile_all()
    assert observed() == dict.fromkeys(ALL, Plan.objects.get().generation)


def test_one_that_a_load_takes_out_in_the_middle_of_a_pass_is_written_nowhere(
    transactional_db, three, shell, monkeypatch
):
    adapter, change = memory_gateway("gw-3"), turn_on(shell)
    apply = adapter.apply

    def taken_out(rendered):
        load(shell, "gw-2")
        return apply(rendered)

    monkeypatch.setattr(adapter, "apply", taken_out)
    done = reconcile(Gateway.objects.select_related("plan").get(key="gw-3"))
    assert (done.generation, done.error) == (change.generation, "")
    assert sorted(observed()) == ["gw-2", "main"]
    assert not Confirmation.objects.filter(generation=change.generation).exists()


def questions(work) -> int:
    with CaptureQueriesContext(connection) as captured:
        work()
    return len(captured)


def test_with_one_gateway_a_click_asks_the_database_no_more_than_it_did(plan, shell):
    """As measured before there could be several: a pass that applies, one with nothing to do, and the confirmation.

    The first pass with nothing to do after a load asks once more, for what the rollback scripts hold.
    """
    tick_all(1, shell)
    change = turn_on(shell)
    assert questions(reconcile_all) == 8
    assert questions(reconcile_all) == 7 + 1
    assert questions(reconcile_all) == 7
    assert questions(lambda: confirm(change.generation, event=change.event)) <= 4


def test_with_one_gateway_there_is_no_thread(plan, shell, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a thread")

    monkeypatch.setattr(SideBySide, "round", never)
    assert reconcile_all()[0].error == ""
