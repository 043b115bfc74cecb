"""Triggers of a week: judged by its services together, and carried out on all of them."""

from __future__ import annotations

import pytest

from migrations_app.actions import triggers
from migrations_app.actions.flags import set_weight
from migrations_app.actions.rollouts import start_rollout, under_way
from migrations_app.actions.triggers import watch_triggers
from migrations_app.choices import ActorKind, AuditKind, RolloutState
from migrations_app.models import (
    Flag,
    Service,
    TriggerState,
    Week,
)
from migrations_app.observe.traffic import read_once
from migrations_app.reconcile.loop import reconcile_all
from tests.actions.trigger_scene import ERRORS, KEY, last_event, poll, serve
from tests.factories import memory_gateway, tick_all

RAG, NOTIFICATION = "USE_RAG_SERVICE", "USE_NOTIFICATION_SERVICE"


@pytest.fixture
def week_on(on, shell):
    """Two services of week 1 are on; no service has a trigger of its own."""
    Service.objects.update(triggers=[])
    set_weight(key=RAG, weight=50, actor=shell)
    reconcile_all()


def week_watched_by(*rows: dict[str, object]) -> None:
    Week.objects.filter(number=1).update(triggers=list(rows))


def weights() -> dict[str, int]:
    return dict(Flag.objects.filter(week__number=1).values_list("key", "weight"))


def test_a_week_is_judged_by_its_services_together_and_rolled_back_as_a_whole(week_on):
    week_watched_by(ERRORS)
    serve(90, errors=4)
    serve(10, errors=1, service="rag")
    serve(100, errors=100, service="notification")  # which is off
    assert watch_triggers() == []
    assert TriggerState.objects.get().value == "5.00 % errors of 100 requests"
    serve(10, errors=1, service="rag")
    assert watch_triggers() == ["week 1/errors"]
    assert weights() == {KEY: 0, RAG: 0, NOTIFICATION: 0}
    event = last_event()
    assert (event.kind, event.subject, event.actor_kind) == (AuditKind.WEEK_ROLLED_BACK, "week 1", ActorKind.SYSTEM)
    assert event.after["trigger"]["value"] == "5.45 % errors of 110 requests"
    assert watch_triggers() == []


def test_response_times_of_a_week_are_those_of_all_its_services(week_on):
    week_watched_by({"key": "slow", "when": "latency", "above": 100})
    serve(94, milliseconds=10)
    serve(6, milliseconds=500, service="rag")
    assert watch_triggers() == ["week 1/slow"]
    assert set(weights().values()) == {0}


def test_one_unhealthy_service_is_enough_for_a_week(week_on):
    week_watched_by({"key": "health", "when": "health", "failures": 2})
    poll(True, True, True)
    poll(True, False, target="rag")
    poll(False, False, False, target="notification")  # which is off
    assert watch_triggers() == []
    poll(False, target="rag")
    assert watch_triggers() == ["week 1/health"]
    assert "RAG service: 2 failed polls in a row, the last one: answered 503" in last_event().reason


def test_one_service_that_fails_over_is_enough_for_a_week(week_on):
    week_watched_by({"key": "away", "when": "failover"})
    memory_gateway().down = {"rag"}
    read_once()
    assert watch_triggers() == ["week 1/away"]
    assert "RAG service: it takes no connections" in last_event().reason


def test_a_week_of_which_a_flag_was_moved_since_is_not_rolled_back(week_on, shell, monkeypatch):
    week_watched_by(ERRORS)
    serve(100, errors=100)
    fire = triggers._fire

    def after_somebody(look):
        set_weight(key=RAG, weight=60, actor=shell)
        return fire(look)

    with monkeypatch.context() as patch:
        patch.setattr(triggers, "_fire", after_somebody)
        assert watch_triggers() == []
    assert weights() == {KEY: 25, RAG: 60, NOTIFICATION: 0}


def test_a_pause_of_a_week_pauses_every_rollout_of_it(plan, shell):
    Service.objects.update(triggers=[])
    tick_all(1, shell)
    for key in (KEY, RAG):
        start_rollout(key=key, actor=shell)
    reconcile_all()
    week_watched_by(ERRORS | {"do": "pause"})
    serve(100, errors=10)
    assert watch_triggers() == ["week 1/errors"]
    assert [under_way(key).state for key in (KEY, RAG)] == [RolloutState.PAUSED] * 2
    assert weights() == {KEY: 1, RAG: 1, NOTIFICATION: 0}


def test_a_week_without_a_rollout_is_told_of_instead_of_paused(week_on):
    week_watched_by(ERRORS | {"do": "pause"})
    serve(100, errors=10)
    assert watch_triggers() == ["week 1/errors"]
    event = last_event()
    assert (event.kind, event.subject) == (AuditKind.TRIGGER_FIRED, "week 1")
    assert event.after[KEY] == 25


def test_what_no_gateway_has_taken_yet_keeps_the_others_of_its_week_from_nothing(week_on, shell):
    week_watched_by(ERRORS)
    set_weight(key=NOTIFICATION, weight=10, actor=shell)
    serve(100, errors=100, service="notification")  # nobody knows whose errors these are
    serve(90)
    serve(10, errors=3, service="rag")
    assert watch_triggers() == []
    assert TriggerState.objects.get().value == "3.00 % errors of 100 requests"
    serve(10, errors=10, service="rag")
    assert watch_triggers() == ["week 1/errors"]
    assert weights() == {KEY: 0, RAG: 0, NOTIFICATION: 0}
