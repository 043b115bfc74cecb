"""What turns a service on past its point of no return says so; rolling it back is never refused for that."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.rollouts import start_rollout, step_to
from migrations_app.actions.week_rollouts import start_week_rollout
from migrations_app.actions.weeks import enable_week
from migrations_app.errors import Invalid
from migrations_app.models import AuditEvent, Flag, Service
from tests.factories import tick_all

KEY, POINT = "USE_RAG_SERVICE", "the index is rebuilt in the new format"
TOLD = f"Point of no return: once RAG service is on, {POINT}. Say that you know it"


@pytest.fixture
def ready(plan, shell):
    """Week 1 with its gate open; one of its three services has a point of no return."""
    tick_all(1, shell)
    Service.objects.filter(key="rag").update(point_of_no_return=POINT)
    return plan


def weights() -> set[int]:
    return set(Flag.objects.filter(week__number=1).values_list("weight", flat=True))


WAYS = {
    "a service": lambda **click: set_weight(key=KEY, weight=100, **click),
    "a part of it": lambda **click: set_weight(key=KEY, weight=1, **click),
    "the week": lambda **click: enable_week(number=1, **click),
    "a rollout": lambda **click: start_rollout(key=KEY, **click),
    "the rollouts of the week": lambda **click: start_week_rollout(number=1, **click),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused_until_somebody_says_that_they_know(ready, shell, way):
    before = AuditEvent.objects.count()
    with pytest.raises(Invalid, match=TOLD):
        WAYS[way](actor=shell)
    assert (weights(), AuditEvent.objects.count()) == ({0}, before)
    change = WAYS[way](actor=shell, past_no_return=True)
    assert change.event.after["past_no_return"] == {"rag": POINT}
    assert Flag.objects.get(key=KEY).weight > 0


def test_once_it_is_passed_nobody_is_asked_again(ready, shell):
    start_rollout(key=KEY, actor=shell, past_no_return=True)
    change = step_to(key=KEY, position=1, actor=shell)
    assert "past_no_return" not in change.event.after
    set_weight(key=KEY, weight=100, actor=shell)
    roll_back_flag(key=KEY, actor=shell)
    with pytest.raises(Invalid, match="Point of no return"):
        set_weight(key=KEY, weight=5, actor=shell)


def test_other_services_need_nothing_said(ready, shell):
    change = set_weight(key="USE_STORAGE_SERVICE", weight=100, actor=shell)
    assert change.event.after == {"USE_STORAGE_SERVICE": 100}


@pytest.mark.parametrize(
    "arguments",
    [
        ["flag", "set", KEY, "5"],
        ["week", "enable", "1"],
        ["rollout", "start", KEY],
        ["rollout", "start", "--week", "1"],
    ],
    ids=" ".join,
)
def test_the_shell_is_held_to_it_too(ready, settings, arguments):
    settings.CONFIRM_WITHIN = 5.0
    with pytest.raises(CommandError, match="Point of no return") as refused:
        call_command(*arguments, stdout=io.StringIO())
    assert refused.value.returncode == 2
    out = io.StringIO()
    call_command(*arguments, "--past-no-return", "--json", stdout=out)
    assert json.loads(out.getvalue())["confirmed"] is True
