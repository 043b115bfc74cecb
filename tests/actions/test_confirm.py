"""A click waits for the gateway's own word."""

import time

from migrations_app.actions.confirm import confirm
from migrations_app.actions.flags import set_weight
from migrations_app.models import Gateway
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
