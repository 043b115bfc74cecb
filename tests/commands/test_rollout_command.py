"""`manage.py rollout`: the whole way in a shell, and what it refuses."""

from __future__ import annotations

import pytest

from migrations_app.models import Flag
from tests.commands.test_commands import as_json, run
from tests.factories import tick_all

KEY = "USE_STORAGE_SERVICE"


@pytest.fixture(autouse=True)
def _confirm_quickly(settings):
    settings.CONFIRM_WITHIN = 2.0
    settings.CELERY_BROKER_URL = ""


@pytest.fixture
def ready(plan, shell):
    tick_all(1, shell)


def weight() -> int:
    return Flag.objects.get(key=KEY).weight


@pytest.mark.django_db(transaction=True)
def test_the_whole_way(ready):
    assert run("rollout", "list")[1] == "No rollout is under way.\n"
    status, out, _ = run("rollout", "start", KEY)
    assert status == 0
    assert out.startswith(f"The rollout of {KEY} is under way. Applied on the gateway in")
    status, out, _ = run("rollout", "show", KEY)
    assert out.splitlines()[0] == f"{KEY} is at step 1 of 5 (1 %), running"
    assert "at least 10 min" in out
    assert run("rollout", "jump", KEY, "4")[0] == 0
    assert weight() == 50
    assert run("rollout", "back", KEY)[0] == 0
    assert run("rollout", "show", KEY)[1].splitlines()[0].startswith(f"{KEY} is at step 3 of 5 (25 %), paused: ")
    assert run("rollout", "resume", KEY)[1] == f"The rollout of {KEY} goes on.\n"
    assert run("rollout", "pause", KEY, "--reason", "lunch")[1] == f"The rollout of {KEY} is paused.\n"
    [row] = as_json("rollout", "list")
    assert (row["flag"], row["state"], row["step"], row["weight"]) == (KEY, "paused", "3 of 5", 25)
    assert run("rollout", "abort", KEY)[0] == 0
    assert weight() == 0
    [row] = as_json("rollout", "list", "--all")
    assert (row["state"], row["why"]) == ("ended", "the flag was moved to 0 % by other means")


def test_a_closed_gate_leaves_with_3(plan):
    status, _, err = run("rollout", "start", KEY)
    assert status == 3
    assert "the gate of week 1 is closed" in err
    assert weight() == 0


@pytest.mark.parametrize("verb", ["show", "pause", "resume", "back", "abort"])
def test_what_is_not_under_way_leaves_with_2(plan, verb):
    status, _, err = run("rollout", verb, KEY)
    assert status == 2
    assert "is under way" in err


def test_a_step_that_is_none_leaves_with_2(ready):
    run("rollout", "start", KEY)
    status, _, err = run("rollout", "jump", KEY, "6")
    assert (status, "the steps 1 to 5, not 6" in err) == (2, True)
