"""Triggers on real rows: what they measure, what they do, and that they do it once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions import triggers
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.rollouts import start_rollout, under_way
from migrations_app.actions.triggers import watch_triggers
from migrations_app.choices import ActorKind, AuditKind, Breach, RolloutState
from migrations_app.errors import Busy
from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY, Side
from migrations_app.models import AuditEvent, Flag, HealthSample, Rollout, Service, TrafficSample, TriggerState
from migrations_app.observe.traffic import read_once
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import memory_gateway, tick_all

KEY = "USE_STORAGE_SERVICE"
ERRORS = {"key": "errors", "when": "errors", "above": 5.0, "window": "30s"}


@pytest.fixture
def on(plan, shell):
    """The flag at 25 %, confirmed by the gateway. What watches it is for the test to say, with `watched_by`."""
    tick_all(1, shell)
    set_weight(key=KEY, weight=25, actor=shell)
    reconcile_all()


def watched_by(*rows: dict[str, object], key: str = "storage") -> None:
    Service.objects.filter(key=key).update(triggers=list(rows))


def serve(
    requests: int,
    *,
    errors: int = 0,
    side: Side = Side.SERVICE,
    milliseconds: int = 10,
    at: datetime | None = None,
) -> None:
    latency = list(NO_LATENCY)
    latency[LATENCY_BOUNDS.index(milliseconds)] = requests
    TrafficSample.objects.create(
        service=Service.objects.get(key="storage"),
        side=side.value,
        read_at=at or timezone.now(),
        requests=requests,
        errors=errors,
        latency=latency,
    )


def poll(*healthy: bool | None) -> None:
    for one in healthy:
        HealthSample.objects.create(
            target="storage", polled_at=timezone.now(), healthy=one, error="" if one else "answered 503"
        )


def weight() -> int:
    return Flag.objects.get(key=KEY).weight


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("-id").first()


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
