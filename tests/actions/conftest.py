"""Fixtures of the tests of actions."""

from __future__ import annotations

import pytest

from migrations_app.actions.flags import set_weight
from migrations_app.reconcile.loop import reconcile_all
from tests.actions.trigger_scene import KEY
from tests.factories import tick_all


@pytest.fixture
def on(plan, shell):
    """The flag at 25 %, confirmed by the gateway. What watches it is for the test to say, with `watched_by`."""
    tick_all(1, shell)
    set_weight(key=KEY, weight=25, actor=shell)
    reconcile_all()
