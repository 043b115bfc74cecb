"""Which side a request goes to, and with which path."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

from migrations_app.gateways.base import (
    Address,
)

_numbers = itertools.count(1)


def test_a_weight_of_0_goes_to_the_monolith_with_the_path_unchanged(bench, run):
    run()
    assert bench.ask("/api/auth/login?next=/api/x") == ("monolith", "/api/auth/login?next=/api/x")


def test_a_weight_of_100_goes_to_the_service_without_the_stripped_part(bench, run):
    run(auth=100)
    assert bench.ask("/api/auth/login?next=/api/x") == ("auth", "/auth/login?next=/api/x")
    assert bench.ask("/api/auth") == ("auth", "/auth")
    assert bench.ask("/api/auth/") == ("auth", "/auth/")
    assert bench.ask("/api/auth?a=1") == ("auth", "/auth?a=1")


def test_a_flip_moves_its_own_prefix_and_nothing_else(bench, run):
    run(auth=100)
    assert bench.ask("/api/storage/x") == ("monolith", "/api/storage/x")
    assert bench.ask("/anything") == ("monolith", "/anything")
    run(storage=100)
    assert bench.ask("/api/storage/x") == ("storage", "/storage/x")
    assert bench.ask("/api/auth/x") == ("monolith", "/api/auth/x")


def test_a_prefix_ends_at_a_segment(bench, run):
    run(auth=100)
    assert bench.ask("/api/authors") == ("monolith", "/api/authors")
    assert bench.ask("/api/auth.json") == ("monolith", "/api/auth.json")


def test_the_longer_prefix_wins(bench, run):
    run(auth=100, users=0)
    assert bench.ask("/api/auth/users/7") == ("monolith", "/api/auth/users/7")
    assert bench.ask("/api/auth/user") == ("auth", "/auth/user")
    run(auth=0, users=100)
    assert bench.ask("/api/auth/users/7") == ("users", "/auth/users/7")
    assert bench.ask("/api/auth/user") == ("monolith", "/api/auth/user")


def test_a_prefix_that_is_all_stripped_leaves_a_root(bench, table):
    made = table(auth=100)
    made = replace(made, routes=(replace(made.routes[0], prefix="/api"),))
    bench.gateway.apply(bench.gateway.render(made))
    assert bench.ask("/api") == ("auth", "/")
    assert bench.ask("/api?a=1") == ("auth", "/?a=1")
    assert bench.ask("/api/login") == ("auth", "/login")


def test_a_route_may_keep_its_whole_path_and_may_take_everything(bench, table):
    made = table(auth=100)
    made = replace(made, routes=(replace(made.routes[0], prefix="/", strip=""),))
    bench.gateway.apply(bench.gateway.render(made))
    assert bench.ask("/api/auth/x") == ("auth", "/api/auth/x")


def test_a_split_sends_each_side_its_own_path_within_statistical_bounds(bench, run):
    run(auth=30)
    seen = Counter(bench.ask("/api/auth/x") for _ in range(400))
    assert set(seen) == {("auth", "/auth/x"), ("monolith", "/api/auth/x")}
    # Binomial with n=400, p=0.3: five standard deviations are 46.
    assert 74 <= seen["auth", "/auth/x"] <= 166


def test_reads_can_move_before_writes_and_writes_before_reads(bench, table):
    made = table(auth=100)
    for weight, writes, side in ((100, 0, "auth"), (0, 100, "monolith")):
        route = replace(made.routes[0], weight=weight, write_weight=writes)
        bench.gateway.apply(bench.gateway.render(replace(table(), routes=(route,))))
        other = {"auth": "monolith", "monolith": "auth"}[side]
        for method in ("GET", "POST", "DELETE"):
            answered = bench.ask("/api/auth/x", method)
            assert answered[0] == (side if method == "GET" else other)
            assert answered[1] == ("/auth/x" if answered[0] == "auth" else "/api/auth/x")
        seen = bench.gateway.observe()
        assert (seen.weights, seen.drift, seen.error) == ({"USE_AUTH_SERVICE": weight}, (), "")


def test_a_share_of_writes_is_split_within_statistical_bounds(bench, table):
    route = replace(table().routes[0], weight=100, write_weight=30)
    bench.gateway.apply(bench.gateway.render(replace(table(), routes=(route,))))
    seen = Counter(bench.ask("/api/auth/x", "POST") for _ in range(400))
    assert set(seen) == {("auth", "/auth/x"), ("monolith", "/api/auth/x")}
    assert 74 <= seen["auth", "/auth/x"] <= 166  # as above
    assert {bench.ask("/api/auth/x") for _ in range(20)} == {("auth", "/auth/x")}


def test_an_empty_plan_sends_everything_to_the_monolith(bench, table):
    bench.gateway.apply(bench.gateway.render(replace(table(), routes=())))
    assert bench.ask("/api/auth") == ("monolith", "/api/auth")
    assert bench.gateway.observe().weights == {}


def test_addresses_of_a_table_print_as_host_and_port():
    assert str(Address("auth", 3010)) == "auth:3010"
    assert str(Address("::1", 3010)) == "[::1]:3010"
