"""A trigger: breached, within its limit, or not to be told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from migrations_app.choices import Breach
from migrations_app.gates.triggers import (
    Measured,
    Pace,
    Polls,
    Share,
    judge_answers,
    judge_errors,
    judge_health,
    judge_latency,
    judge_query,
)
from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY

MINUTE = timedelta(minutes=1)


def answered(requests: int, milliseconds: int) -> Measured:
    latency = list(NO_LATENCY)
    latency[LATENCY_BOUNDS.index(milliseconds)] = requests
    return Measured(requests, 0, latency)


def polled(healthy: bool | None, failed: int, age: timedelta = timedelta(0)) -> Polls:
    return Polls(healthy, "answered 503", failed, age, trusted_for=MINUTE)


@pytest.mark.parametrize(
    ("polls", "state", "value"),
    [
        (None, Breach.NO_DATA, "no poll since the weight was changed"),
        (polled(True, 0), Breach.OK, "0 failed polls in a row"),
        (polled(False, 2), Breach.OK, "2 failed polls in a row"),
        (polled(False, 3), Breach.BREACHED, "3 failed polls in a row, the last one: answered 503"),
        (polled(False, 3, MINUTE), Breach.BREACHED, "3 failed polls in a row, the last one: answered 503"),
        (polled(True, 0, 2 * MINUTE), Breach.NO_DATA, "not polled for 2 min"),
        (polled(False, 3, 2 * MINUTE), Breach.NO_DATA, "not polled for 2 min"),
        (polled(None, 0), Breach.NO_DATA, "the last poll could not tell: answered 503"),
    ],
)
def test_health(polls, state, value):
    found = judge_health(polls, failures=3)
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
    assert judge_latency(new, old, Pace(), above=above, times=times, window=MINUTE, requests=20).state == state


def test_latency_tells_both_sides_and_both_limits():
    found = judge_latency(answered(20, 150), answered(20, 50), Pace(), above=500, times=2, window=MINUTE, requests=20)
    assert found.limit == "p95 at most 500 ms and 2 times the monolith's in 1 min"
    assert found.value.startswith("p95 ")
    assert "times the monolith's" in found.value
    found = judge_latency(answered(20, 150), answered(3, 50), Pace(), above=500, times=2, window=MINUTE, requests=20)
    assert found.value.endswith("the monolith has too few requests to compare with: 3")


@pytest.mark.parametrize(
    ("old", "before", "state", "value"),
    [
        # At 100 % the monolith serves nothing any more: what it did before stands in for it.
        (Measured(), Pace(20, 50), Breach.BREACHED, " times the monolith's 50 ms before the weight was changed"),
        (answered(19, 750), Pace(20, 50), Breach.BREACHED, " times the monolith's 50 ms before the weight was changed"),
        (Measured(), Pace(20, 140), Breach.OK, " times the monolith's 140 ms before the weight was changed"),
        # As long as it serves enough it is asked itself: all may be slower than before.
        (answered(20, 150), Pace(20, 20), Breach.OK, "1.0 times the monolith's 148 ms"),
        (Measured(), Pace(19, 50), Breach.NO_DATA, "the monolith has too few requests to compare with: 0"),
        (Measured(), Pace(20, None), Breach.NO_DATA, "the monolith has too few requests to compare with: 0"),
    ],
)
def test_the_monolith_of_before_stands_in_for_one_without_requests(old, before, state, value):
    found = judge_latency(answered(20, 150), old, before, above=None, times=2, window=MINUTE, requests=20)
    assert found.state == state
    assert found.value.endswith(value)


@pytest.mark.parametrize(
    ("new", "old", "slower_ms", "state"),
    [
        (answered(20, 75), answered(20, 20), 0, Breach.BREACHED),
        (answered(20, 75), answered(20, 20), 100, Breach.OK),
        (answered(20, 150), answered(20, 20), 100, Breach.BREACHED),
        # Slower by more than that, but not so many times.
        (answered(20, 750), answered(20, 500), 100, Breach.OK),
    ],
)
def test_what_nobody_feels_is_not_slower(new, old, slower_ms, state):
    found = judge_latency(new, old, Pace(), above=None, times=2, window=MINUTE, requests=20, slower_ms=slower_ms)
    assert found.state == state


NONE = Share(0, 0)


@pytest.mark.parametrize(
    ("shares", "above", "times", "state", "value"),
    [
        ((Share(19, 19), NONE), 20, None, Breach.NO_DATA, "too few requests to tell: 19 of 20"),
        ((Share(20, 4), NONE), 20, None, Breach.OK, "20.00 % of 20 requests"),
        ((Share(20, 5), NONE), 20, None, Breach.BREACHED, "25.00 % of 20 requests"),
        ((Share(100, 30), Share(100, 10)), None, 3.0, Breach.OK, "30.00 % of 100 requests, before 10.00 % of 100"),
        (
            (Share(100, 31), Share(100, 10)),
            None,
            3.0,
            Breach.BREACHED,
            "31.00 % of 100 requests, before 10.00 % of 100",
        ),
        # No baseline: the fixed limit alone decides, and without one nothing does.
        (
            *((Share(100, 90), Share(19, 0)), None, 3.0, Breach.NO_DATA),
            "90.00 % of 100 requests; too few requests before to compare with: 19",
        ),
        (
            *((Share(100, 90), Share(19, 0)), 20, 3.0, Breach.BREACHED),
            "90.00 % of 100 requests; too few requests before to compare with: 19",
        ),
        # A baseline of none is taken as one of its requests.
        (
            *((Share(100, 3), Share(100, 0)), None, 3.0, Breach.OK),
            "3.00 % of 100 requests, before 0.00 % of 100, taken as 1.00 %",
        ),
        (
            *((Share(100, 4), Share(100, 0)), None, 3.0, Breach.BREACHED),
            "4.00 % of 100 requests, before 0.00 % of 100, taken as 1.00 %",
        ),
        # With both, either is enough.
        ((Share(100, 25), Share(100, 20)), 20, 3.0, Breach.BREACHED, "25.00 % of 100 requests, before 20.00 % of 100"),
    ],
)
def test_answers_of_a_route(shares, above, times, state, value):
    found = judge_answers(*shares, codes="401", above=above, times=times, window=MINUTE, requests=20)
    assert (found.state, found.value) == (state, value)


@pytest.mark.parametrize(
    ("value", "error", "past_for", "state", "told"),
    [
        (None, "", None, Breach.NO_DATA, "not asked since the weight was changed"),
        (None, "the answer is no JSON", None, Breach.NO_DATA, "the answer is no JSON"),
        (3.0, "", None, Breach.OK, "3"),
        (7.5, "", timedelta(seconds=59), Breach.OK, "7.5, past it for 59 s"),
        (7.5, "", timedelta(seconds=60), Breach.BREACHED, "7.5, past it for 1 min"),
    ],
)
def test_a_number_of_others(value, error, past_for, state, told):
    found = judge_query(value, error, past_for, limits="at most 5", window=MINUTE)
    assert (found.state, found.value, found.limit) == (state, told, "at most 5 for 1 min")
