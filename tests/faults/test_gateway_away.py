"""The gateway itself is away: nobody is told that a change is in force, and it is once the gateway is back."""

from __future__ import annotations

import json
import time
from uuid import uuid4

import pytest

from migrations_app.actions.weeks import enable_week
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Gateway, Plan
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, Browser, System, wait_for, words


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on."""
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    return system


@pytest.fixture(params=["stopped", "hung"])
def away(request, on: System):
    """Ends the gateway, or hangs it. Call what it gives to have it back."""
    if request.param == "stopped":
        on.envoy.stop()
        yield on.envoy.start
    else:
        on.envoy.freeze()
        yield on.envoy.thaw
        on.envoy.thaw()


def test_a_click_is_told_within_two_seconds_that_it_is_not_confirmed(on: System, manager: Browser, away):
    begun = time.monotonic()
    answer = manager.post("/weeks/1/rollback/", request_key=str(uuid4()))
    took = time.monotonic() - begun
    said = words(answer.text)
    assert answer.status_code == 202, said
    assert "Not confirmed yet" in said
    assert "manage.py reconcile" in said
    assert "Applied on the gateway" not in said
    # 2 s of waiting; the answer's page and one look at a gateway that hangs come on top.
    assert took < 3.5
    assert not on.confirmed()
    assert Gateway.objects.get().error
    away()
    wait_for(lambda: reconcile_all()[0].error == "", "a pass after the gateway is back succeeds")
    assert on.served_by() == ON_THE_MONOLITH
    assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ROLLED_BACK).count() == 1
    hold(on, clicks=manager.clicks)


def test_the_shell_leaves_with_four_and_the_command_to_do_it_by_hand(on: System, away):
    done = on.manage("week", "rollback", "1", "--json")
    assert done.returncode == 4, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["changed"], said["confirmed"], said["command"]) == (True, False, "manage.py reconcile")
    assert said["error"]
    # By hand does not lie either.
    assert on.manage("reconcile").returncode == 4
    away()
    wait_for(lambda: on.envoy.ask("/routing-status").status == 200, "the gateway is back")
    assert on.manage("reconcile").returncode == 0
    assert on.served_by() == ON_THE_MONOLITH
    hold(on)


def test_a_gateway_that_starts_again_alone_runs_what_was_committed_while_it_was_away(on: System):
    """The files are written without it, so it needs nobody of us to start with the right table."""
    on.envoy.stop()
    done = on.manage("week", "rollback", "1")
    assert done.returncode == 4
    on.envoy.start(prepared=False)
    assert on.served_by() == ON_THE_MONOLITH
    assert on.status()["generation"] == Plan.objects.get().generation
    assert reconcile_all()[0].error == ""
    hold(on)


def test_a_gateway_that_is_killed_comes_back_with_what_it_ran(on: System):
    on.envoy.stop()
    on.envoy.start()
    assert on.served_by() == ON_THE_SERVICES
    (done,) = reconcile_all()
    assert (done.changed, done.error) == (False, "")
    assert not AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).exists()
    hold(on)
