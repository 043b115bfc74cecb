"""`rollback_rehearsed` on real rehearsals."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.rehearsals import rehearse_rollback
from migrations_app.choices import CheckState
from migrations_app.gates.checks.rollback_rehearsed import rollback_rehearsed
from migrations_app.models import AuditEvent, Confirmation, Service
from migrations_app.observe.checks import run_probe
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import memory_gateway
from tests.gates.checks.scene import scene

WITHIN = {"within": "1h", "under": "2s"}


def check(week=1, *, later=timedelta(0), parameters=WITHIN):
    return rollback_rehearsed(parameters, scene(week, timezone.now() + later))


@pytest.fixture
def rehearsed(plan, shell) -> AuditEvent:
    change = rehearse_rollback(number=1, actor=shell)
    reconcile_all()
    return change.event


def test_a_rehearsal_that_the_gateway_has_confirmed_holds(rehearsed):
    found = check(later=timedelta(minutes=20))
    assert found.state == CheckState.HELD
    assert found.value.startswith("rehearsed 20 min ago, confirmed in ")
    assert found.value.endswith(" ms")
    assert (found.limit, found.act, found.since) == ("in the last 1 h, confirmed within 2 s", "", rehearsed.at)


def test_never_rehearsed_says_the_command(plan):
    found = check(3)
    assert (found.state, found.value) == (CheckState.NOT_HELD, "never rehearsed")
    assert found.act == "Rehearse it: manage.py week rehearse 3"


def test_a_rehearsal_of_another_week_does_not_count(rehearsed):
    assert check(2).value == "never rehearsed"


def test_one_that_is_too_old_does_not_hold(rehearsed):
    found = check(later=timedelta(hours=2))
    assert (found.state, found.value) == (CheckState.NOT_HELD, "rehearsed 2 h ago")


def test_a_change_of_what_the_week_moves_voids_it(rehearsed):
    Service.objects.filter(key="rag").update(port=4321)
    found = check()
    assert found.state == CheckState.NOT_HELD
    assert found.value.endswith("but the week's flags, routes or upstreams have changed since")


def test_one_that_the_gateway_did_not_confirm_does_not_hold_until_it_does(plan, shell):
    memory_gateway().answers = False
    rehearse_rollback(number=1, actor=shell)
    reconcile_all()
    found = check()
    assert (found.state, found.value) == (
        CheckState.NOT_HELD,
        "rehearsed 0 s ago, but not every gateway has confirmed it",
    )
    memory_gateway().answers = True
    reconcile_all()
    assert check().state == CheckState.HELD


def test_one_that_took_too_long_does_not_hold(rehearsed):
    Confirmation.objects.filter(generation=rehearsed.generation).update(
        confirmed_at=rehearsed.at + timedelta(seconds=3)
    )
    found = check()
    assert (found.state, found.value) == (CheckState.NOT_HELD, "rehearsed 0 s ago, confirmed in 3,000 ms")
    assert check(parameters={"within": "1h", "under": "3s"}).state == CheckState.HELD


def test_a_clock_that_was_put_back_meanwhile_tells_nothing(rehearsed):
    Confirmation.objects.filter(generation=rehearsed.generation).update(confirmed_at=rehearsed.at - timedelta(hours=1))
    found = check()
    assert found.state == CheckState.NOT_HELD
    assert "a clock was put back" in found.value


def test_a_later_rehearsal_that_failed_is_the_one_that_counts(rehearsed, shell):
    assert check().state == CheckState.HELD
    memory_gateway().answers = False
    rehearse_rollback(number=1, actor=shell)
    assert check().state == CheckState.NOT_HELD


def test_nonsense_is_refused(plan):
    row = type("Row", (), {"check_name": "rollback_rehearsed", "parameters": {"within": "soon"}})()
    assert run_probe(row, scene(1, timezone.now())).value.startswith("its parameters make no sense")
