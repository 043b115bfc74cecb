"""Triggers on numbers of others: asked for by themselves, and never taken for more than they are."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from migrations_app.actions.flags import set_weight
from migrations_app.actions.triggers import watch_triggers
from migrations_app.choices import AuditKind, Breach
from migrations_app.models import (
    Flag,
    QueryAnswer,
    TriggerState,
)
from migrations_app.observe.queries import ask_queries, asked_of
from migrations_app.observe.watched import watched
from migrations_app.reconcile.loop import reconcile_all
from tests.actions.trigger_scene import ERRORS, KEY, asks, last_event, serve, watched_by, weight
from tests.observe.web import head, serving


def answers(value: object) -> tuple[bytes, bytes]:
    body = f'{{"failed": {value}}}'.encode()
    return head("200 OK", len(body)), body


def test_a_number_of_others_that_stays_past_its_limit_rolls_back(on, time_machine):
    with serving(*answers(7)) as port:
        watched_by(asks(port))
        begun = timezone.now()
        seen = []
        for seconds in (1, 6, 11):
            time_machine.move_to(begun + timedelta(seconds=seconds), tick=False)
            ask_queries()
            seen.append((watch_triggers(), TriggerState.objects.get().value))
    assert seen == [
        ([], "7, past it for 0 s"),
        ([], "7, past it for 5 s"),
        ([f"{KEY}/n"], "7, past it for 10 s"),
    ]
    assert last_event().reason == "Trigger n: 7, past it for 10 s (limit: at most 5 for 10 s)."
    assert weight() == 0


def test_what_was_past_its_limit_before_the_change_counts_from_the_change_on(on, shell, time_machine):
    with serving(*answers(7)) as port:
        watched_by(asks(port))
        begun = timezone.now()
        time_machine.move_to(begun + timedelta(seconds=1))
        ask_queries()
        time_machine.move_to(begun + timedelta(seconds=9))
        set_weight(key=KEY, weight=50, actor=shell)
        reconcile_all()
        assert watch_triggers() == []
        assert TriggerState.objects.get().value == "not asked since the weight was changed"
        time_machine.move_to(begun + timedelta(seconds=12))
        ask_queries()
        assert watch_triggers() == []
        time_machine.move_to(begun + timedelta(seconds=20))
        ask_queries()
        assert watch_triggers() == [f"{KEY}/n"]


@pytest.mark.parametrize("value", ['"NaN"', "null"])
def test_no_number_is_no_data_and_old_answers_are_none(on, time_machine, value):
    with serving(*answers(value)) as port:
        watched_by(asks(port, on_no_data="tell"))
        begun = timezone.now()
        time_machine.move_to(begun + timedelta(seconds=1))
        ask_queries()
        for seconds in (1, 6):
            time_machine.move_to(begun + timedelta(seconds=seconds))
            assert watch_triggers() == []
            assert TriggerState.objects.get().state == Breach.NO_DATA
        time_machine.move_to(begun + timedelta(seconds=12))
        assert watch_triggers() == [f"{KEY}/n"]
    assert (last_event().kind, weight()) == (AuditKind.TRIGGER_FIRED, 25)
    QueryAnswer.objects.update(value=7, error="", past_since=begun)
    time_machine.move_to(begun + timedelta(seconds=20))
    watch_triggers()
    assert TriggerState.objects.get().value == "not asked for 19 s"


def test_one_answer_without_a_number_and_a_worker_that_was_away_are_no_silent_window(on, time_machine):
    """Of a flag that has been on for hours."""
    watched_by(asks(1, on_no_data="act"))
    (trigger,), begun = watched()[0].triggers, timezone.now() + timedelta(hours=2)
    row = QueryAnswer(flag=Flag.objects.get(key=KEY), key="n", asked=asked_of(trigger))
    found = []
    # Second, and what was answered then.
    for second, value in ((0, 3), (5, None), (10, 3), (40, None), (45, None), (50, None)):
        time_machine.move_to(begun + timedelta(seconds=second), tick=False)
        if second == 40:
            assert watch_triggers() == []  # nobody has asked for half a minute, or looked
        row.at, row.value, row.error = timezone.now(), value, "" if value else "answered 503"
        row.save()
        found.append(watch_triggers())
    assert found == [[], [], [], [], [], [f"{KEY}/n"]]
    assert weight() == 0


@pytest.mark.django_db(transaction=True)
def test_a_question_that_hangs_holds_up_no_other_trigger(on, settings):
    """By order: the rollback is there while the question is still out."""
    settings.QUERY_WITHIN = 60.0
    asked, done = threading.Event(), threading.Event()

    def ask() -> None:
        try:
            ask_queries()
        finally:
            connection.close()
            done.set()

    with serving(hold=True, asked=lambda _: asked.set()) as port:
        watched_by(ERRORS, asks(port))
        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(30)
        serve(100, errors=100)
        assert watch_triggers() == [f"{KEY}/errors"]
        assert (weight(), done.is_set()) == (0, False)
    thread.join(30)
    assert done.is_set()
    assert QueryAnswer.objects.get().value is None
