"""One step of a rollout: what it waits for, what fails it, and what is too little to tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from migrations_app.choices import Health
from migrations_app.gates.steps import SeenStep, judge_step

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
GOOD = SeenStep(
    now=NOW,
    weight=25,
    hold=timedelta(minutes=10),
    wanted_requests=100,
    since=NOW - timedelta(minutes=10),
    requests=100,
    errors=5,
    p95=200.0,
    error_rate=5.0,
    p95_limit=200.0,
    health=Health.HEALTHY,
    health_error="",
)


def verdict(**values):
    return judge_step(replace(GOOD, **values))


def test_at_every_limit_it_is_ready():
    assert verdict().ready
    assert [(line.title, line.value) for line in verdict().lines] == [
        ("Applied", "since 10 min"),
        ("Time", "10 min"),
        ("Requests", "100"),
        ("Errors", "5.00 % of 100 requests"),
        ("Response time (p95)", "200 ms"),
        ("Health", "healthy"),
    ]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"since": None}, "Applied"),
        ({"away": ("gw-2", "gw-3")}, "Applied"),
        ({"since": NOW - timedelta(minutes=9, seconds=59)}, "Time"),
        ({"since": NOW + timedelta(minutes=1)}, "Time"),  # a clock that was put back
        ({"requests": 99, "errors": 4}, "Requests"),
        ({"health": Health.UNKNOWN, "health_error": "the last poll was 40 s ago"}, "Health"),
    ],
)
def test_what_is_waited_for_does_not_fail_it(values, line):
    found = verdict(**values)
    assert not found.ready
    assert line in [one.title for one in found.lines if not one.held]
    assert found.failures == ()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"errors": 6}, "Errors: 6.00 % of 100 requests (limit: at most 5 %)."),
        ({"p95": 201.0}, "Response time (p95): 201 ms (limit: at most 200 ms)."),
        (
            {"health": Health.UNHEALTHY, "health_error": "answered 503, expected 200"},
            "Health: unhealthy: answered 503, expected 200 (limit: healthy).",
        ),
    ],
)
def test_what_fails_it_says_the_value_and_the_limit(values, sentence):
    found = verdict(**values)
    assert not found.ready
    assert found.why_failed() == sentence


def test_several_failures_are_told_together():
    told = verdict(errors=50, p95=900.0).why_failed()
    assert (
        told
        == "Errors: 50.00 % of 100 requests (limit: at most 5 %); response time (p95): 900 ms (limit: at most 200 ms)."
    )


@pytest.mark.parametrize("requests", [0, 19])
def test_too_few_requests_neither_fail_it_nor_hold_it_up(requests):
    found = verdict(requests=requests, errors=requests, p95=9000.0, wanted_requests=0)
    assert found.ready
    assert f"too few requests to tell: {requests}" in [line.value for line in found.lines]


def test_without_a_limit_of_response_time_there_is_no_such_line():
    assert "Response time (p95)" not in [line.title for line in verdict(p95_limit=None).lines]
