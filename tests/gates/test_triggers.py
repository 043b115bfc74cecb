"""A trigger: breached, within its limit, or not to be told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from migrations_app.choices import Breach
from migrations_app.gates.triggers import Measured, judge_errors, judge_health, judge_latency
from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY

MINUTE = timedelta(minutes=1)


def answered(requests: int, milliseconds: int) -> Measured:
    latency = list(NO_LATENCY)
    latency[LATENCY_BOUNDS.index(milliseconds)] = requests
    return Measured(requests, 0, latency)


@pytest.mark.parametrize(
    ("failed", "polls", "state", "value"),
    [
        (0, 0, Breach.NO_DATA, "no poll since the weight was changed"),
        (0, 3, Breach.OK, "0 failed polls in a row"),
        (2, 2, Breach.OK, "2 failed polls in a row"),
        (3, 3, Breach.BREACHED, "3 failed polls in a row, the last one: answered 503"),
    ],
)
def test_health(failed, polls, state, value):
    found = judge_health(failed, polls, failures=3, last_error="answered 503")
    assert (found.state, found.value, found.limit) == (state, value, "fewer than 3 failed polls in a row")


@pytest.mark.parametrize(
    ("requests", "errors", "state", "value"),
    [
        (0, 0, Breach.NO_DATA, "too few requests to tell: 0 of 20"),
        (19, 19, Breach.NO_DATA, "too few requests to tell: 19 of 20"),
        (20, 1, Breach.OK, "5.00 % errors of 20 requests"),
        (2000, 101, Breach.BREACHED, "5.05 % errors of 2,000 requests"),
    ],
)
def test_errors(requests, errors, state, value):
    found = judge_errors(Measured(requests, errors), above=5, window=MINUTE, requests=20)
    assert (found.state, found.value, found.limit) == (state, value, "at most 5 % in 1 min")


def test_no_error_is_allowed_where_the_limit_is_0():
    judged = [judge_errors(Measured(100, errors), above=0, window=MINUTE, requests=20).state for errors in (0, 1)]
    assert judged == [Breach.OK, Breach.BREACHED]


@pytest.mark.parametrize(
    ("new", "old", "above", "times", "state"),
    [
        (answered(20, 100), Measured(), 100, None, Breach.OK),
        (answered(20, 150), Measured(), 100, None, Breach.BREACHED),
        (answered(19, 150), Measured(), 100, None, Breach.NO_DATA),
        (Measured(20, 20, NO_LATENCY), Measured(), 100, None, Breach.NO_DATA),  # none was answered
        (answered(20, 75), answered(20, 50), None, 2.0, Breach.OK),
        (answered(20, 150), answered(20, 50), None, 2.0, Breach.BREACHED),
        (answered(20, 150), answered(19, 50), None, 2.0, Breach.NO_DATA),
        (answered(20, 150), Measured(), None, 2.0, Breach.NO_DATA),
        # Without a baseline the fixed limit alone decides.
        (answered(20, 150), Measured(), 100, 2.0, Breach.BREACHED),
        (answered(20, 50), Measured(), 100, 2.0, Breach.OK),
        # With both, either is enough.
        (answered(20, 150), answered(20, 150), 100, 2.0, Breach.BREACHED),
        (answered(20, 75), answered(20, 20), 100, 2.0, Breach.BREACHED),
    ],
)
def test_latency(new, old, above, times, state):
    assert judge_latency(new, old, above=above, times=times, window=MINUTE, requests=20).state == state


def test_latency_tells_both_sides_and_both_limits():
    found = judge_latency(answered(20, 150), answered(20, 50), above=500, times=2, window=MINUTE, requests=20)
    assert found.limit == "p95 at most 500 ms and 2 times the monolith's in 1 min"
    assert found.value.startswith("p95 ")
    assert "times the monolith's" in found.value
    found = judge_latency(answered(20, 150), answered(3, 50), above=500, times=2, window=MINUTE, requests=20)
    assert found.value.endswith("the monolith has too few requests to compare with: 3")
