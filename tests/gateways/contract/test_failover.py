"""The monolith in the place of a service that fails."""

from __future__ import annotations

import itertools

import pytest

from migrations_app.gateways.base import (
    Side,
    SideTraffic,
)
from migrations_app.gateways.errors import (
    Unreachable,
)
from tests.gateways.estate import wait_until

_numbers = itertools.count(1)


@pytest.mark.parametrize("strip", ["/api", ""])
def test_the_monolith_answers_at_once_for_a_service_that_died(bench, mortal, strip):
    name = mortal(strip=strip)
    assert bench.ask(f"/api/{name}/x")[0] == name
    bench.kill(name)
    for method in ("GET", "POST") * 10:
        assert bench.ask(f"/api/{name}/x?a=%2F&b", method) == ("monolith", f"/api/{name}/x?a=%2F&b")
    found = bench.gateway.traffic()
    new = found[name, Side.SERVICE]
    assert (new.requests, new.errors, new.failovers) == (21, 20, 20)
    assert new.retries <= 20
    assert found.get((name, Side.MONOLITH), SideTraffic(0, 0)) == SideTraffic(0, 0)


def test_without_failover_a_service_that_died_is_an_error(bench, mortal):
    name = mortal(failover=False)
    bench.kill(name)
    assert bench.ask(f"/api/{name}/x") is None
    assert bench.ask(f"/api/{name}/x", "POST") is None
    found = bench.gateway.traffic()[name, Side.SERVICE]
    assert (found.requests, found.errors, found.failovers) == (2, 2, 0)


def test_a_failed_read_is_answered_by_the_monolith_and_a_failed_write_is_not_sent_again(bench, mortal):
    name = mortal()
    bench.answer_with(name, 503)
    assert bench.ask(f"/api/{name}/x") == ("monolith", f"/api/{name}/x")
    assert bench.ask(f"/api/{name}/x", "POST") is None
    found = bench.gateway.traffic()[name, Side.SERVICE]
    assert (found.requests, found.errors, found.failovers, found.retries) == (2, 2, 1, 1)


def test_only_what_the_service_answered_itself_counts_in_its_response_times(bench, mortal):
    name = mortal()
    bench.ask(f"/api/{name}/x")
    bench.answer_with(name, 500)
    bench.ask(f"/api/{name}/x")
    bench.ask(f"/api/{name}/x")
    wait_until(lambda: sum(bench.gateway.traffic()[name, Side.SERVICE].latency) >= 1)
    found = bench.gateway.traffic()[name, Side.SERVICE]
    assert (found.requests, found.failovers, sum(found.latency)) == (3, 2, 1)


def test_a_split_fails_over_too_and_counts_each_request_once(bench, mortal):
    name = mortal(weight=50)
    bench.kill(name)
    assert {bench.ask(f"/api/{name}/x") for _ in range(40)} == {("monolith", f"/api/{name}/x")}
    found = bench.gateway.traffic()
    new, old = found[name, Side.SERVICE], found[name, Side.MONOLITH]
    assert new.requests + old.requests == 40
    assert new.failovers == new.errors == new.requests > 0
    assert (old.errors, old.failovers) == (0, 0)


def test_the_gateway_tells_which_services_it_fails_over_for(bench, mortal):
    name = mortal()
    bench.ask(f"/api/{name}/x")
    assert bench.gateway.failing_over() == {}
    bench.kill(name)
    for _ in range(5):
        bench.ask(f"/api/{name}/x")
    wait_until(bench.gateway.failing_over)
    [(told, why)] = bench.gateway.failing_over().items()
    assert told == name
    assert why


def test_a_service_that_is_down_and_that_no_request_is_meant_for_is_not_failed_over_for(bench, mortal):
    name = mortal(weight=0)
    bench.kill(name)
    assert bench.ask(f"/api/{name}/x")[0] == "monolith"
    assert bench.gateway.failing_over() == {}


def test_a_gateway_that_does_not_answer_tells_of_no_failover(bench, run):
    run()
    bench.stop()
    with pytest.raises(Unreachable):
        bench.gateway.failing_over()
