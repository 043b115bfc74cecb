"""Weights of one flag: up through the gate, down without one."""

import pytest

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.choices import AuditKind, Health, WeekStatus
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted
from migrations_app.models import AuditEvent, Flag, HealthState, Week
from migrations_app.roles import Role
from tests.factories import make_healthy, tick_all

KEY = "USE_STORAGE_SERVICE"


def weight() -> int:
    return Flag.objects.get(key=KEY).weight


def test_up_in_steps_and_down_again(plan, shell):
    tick_all(1, shell)
    kinds = []
    for wanted in (25, 100, 50, 0):
        change = set_weight(key=KEY, weight=wanted, actor=shell)
        assert weight() == wanted
        kinds.append(change.event.kind)
    assert kinds == [
        AuditKind.FLAG_WEIGHT_SET,
        AuditKind.FLAG_ENABLED,
        AuditKind.FLAG_WEIGHT_SET,
        AuditKind.FLAG_ROLLED_BACK,
    ]
    assert Week.objects.get(number=1).status == WeekStatus.ROLLED_BACK


def test_up_needs_the_gate_and_down_does_not(plan, shell):
    with pytest.raises(GateClosed):
        set_weight(key=KEY, weight=1, actor=shell)
    assert AuditEvent.objects.first().kind == AuditKind.ENABLE_REFUSED
    tick_all(1, shell)
    set_weight(key=KEY, weight=100, actor=shell)
    make_healthy(Health.UNHEALTHY)
    assert set_weight(key=KEY, weight=40, actor=shell).changed
    with pytest.raises(GateClosed):
        set_weight(key=KEY, weight=41, actor=shell)
    assert weight() == 40


def test_only_the_service_of_the_flag_must_be_healthy(plan, shell):
    tick_all(1, shell)
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY)
    assert set_weight(key=KEY, weight=100, actor=shell).changed
    with pytest.raises(GateClosed):
        set_weight(key="USE_RAG_SERVICE", weight=100, actor=shell)


def test_the_same_weight_is_a_no_op(plan, shell):
    tick_all(1, shell)
    set_weight(key=KEY, weight=30, actor=shell)
    events = AuditEvent.objects.count()
    assert set_weight(key=KEY, weight=30, actor=shell).changed is False
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize("wrong", [-1, 101, 1000])
def test_a_weight_outside_0_to_100_is_refused(plan, shell, wrong):
    with pytest.raises(Invalid, match="from 0 to 100"):
        set_weight(key=KEY, weight=wrong, actor=shell)


def test_an_unknown_flag_is_named(plan, shell):
    with pytest.raises(NotFound, match="USE_NOTHING"):
        roll_back_flag(key="USE_NOTHING", actor=shell)


def test_an_approver_may_roll_back_but_not_enable(plan, people, shell):
    tick_all(1, shell)
    set_weight(key=KEY, weight=100, actor=shell)
    approver = people[Role.APPROVER]
    with pytest.raises(NotPermitted):
        set_weight(key="USE_RAG_SERVICE", weight=100, actor=approver)
    assert roll_back_flag(key=KEY, actor=approver).changed
