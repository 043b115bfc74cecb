"""A click waits for the gateway's own word."""

import time
from datetime import timedelta

from django.db import OperationalError
from django.utils import timezone

from migrations_app.actions.confirm import confirm
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.models import Gateway
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import memory_gateway, tick_all

KEY = "USE_RAG_SERVICE"


def change(shell):
    tick_all(1, shell)
    return set_weight(key=KEY, weight=100, actor=shell)


def test_with_no_worker_this_process_reconciles_after_the_head_start(plan, shell, settings):
    settings.WORKER_HEAD_START = 0.1
    done = change(shell)
    begun = time.monotonic()
    outcome = confirm(done.generation, event=done.event)
    assert outcome.confirmed
    assert time.monotonic() - begun >= 0.1
    assert outcome.sentence().startswith("Applied on the gateway in ")
    assert memory_gateway().observe().weights[KEY] == 100


def test_a_gateway_that_is_away_is_said_within_the_limit_with_the_command(plan, shell, settings):
    settings.CONFIRM_WITHIN, settings.WORKER_HEAD_START = 0.3, 0.05
    memory_gateway().answers = False
    done = change(shell)
    outcome = confirm(done.generation, event=done.event)
    assert not outcome.confirmed
    assert Gateway.objects.get().error in outcome.sentence()
    assert outcome.sentence().endswith("manage.py reconcile")


def test_what_already_runs_is_confirmed_at_once(plan):
    outcome = confirm(Gateway.objects.get().observed_generation)
    assert outcome.confirmed
    assert outcome.sentence() == "The gateway already runs this."


def test_a_change_that_another_has_undone_meanwhile_is_not_called_applied(plan, shell):
    done = change(shell)
    roll_back_flag(key=KEY, actor=shell)
    reconcile_all()
    outcome = confirm(done.generation, event=done.event)
    assert outcome.sentence() == f"But another change has come meanwhile: {KEY} is at 0 % now."


def test_a_change_of_another_flag_overtakes_nothing(plan, shell):
    done = change(shell)
    set_weight(key="USE_STORAGE_SERVICE", weight=100, actor=shell)
    reconcile_all()
    assert confirm(done.generation, event=done.event).overtaken == ""


def test_what_was_seen_long_ago_confirms_nothing(plan, shell, settings):
    settings.CONFIRM_WITHIN, settings.WORKER_HEAD_START = 0.3, 0.05
    memory_gateway().answers = False
    long_ago = timezone.now() - timedelta(minutes=5)
    Gateway.objects.update(observed_at=long_ago)
    generation = Gateway.objects.get().observed_generation
    outcome = confirm(generation)
    assert not outcome.confirmed
    assert "does not answer" in outcome.sentence()


def test_a_gateway_with_an_error_confirms_nothing(plan, settings):
    settings.CONFIRM_WITHIN, settings.WORKER_HEAD_START = 0.1, 10
    Gateway.objects.update(error="It refuses.")
    assert "It refuses." in confirm(Gateway.objects.get().observed_generation).sentence()


def test_a_database_that_goes_away_after_the_commit_is_not_called_a_change_undone(plan, monkeypatch):
    def away():
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr("migrations_app.actions.confirm.reconcile_all", away)
    memory_gateway().answers = False
    Gateway.objects.update(observed_generation=None)
    outcome = confirm(5, head_start=0.0)
    assert not outcome.confirmed
    assert outcome.sentence().startswith(
        "Stored, but not confirmed by the gateway: the database does not answer any more"
    )
