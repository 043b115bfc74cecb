"""A pass straight after a change applies at once; every other pass looks at the gateway first."""

from __future__ import annotations

import pytest

from migrations_app.actions.flags import set_weight
from migrations_app.models import Gateway
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import memory_gateway, tick_all


@pytest.fixture
def looks(plan, monkeypatch) -> list[int]:
    """One entry for each look at the gateway."""
    adapter, made = memory_gateway(), []
    observe = adapter.observe
    monkeypatch.setattr(adapter, "observe", lambda: (made.append(1), observe())[1])
    return made


def enable(people) -> int:
    manager = people[Role.RELEASE_MANAGER]
    tick_all(1, manager)
    return set_weight(key="USE_STORAGE_SERVICE", weight=100, actor=manager).generation


def test_a_change_is_applied_without_a_look(looks, people):
    generation = enable(people)
    [done] = reconcile_all()
    assert (done.generation, done.changed, done.error) == (generation, True, "")
    assert not looks
    assert Gateway.objects.get().observed_generation == generation


def test_a_pass_with_nothing_new_looks(looks):
    reconcile_all()
    assert looks


def test_a_gateway_that_was_in_trouble_is_looked_at_first(looks, people):
    enable(people)
    Gateway.objects.update(error="it did not answer")
    [done] = reconcile_all()
    assert looks
    assert done.changed
