"""Pins become events and rollbacks when the database is there, hold against every way up, and a person lifts them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.gateways import Place
from migrations_app.actions.confirm import confirm
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.pins import lift_pins, settle, settle_passes
from migrations_app.actions.rollouts import start_rollout
from migrations_app.actions.weeks import enable_week
from migrations_app.actor import SYSTEM
from migrations_app.choices import ActorKind, AuditKind
from migrations_app.errors import Invalid, NotFound, NotPermitted, Pinned
from migrations_app.gateways.errors import StaleGeneration
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import AuditEvent, Flag, Gateway, Plan
from migrations_app.models.audit import check_chain
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.decide import Step
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.reconcile.pins import held_at
from migrations_app.roles import Role
from tests.factories import memory_gateway, tick_all

KEY, OTHER = "USE_RAG_SERVICE", "USE_STORAGE_SERVICE"


@pytest.fixture
def on(plan, shell):
    """Week 1 is on, and the gateway runs it."""
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    reconcile_all()
    return memory_gateway()


def weight(key: str = KEY) -> int:
    return Flag.objects.get(key=key).weight


def events(kind: AuditKind) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(kind=kind).order_by("id"))


def one_round() -> None:
    """What the task does every second."""
    settle_passes(reconcile_all())


def test_a_pin_that_appears_is_obeyed_by_the_next_pass_and_is_no_drift(on):
    (before,) = reconcile_all()
    on.pin([KEY], by="a script", why="it burns")
    (done,) = reconcile_all()
    assert (before.step, done.step, done.changed, done.error) == (Step.NOTHING, Step.APPLY, True, "")
    assert (before.unsettled, done.unsettled) == (False, True)
    assert on.observe().weights[KEY] == 0
    assert on.observe().generation == Plan.objects.get().generation
    row = Gateway.objects.get()
    assert row.observed_weights[KEY] == 0
    pin = row.pin_of(KEY)
    assert (pin.by, pin.why, row.pin_of(OTHER)) == ("a script", "it burns", None)
    assert events(AuditKind.DRIFT_CORRECTED) == []
    (again,) = reconcile_all()
    assert (again.step, again.changed) == (Step.NOTHING, False)


def test_what_was_done_without_the_database_becomes_events_once(on):
    on.panic([KEY, OTHER], by="anna", why="it burns")
    for _ in range(3):
        one_round()
    (event,) = events(AuditKind.FLAG_PINNED)
    assert (event.actor, event.actor_kind, event.reason) == ("anna", ActorKind.SHELL, "it burns")
    assert event.after["flags"] == [KEY, OTHER]
    pin = on.pins()[0]
    assert event.after["done at"] == pin.at.isoformat()
    assert settle() == []
    assert check_chain().broken_at is None
    (gateway,) = Gateway.objects.all()
    assert gateway.journal_read == on.journal_size()


def test_a_pinned_flag_is_rolled_back_and_the_reason_says_by_whom_it_was_pinned(on):
    on.panic([KEY], by="anna", why="it burns")
    one_round()
    assert (weight(), weight(OTHER)) == (0, 100)
    (event,) = events(AuditKind.FLAG_ROLLED_BACK)
    assert (event.actor, event.actor_kind) == (SYSTEM.name, ActorKind.SYSTEM)
    assert event.reason.startswith("It is pinned to the old side by anna since 20")
    assert event.reason.endswith("it burns.")
    assert event.after["pinned by"] == "anna"
    (done,) = reconcile_all()
    assert (done.error, done.unsettled) == ("", False)


def test_a_flag_that_was_pinned_stays_off_when_the_pin_is_gone_before_anybody_saw_it(on):
    on.panic([KEY], by="anna")
    on.lift([KEY], by="a hand")
    (done,) = reconcile_all()
    assert done.unsettled
    assert on.observe().weights[KEY] == 0
    one_round()
    assert weight() == 0
    reconcile_all()
    assert on.observe().weights[KEY] == 0
    assert [event.kind for event in AuditEvent.objects.order_by("-id")[:3]] == [
        AuditKind.FLAG_ROLLED_BACK,
        AuditKind.FLAG_PIN_LIFTED,
        AuditKind.FLAG_PINNED,
    ]


def test_a_torn_line_is_waited_for_and_a_line_of_somebody_else_is_not_lost(on):
    on.journaled += b"what is \xff\x00 this\n" + b"done=pinned\tat=2026-11-22T03:12:00Z\tgeneration=7\tfla"
    one_round()
    (event,) = events(AuditKind.JOURNAL_NOT_OURS)
    assert event.before == {"line": "what is \\xff\\x00 this"}
    assert events(AuditKind.FLAG_PINNED) == []
    on.journaled += b"gs=USE_RAG_SERVICE\tby=anna\twhy=\n"
    one_round()
    (event,) = events(AuditKind.FLAG_PINNED)
    assert (event.subject, event.after["done at"], event.after["generation"]) == (KEY, "2026-11-22T03:12:00+00:00", 7)
    assert len(events(AuditKind.JOURNAL_NOT_OURS)) == 1


def test_the_same_line_twice_is_two_events_and_a_journal_that_was_begun_anew_loses_none(on):
    line = b"done=pinned\tat=2026-11-22T03:12:00Z\tgeneration=7\tflags=USE_RAG_SERVICE\tby=anna\twhy=\n"
    on.journaled = line * 2
    one_round()
    assert len(events(AuditKind.FLAG_PINNED)) == 2
    on.journaled = line.replace(b"anna", b"ben")
    one_round()
    on.journaled += line * 2
    one_round()
    assert [event.actor for event in events(AuditKind.FLAG_PINNED)] == ["anna", "anna", "ben"]


def test_no_way_up_leads_past_a_pin_and_every_way_down_works(on, shell):
    on.panic([KEY], by="anna", why="it burns")
    one_round()
    reconcile_all()
    told = rf"{KEY} is pinned to the old side by anna since .*: it burns.*Lift the pin first: manage.py pin lift {KEY}"
    with pytest.raises(Pinned, match=told):
        set_weight(key=KEY, weight=1, actor=shell)
    with pytest.raises(Pinned):
        enable_week(number=1, actor=shell)
    with pytest.raises(Pinned):
        start_rollout(key=KEY, actor=shell)
    assert weight() == 0
    set_weight(key=OTHER, weight=40, actor=shell)
    assert not roll_back_flag(key=KEY, actor=shell).changed
    assert roll_back_flag(key=OTHER, actor=shell).changed
    (done,) = reconcile_all()
    assert done.error == ""


def test_a_flag_that_is_pinned_while_it_is_enabled_is_never_called_applied(plan, shell):
    tick_all(1, shell)
    change = set_weight(key=KEY, weight=100, actor=shell)
    memory_gateway().pin([KEY], by="anna")
    outcome = confirm(change.generation, event=change.event, head_start=0.0)
    assert not outcome.confirmed
    assert KEY in outcome.error
    assert outcome.command == f"manage.py pin lift {KEY}"
    one_round()
    change = roll_back_flag(key=KEY, actor=shell)
    assert confirm(change.generation, event=change.event, head_start=0.0).confirmed


def test_a_pin_that_comes_while_a_pass_applies_is_obeyed_and_told_by_that_pass(plan, shell, monkeypatch):
    tick_all(1, shell)
    change = set_weight(key=KEY, weight=100, actor=shell)
    gateway, apply = memory_gateway(), MemoryGateway.apply

    def late(self, rendered):
        if not self.pins():
            self.pin([KEY], by="anna")
        return apply(self, rendered)

    monkeypatch.setattr(MemoryGateway, "apply", late)
    (done,) = reconcile_all()
    assert (done.error, done.changed, done.unsettled) == ("", True, True)
    assert gateway.observe().weights[KEY] == 0
    row = Gateway.objects.get()
    assert (row.observed_generation, row.observed_weights[KEY]) == (change.generation, 0)
    assert row.pin_of(KEY).by == "anna"


def test_a_note_of_an_older_version_is_written_anew_once(on, monkeypatch):
    known = iter([None])
    monkeypatch.setattr(MemoryGateway, "last_applied", lambda self: next(known, self._running))
    assert [reconcile_all()[0].step for _ in range(2)] == [Step.APPLY, Step.NOTHING]


def test_a_lifted_flag_stays_on_the_old_side_and_may_be_enabled_again(on, people):
    on.panic(by="anna")
    one_round()
    reconcile_all()
    manager = people[Role.RELEASE_MANAGER]
    change = lift_pins(flags=[KEY], actor=manager, reason="mended")
    assert (change.changed, change.title) == (True, KEY)
    assert KEY not in {pin.flag for pin in on.pins()}
    assert Gateway.objects.get().pin_of(KEY) is None
    one_round()
    one_round()
    (event,) = events(AuditKind.FLAG_PIN_LIFTED)
    assert (event.actor, event.actor_kind, event.reason) == (manager.name, ActorKind.ACCOUNT, "mended")
    assert event.before["pins"][0]["by"] == "anna"
    assert (weight(), on.observe().weights[KEY]) == (0, 0)
    assert set_weight(key=KEY, weight=100, actor=manager).changed
    lift_pins(actor=manager)
    assert on.pins() == ()
    assert not lift_pins(actor=manager).changed


def test_lifting_rolls_back_first_what_nobody_has_rolled_back_yet(on, shell):
    late = on.render(on.last_applied())
    on.pin([KEY], by="a script")
    lift_pins(flags=[KEY], actor=shell)
    assert (weight(), on.observe().weights[KEY]) == (0, 0)
    # Nobody has to reconcile any more: what the gateway would start from is as it should be.
    assert on.last_applied().weights()[KEY] == 0
    with pytest.raises(StaleGeneration):
        on.apply(late)


def test_a_gateway_that_cannot_be_asked_holds_up_no_other_and_is_told(on, shell):
    Gateway.objects.create(plan=Plan.objects.get(), key="gw-2", adapter="envoy")
    on.panic([KEY], by="anna")
    told = rf"Not all pins were lifted. gw-2: the setting GATEWAYS .*\. Lifted elsewhere: {KEY}\."
    with pytest.raises(Invalid, match=told):
        lift_pins(flags=[KEY], actor=shell, reason="mended")
    assert on.pins() == ()
    (event,) = events(AuditKind.FLAG_PIN_LIFTED)
    assert event.reason == "mended"
    assert "gw-2" in events(AuditKind.ACTION_REFUSED)[0].after["refused"]


def test_who_may_not_enable_may_not_lift_and_what_is_not_pinned_cannot_be(on, people):
    on.panic([KEY], by="anna")
    with pytest.raises(NotPermitted):
        lift_pins(flags=[KEY], actor=people[Role.APPROVER])
    with pytest.raises(NotFound, match=OTHER):
        lift_pins(flags=[KEY, OTHER], actor=people[Role.RELEASE_MANAGER])
    assert [pin.flag for pin in on.pins()] == [KEY]
    assert AuditEvent.objects.first().kind == AuditKind.ACTION_REFUSED


def test_a_lift_whose_commit_fails_is_told_by_the_journal(on, shell, monkeypatch):
    on.panic([KEY], by="anna")
    one_round()

    def fails(*_: object) -> None:
        raise RuntimeError("the commit has failed")

    with monkeypatch.context() as patched:
        patched.setattr("migrations_app.actions.pins.tell", fails)
        with pytest.raises(RuntimeError):
            lift_pins(flags=[KEY], actor=shell, reason="mended")
    assert events(AuditKind.FLAG_PIN_LIFTED) == []
    one_round()
    (event,) = events(AuditKind.FLAG_PIN_LIFTED)
    assert (event.actor, event.reason) == (shell.name, "mended")


def test_pins_hold_at_a_gateway_that_is_ahead_of_a_restored_database(on):
    ahead = replace(on.last_applied(), generation=Plan.objects.get().generation + 5)
    on.apply(on.render(ahead))
    on.pin([KEY], by="anna")
    on.tamper({KEY: 0})  # as a script does
    (done,) = reconcile_all()
    assert done.step == Step.STAND_BACK
    assert (on.observe().weights[KEY], on.last_applied().weights()[KEY]) == (0, 0)


def test_pins_of_a_folder_that_is_not_there_hold_as_they_did(on, settings, tmp_path):
    settings.GATEWAYS = {"gw-2": Place(tmp_path / "away", "http://127.0.0.1:9", "http://127.0.0.1:9")}
    stored = [{"flag": KEY, "by": "anna", "at": None, "why": ""}]
    row = Gateway.objects.create(plan=Plan.objects.get(), key="gw-2", adapter="envoy", pins=stored)
    assert held_at(row, adapter_for(row)).flags == {KEY}
    reconcile_all()
    assert Gateway.objects.get(key="gw-2").pin_of(KEY).by == "anna"


def test_a_journal_that_was_lost_is_known_before_the_next_one_is_as_long(on):
    line = b"done=pinned\tat=2026-11-22T03:12:00Z\tgeneration=7\tflags=USE_RAG_SERVICE\tby=%s\twhy=\n"
    on.journaled = line % b"anna"
    one_round()
    on.journaled = b""
    one_round()
    assert Gateway.objects.get().journal_read == 0
    on.journaled = line % b"evan"
    one_round()
    assert [event.actor for event in events(AuditKind.FLAG_PINNED)] == ["anna", "evan"]
    # Nobody saw that it was lost: who settles, for whatever reason, reads it all.
    on.journaled = line % b"otto"
    settle()
    assert events(AuditKind.FLAG_PINNED)[-1].actor == "otto"


def test_the_gateway_is_given_a_script_for_each_week_that_moves_traffic(on):
    reconcile_all()
    assert on.called() == "main"
    found = {script.name: script for script in on.scripts()}
    assert set(found["week-1.sh"].flags) == set(Flag.objects.filter(week__number=1).values_list("key", flat=True))
    everything = found["everything.sh"].flags
    assert sorted(everything) == sorted(Flag.objects.values_list("key", flat=True))
    weeks = dict(Flag.objects.values_list("key", "week__number"))
    assert [weeks[flag] for flag in everything] == sorted(weeks.values(), reverse=True)


def test_a_pass_asks_nothing_more_of_the_database_when_nothing_is_pinned(on, django_assert_num_queries):
    reconcile_all()
    # The gateways, the table, and what was observed with its message in a transaction: as it was without pins.
    with django_assert_num_queries(7):
        settle_passes(reconcile_all())
