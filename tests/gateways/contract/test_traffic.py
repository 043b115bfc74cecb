"""What a gateway counts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from migrations_app.gateways.base import (
    LATENCY_BOUNDS,
    NO_LATENCY,
    Counted,
    Side,
    SideTraffic,
)
from migrations_app.gateways.errors import (
    InvalidTable,
    Unreachable,
)
from tests.gateways.estate import wait_until

_numbers = itertools.count(1)


def test_traffic_counts_requests_by_service_and_side(bench, run):
    def counted(service, side):
        found = bench.gateway.traffic().get((service, side))
        return (found.requests, found.errors) if found else (0, 0)

    run(auth=100)
    new, old = counted("auth", Side.SERVICE), counted("storage", Side.MONOLITH)
    for _ in range(3):
        bench.ask("/api/auth/x")
    for _ in range(2):
        bench.ask("/api/storage/x")
    assert counted("auth", Side.SERVICE) == (new[0] + 3, new[1])
    assert counted("storage", Side.MONOLITH) == (old[0] + 2, old[1])


def test_traffic_tells_of_sides_that_have_a_route_and_no_request_yet(bench, table):
    made = table()
    silent = replace(made.routes[0], service="silent", flag="USE_SILENT_SERVICE", weight=30)
    bench.gateway.apply(bench.gateway.render(replace(made, routes=(silent,))))
    found = bench.gateway.traffic()
    assert {side: found["silent", side] for side in Side} == {side: SideTraffic(0, 0, NO_LATENCY) for side in Side}


def test_traffic_counts_answers_by_how_long_they_took(bench, table):
    def counted():
        found = bench.gateway.traffic().get(("timed", Side.SERVICE))
        return found.latency if found else NO_LATENCY

    # A service of this test alone: Envoy brings response times up to date once a second, so others' may still come.
    made = table(auth=100)
    timed = replace(made.routes[0], service="timed", flag="USE_TIMED_SERVICE")
    bench.gateway.apply(bench.gateway.render(replace(made, routes=(timed,))))
    assert counted() == NO_LATENCY
    bench.ask("/api/auth/x")
    bench.ask("/api/auth/x")
    bench.ask_slow("/api/auth/x", 510)
    wait_until(lambda: sum(counted()) == 3)
    found = dict(zip((*LATENCY_BOUNDS, "above"), counted(), strict=True))
    assert found[750] == 1
    assert sum(found[bound] for bound in LATENCY_BOUNDS if bound <= 300) == 2


@pytest.mark.parametrize("weight", [0, 100])
def test_a_path_below_a_route_is_counted_by_itself_with_its_statuses(bench, table, mortal, weight):
    name = mortal(weight=weight, counted=("login",))
    login, rest = f"/api/{name}/login", f"/api/{name}/else"
    who = name if weight else "monolith"
    assert bench.ask(login, "POST") == (who, login.removeprefix("/api") if weight else login)
    for status in (401, 401, 403, 500):
        bench.answer_with(who, status)
        bench.ask(login, "POST")
        bench.ask(rest, "POST")
    bench.answer_with(who, 200)
    side = Side.SERVICE if weight else Side.MONOLITH
    found = bench.apart(name)
    assert set(found) == {(login, each) for each in Side if (login, each) in found}
    assert (found[login, side].requests, found[login, side].codes) == (5, {401: 2, 403: 1, 500: 1})
    wait_until(lambda: sum(bench.apart(name)[login, side].latency) == 5)
    # And each of them is one of its side's requests.
    assert bench.gateway.traffic()[name, side].requests == 9


def test_each_request_is_counted_by_the_longest_path_and_its_method(bench, table, mortal):
    name = mortal(counted=("", "login", "POST ", "POST login"))
    whole, login = f"/api/{name}", f"/api/{name}/login"
    for path, method in (
        (whole, "GET"),
        (f"{whole}/x", "PUT"),
        (f"{whole}/x", "POST"),
        (f"{login}/x", "GET"),
        (f"{login}", "POST"),
        (f"{login}-page", "GET"),
    ):
        assert bench.ask(path, method) == (name, path.removeprefix("/api"))
    found = {what: one.requests for (what, side), one in bench.apart(name).items() if side is Side.SERVICE}
    assert found == {whole: 3, f"POST {whole}": 1, login: 1, f"POST {login}": 1}


def test_what_is_counted_by_itself_is_split_and_fails_over_like_the_rest(bench, table, mortal):
    name = mortal(weight=50, counted=("login",))
    login = f"/api/{name}/login"
    for _ in range(200):
        bench.ask(login)
    found = {side: bench.apart(name)[login, side].requests for side in Side}
    assert sum(found.values()) == 200
    assert min(found.values()) > 60
    bench.kill(name)
    assert {bench.ask(login) for _ in range(20)} == {("monolith", login)}
    # As clients saw it: nobody saw an error.
    assert [one.codes for one in bench.apart(name).values()] == [{}, {}]


def test_where_nothing_is_counted_by_itself_there_is_nothing_to_tell(bench, run):
    run(storage=100)
    bench.ask("/api/storage/x")
    assert bench.apart("storage") == {}


def test_a_gateway_that_does_not_answer_tells_nothing_of_its_routes(bench, run):
    run()
    bench.stop()
    with pytest.raises(Unreachable):
        bench.gateway.traffic_of_routes()


@pytest.mark.parametrize(
    "wrong",
    [Counted("/api/nowhere"), Counted("api/auth"), Counted("/api/auth/../x"), Counted("/api/auth", "post it")],
)
def test_what_no_gateway_could_count_is_refused(bench, table, wrong):
    with pytest.raises(InvalidTable, match=r"^counted: "):
        bench.gateway.render(replace(table(), counted=(wrong,)))


@pytest.mark.parametrize(("weight", "side"), [(0, Side.MONOLITH), (100, Side.SERVICE)])
def test_answers_of_4xx_are_told_apart_from_errors(bench, mortal, weight, side):
    name = mortal(weight=weight)
    bench.ask(f"/api/{name}/x")
    bench.answer_with(name if side is Side.SERVICE else "monolith", 404)
    bench.ask(f"/api/{name}/x", "POST")
    found = bench.gateway.traffic()[name, side]
    assert (found.requests, found.errors, found.client_errors, found.retries) == (2, 0, 1, 0)


def test_what_no_route_matches_is_counted(bench, run):
    run(auth=100)
    before = bench.gateway.traffic()["", Side.MONOLITH]
    assert bench.ask("/somewhere/else")[0] == "monolith"
    assert bench.gateway.traffic()["", Side.MONOLITH].requests == before.requests + 1
