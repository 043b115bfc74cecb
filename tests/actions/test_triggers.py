"""Triggers on real rows: what they measure, what they do, and that they do it once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions import triggers
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.rollouts import pause_rollout, resume_rollout, start_rollout, step_to, under_way
from migrations_app.actions.triggers import watch_triggers
from migrations_app.choices import ActorKind, AuditKind, Breach, RolloutState
from migrations_app.errors import Busy, Stale
from migrations_app.gateways.base import Side
from migrations_app.models import (
    AuditEvent,
    Flag,
    Gateway,
    QueryAnswer,
    Rollout,
    Service,
    TrafficSample,
    TriggerState,
    Week,
)
from migrations_app.observe.queries import asked_of
from migrations_app.observe.traffic import read_once
from migrations_app.observe.watched import watched
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile_all
from tests.actions.trigger_scene import ERRORS, KEY, LOGIN, asks, last_event, poll, serve, watched_by, weight
from tests.factories import memory_gateway, on_gateways, put_behind, tick_all, tracseq


def test_errors_roll_back_with_value_and_limit_in_the_event(on):
    watched_by(ERRORS)
    serve(400, errors=20)
    assert watch_triggers() == []
    assert TriggerState.objects.get().state == Breach.OK
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    event = last_event()
    assert (event.kind, event.actor_kind, weight()) == (AuditKind.FLAG_ROLLED_BACK, ActorKind.SYSTEM, 0)
    assert event.reason == "Trigger errors: 6.00 % errors of 500 requests (limit: at most 5 % in 30 s)."
    told = {"key": "errors", "value": "6.00 % errors of 500 requests", "limit": "at most 5 % in 30 s"}
    assert event.after == {KEY: 0, "trigger": told}
    state = TriggerState.objects.get()
    assert (state.state, state.fired_at is not None) == (Breach.BREACHED, True)


def test_after_a_rollback_nothing_is_watched_and_only_a_person_turns_it_on_again(on, shell, time_machine):
    watched_by(ERRORS)
    serve(100, errors=100)
    assert watch_triggers() == [f"{KEY}/errors"]
    events = AuditEvent.objects.count()
    for _ in range(3):
        assert watch_triggers() == []
    assert (weight(), AuditEvent.objects.count()) == (0, events)
    # Turned on again, it is judged anew: the errors of the time before count no more.
    time_machine.move_to(timezone.now() + timedelta(seconds=1))
    set_weight(key=KEY, weight=10, actor=shell)
    reconcile_all()
    assert watch_triggers() == []
    time_machine.move_to(timezone.now() + timedelta(seconds=1))
    serve(100, errors=100)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert weight() == 0


def test_what_came_before_the_gateway_confirmed_the_weight_does_not_count(plan, shell):
    watched_by(ERRORS)
    tick_all(1, shell)
    set_weight(key=KEY, weight=25, actor=shell)
    serve(100, errors=100)
    assert watch_triggers() == []  # not confirmed: nobody knows whose errors these are
    reconcile_all()
    assert watch_triggers() == []
    assert TriggerState.objects.get().state == Breach.NO_DATA


def test_what_is_older_than_the_window_does_not_count(on, time_machine):
    watched_by(ERRORS)
    serve(100, errors=100)
    time_machine.move_to(timezone.now() + timedelta(seconds=31))
    serve(100)
    assert watch_triggers() == []


def test_errors_of_the_old_side_do_not_count(on):
    watched_by(ERRORS)
    serve(100, errors=100, side=Side.MONOLITH)
    assert watch_triggers() == []


def test_failed_polls_in_a_row(on):
    watched_by({"key": "health", "when": "health", "failures": 3})
    poll(False, False, True, False, False)
    assert watch_triggers() == []
    poll(None)  # nobody could tell: it is no failure
    poll(False, False)
    assert watch_triggers() == []
    poll(False)
    assert watch_triggers() == [f"{KEY}/health"]
    assert "3 failed polls in a row, the last one: answered 503" in last_event().reason
    assert weight() == 0


def test_slower_than_the_monolith(on):
    watched_by({"key": "slow", "when": "latency", "times": 2.0})
    serve(100, milliseconds=20, side=Side.MONOLITH)
    serve(100, milliseconds=30)
    assert watch_triggers() == []
    serve(100, milliseconds=200)
    assert watch_triggers() == [f"{KEY}/slow"]
    assert "times the monolith's" in last_event().reason


def test_a_rollout_is_paused(plan, shell):
    watched_by(ERRORS | {"do": "pause"})
    tick_all(1, shell)
    start_rollout(key=KEY, actor=shell)
    reconcile_all()
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    row = under_way(KEY)
    assert (row.state, weight()) == (RolloutState.PAUSED, 1)
    assert row.paused_because.startswith("Trigger errors: 10.00 %")
    assert watch_triggers() == []


def test_a_rollback_ends_the_rollout(plan, shell):
    watched_by(ERRORS)
    tick_all(1, shell)
    start_rollout(key=KEY, actor=shell)
    reconcile_all()
    serve(100, errors=10)
    watch_triggers()
    assert (weight(), Rollout.objects.get().state) == (0, RolloutState.ENDED)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"do": "tell"}, "Trigger errors: 10.00 % errors of 100 requests (limit: at most 5 % in 30 s)."),
        ({"do": "pause"}, "Trigger errors: 10.00 % errors of 100 requests (limit: at most 5 % in 30 s)."),
        (
            {"do": "rollback", "dry_run": True},
            (
                "Trigger errors: 10.00 % errors of 100 requests (limit: at most 5 % in 30 s). "
                "Dry run: would have done rollback."
            ),
        ),
    ],
)
def test_what_only_tells_moves_nothing_and_tells_once(on, more, said):
    watched_by(ERRORS | more)
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert watch_triggers() == []
    event = last_event()
    assert (event.kind, event.reason, weight()) == (AuditKind.TRIGGER_FIRED, said, 25)
    assert AuditEvent.objects.filter(kind=AuditKind.TRIGGER_FIRED).count() == 1


@pytest.mark.parametrize(("policy", "fires", "left"), [("wait", [], 25), ("tell", ["x"], 25), ("act", ["x"], 0)])
def test_a_whole_window_without_data_is_for_the_policy(on, time_machine, policy, fires, left):
    watched_by(ERRORS | {"on_no_data": policy})
    time_machine.move_to(timezone.now() + timedelta(seconds=29))
    assert watch_triggers() == []
    time_machine.move_to(timezone.now() + timedelta(seconds=2))
    assert watch_triggers() == [f"{KEY}/errors" for _ in fires]
    assert weight() == left
    assert TriggerState.objects.get().value == "too few requests to tell: 0 of 20"


def test_what_could_not_be_done_is_tried_again(on, monkeypatch):
    watched_by(ERRORS)
    serve(100, errors=100)

    def busy(**_):
        raise Busy("Another change has held the plan for too long.")

    with monkeypatch.context() as patch:
        patch.setattr(triggers, "roll_back_flag", busy)
        assert watch_triggers() == []
    assert (weight(), TriggerState.objects.get().state) == (25, Breach.BREACHED)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert weight() == 0


def test_two_triggers_of_one_service_do_one_rollback(on):
    watched_by(ERRORS, {"key": "slow", "when": "latency", "above": 100})
    serve(100, errors=50, milliseconds=500)
    assert watch_triggers() == [f"{KEY}/errors", f"{KEY}/slow"]
    assert AuditEvent.objects.filter(kind=AuditKind.FLAG_ROLLED_BACK).count() == 1


def test_at_100_per_cent_it_is_watched_too(on, shell):
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()
    watched_by(ERRORS)
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert weight() == 0


def test_where_nothing_is_on_it_costs_one_question(plan):
    watched_by(ERRORS)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert watch_triggers() == []
    assert len(asked) == 1


def test_a_person_who_was_quicker_wins(on, shell):
    watched_by(ERRORS)
    serve(100, errors=100)
    roll_back_flag(key=KEY, actor=shell)
    assert watch_triggers() == []
    assert last_event().actor == shell.name


def test_a_gateway_that_fails_over_rolls_back_with_its_reason(on):
    watched_by({"key": "away", "when": "failover"})
    assert watch_triggers() == []
    memory_gateway().down = {"storage"}
    read_once()
    assert watch_triggers() == [f"{KEY}/away"]
    assert "the monolith answers in its place: it takes no connections" in last_event().reason
    assert weight() == 0


def test_a_gateway_that_was_not_seen_lately_tells_nothing(on, time_machine):
    watched_by({"key": "away", "when": "failover"})
    memory_gateway().down = {"storage"}
    read_once()
    time_machine.move_to(timezone.now() + timedelta(seconds=6))
    assert watch_triggers() == []
    assert TriggerState.objects.get().state == Breach.NO_DATA


def test_what_was_measured_before_the_flag_was_moved_again_rolls_nothing_back(on, shell, monkeypatch):
    watched_by(ERRORS)
    serve(100, errors=100)
    fire = triggers._fire

    def after_somebody(look):
        roll_back_flag(key=KEY, actor=shell)
        set_weight(key=KEY, weight=10, actor=shell)
        return fire(look)

    with monkeypatch.context() as patch:
        patch.setattr(triggers, "_fire", after_somebody)
        assert watch_triggers() == []
    assert weight() == 10


def test_a_flapping_service_is_rolled_back_once_and_stays_back(on):
    """Healthy, unhealthy, healthy...: what went back comes on again by a person alone."""
    watched_by({"key": "health", "when": "health", "failures": 2})
    fired = []
    for _ in range(5):
        poll(True, True)
        fired += watch_triggers()
        poll(False, False)
        fired += watch_triggers()
    assert (fired, weight()) == ([f"{KEY}/health"], 0)
    assert AuditEvent.objects.filter(kind=AuditKind.FLAG_ROLLED_BACK).count() == 1


# -- A pause is for the rollout that was measured ---------------------------------------------------------------------


def test_a_rollout_that_went_on_since_it_was_measured_is_not_paused(plan, shell, monkeypatch):
    watched_by(ERRORS | {"do": "pause"})
    tick_all(1, shell)
    start_rollout(key=KEY, actor=shell)
    reconcile_all()
    serve(100, errors=10)
    fire = triggers._fire

    def after_a_step(look):
        step_to(key=KEY, position=1, actor=shell)
        return fire(look)

    with monkeypatch.context() as patch:
        patch.setattr(triggers, "_fire", after_a_step)
        assert watch_triggers() == []
    assert under_way(KEY).state == RolloutState.RUNNING


def test_another_rollout_than_the_one_that_was_measured_is_not_paused(plan, shell):
    tick_all(1, shell)
    start_rollout(key=KEY, actor=shell)
    measured = Flag.objects.get(key=KEY).generation
    roll_back_flag(key=KEY, actor=shell)
    start_rollout(key=KEY, actor=shell)
    with pytest.raises(Stale):
        pause_rollout(key=KEY, actor=shell, measured_at=measured)
    assert under_way(KEY).state == RolloutState.RUNNING


# -- What was told, and what was done ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "left"), [("rollback", 0), ("tell", 25)])
def test_what_told_that_nobody_can_tell_still_fires_when_it_is_breached(on, time_machine, act, left):
    watched_by(ERRORS | {"on_no_data": "tell", "do": act})
    time_machine.move_to(timezone.now() + timedelta(seconds=31))
    assert watch_triggers() == [f"{KEY}/errors"]
    assert watch_triggers() == []
    serve(100, errors=80)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert weight() == left
    assert "80.00 % errors" in last_event().reason
    assert watch_triggers() == []


def test_a_pause_that_found_the_rollout_paused_is_not_spent(plan, shell):
    watched_by(ERRORS | {"do": "pause"})
    tick_all(1, shell)
    start_rollout(key=KEY, actor=shell)
    reconcile_all()
    pause_rollout(key=KEY, actor=shell)
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert last_event().kind == AuditKind.TRIGGER_FIRED
    assert watch_triggers() == []
    resume_rollout(key=KEY, actor=shell)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert under_way(KEY).state == RolloutState.PAUSED
    # A person who goes on all the same is not held up a second time at this weight.
    resume_rollout(key=KEY, actor=shell)
    assert watch_triggers() == []


def test_a_trigger_that_the_plan_has_otherwise_since_fires_by_what_it_says_now(on):
    watched_by(ERRORS | {"dry_run": True})
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert weight() == 25
    watched_by(ERRORS | {"above": 20.0})
    assert watch_triggers() == []
    watched_by(ERRORS)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert weight() == 0


def test_what_another_process_told_meanwhile_is_not_told_again(on, monkeypatch):
    watched_by(ERRORS | {"do": "tell"})
    serve(100, errors=10)
    fire = triggers._fire
    with monkeypatch.context() as patch:
        patch.setattr(triggers, "_fire", lambda look: fire(look) and fire(look))
        assert watch_triggers() == []
    assert AuditEvent.objects.filter(kind=AuditKind.TRIGGER_FIRED).count() == 1


def test_what_could_not_be_done_did_not_fire_and_stops_no_other(on, monkeypatch):
    watched_by(ERRORS, {"key": "slow", "when": "latency", "above": 100, "do": "tell"})
    serve(100, errors=50, milliseconds=500)

    def broken(**_):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(triggers, "roll_back_flag", broken)
        assert watch_triggers() == [f"{KEY}/slow"]
    found = {row.key: (row.fired_at is not None, row.fired_value) for row in TriggerState.objects.all()}
    assert found["errors"] == (False, "")
    assert found["slow"][0]
    assert watch_triggers() == [f"{KEY}/errors"]


def test_the_end_of_the_tasks_time_ends_the_look(on, monkeypatch):
    watched_by(ERRORS)
    serve(100, errors=50)

    def too_late(**_):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(triggers, "roll_back_flag", too_late)
    with pytest.raises(SoftTimeLimitExceeded):
        watch_triggers()


def test_a_trigger_that_cannot_be_read_stops_no_other(on, caplog):
    watched_by({"key": "old", "when": "moon"}, ERRORS)
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert f"a trigger of {KEY} cannot be read" in caplog.text


# -- Several gateways, the clock, and observers that see nothing ------------------------------------------------------


def test_what_one_gateway_runs_is_watched_while_another_is_away(plan, shell):
    """One that does not answer tells neither that there is a failover, by its last word, nor that there is none."""
    load_plan(on_gateways(tracseq(adapter="memory", by_hand=True), "gw-2"), actor=shell, reason="two gateways")
    reconcile_all()
    Service.objects.update(triggers=[])
    tick_all(1, shell)
    memory_gateway("gw-2").answers = False
    set_weight(key=KEY, weight=25, actor=shell)
    reconcile_all()
    watched_by({"key": "away", "when": "failover", "do": "tell"})
    Gateway.objects.filter(key="gw-2").update(failing_over={"storage": "it takes no connections"})
    assert watch_triggers() == []
    assert TriggerState.objects.get().state == Breach.NO_DATA
    Gateway.objects.filter(key="main").update(failing_over={"storage": "it takes no connections"})
    assert watch_triggers() == [f"{KEY}/away"]
    watched_by(ERRORS)
    serve(100, errors=10)
    assert watch_triggers() == [f"{KEY}/errors"]
    assert weight() == 0


def test_old_polls_and_polls_that_could_not_tell_are_no_good_health(on, time_machine, settings):
    watched_by({"key": "health", "when": "health", "failures": 2})
    seen = []
    for healthy in (True, None, True):
        poll(healthy)
        watch_triggers()
        seen.append(TriggerState.objects.get().state)
    time_machine.move_to(timezone.now() + timedelta(seconds=settings.HEALTH_STALE_AFTER + 1))
    watch_triggers()
    seen.append(TriggerState.objects.get().state)
    assert seen == [Breach.OK, Breach.NO_DATA, Breach.OK, Breach.NO_DATA]


def test_what_is_judged_at_100_per_cent_is_compared_with_the_monolith_of_before(on, shell, time_machine):
    watched_by({"key": "slow", "when": "latency", "times": 2.0})
    serve(100, milliseconds=20, side=Side.MONOLITH)
    time_machine.move_to(timezone.now() + timedelta(seconds=5))
    set_weight(key=KEY, weight=100, actor=shell)
    reconcile_all()
    serve(100, milliseconds=30)
    assert watch_triggers() == []
    assert TriggerState.objects.get().state == Breach.OK
    time_machine.move_to(timezone.now() + timedelta(hours=3))
    TrafficSample.objects.all().delete()
    serve(100, milliseconds=200)
    assert watch_triggers() == [f"{KEY}/slow"]
    assert "times the monolith's 20 ms before the weight was changed" in last_event().reason


def test_a_clock_that_was_put_back_keeps_nothing_from_being_judged(on, time_machine):
    health = {"key": "health", "when": "health", "failures": 3, "do": "tell"}
    watched_by(ERRORS | {"do": "tell"}, health, asks(1, do="tell"))
    poll(False, False, False)  # in the future, once it is put back
    time_machine.move_to(timezone.now() - timedelta(hours=1))
    assert watch_triggers() == []
    *_, query = watched()[0].triggers
    row, now = QueryAnswer(flag=Flag.objects.get(key=KEY), key="n", asked=asked_of(query)), timezone.now()
    row.value, row.at, row.past_since = 7, now, now - timedelta(seconds=12)
    row.save()
    serve(100, errors=10)
    poll(False, False, False)
    assert watch_triggers() == [f"{KEY}/errors", f"{KEY}/health", f"{KEY}/n"]


# -- What it costs ----------------------------------------------------------------------------------------------------

EVERY_KIND = [
    ERRORS,
    {"key": "slow", "when": "latency", "times": 2.0, "above": 900},
    {"key": "down", "when": "health"},
    {"key": "away", "when": "failover"},
    {"key": "n", "when": "query", "url": "http://127.0.0.1:1/", "path": "a", "above": 1.0},
]


def test_the_questions_do_not_grow_with_services_weeks_and_triggers(on, shell):
    login = [LOGIN, {"key": "more", "when": "answers", "route": "/api/storage", "times": 2.0}]

    def asked() -> int:
        with CaptureQueriesContext(connection) as found:
            assert watch_triggers() == []
        return len(found)

    watched_by(*EVERY_KIND, *login)
    asked()  # the first look reads the baselines
    small = asked()
    put_behind(1, 2, 3, 4, 5)
    reconcile_all()
    more = [{**row, "key": f"{row['key']}_{number}"} for row in (*EVERY_KIND, *login) for number in range(3)]
    Service.objects.update(triggers=more)
    Week.objects.update(triggers=more)
    asked()
    assert asked() == small
    assert TriggerState.objects.filter(week=None).count() > 100
    assert small <= 11
