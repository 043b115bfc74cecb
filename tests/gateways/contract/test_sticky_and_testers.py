"""Users who stay on one side of a split, and testers who choose theirs."""

from __future__ import annotations

import base64
import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest

from migrations_app.gateways.base import (
    Counted,
    Side,
    Sticky,
)
from migrations_app.gateways.errors import (
    InvalidTable,
)

_numbers = itertools.count(1)


def token(**claims: object) -> str:
    """A bearer token that nobody has signed."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmVk"])


STICKY = {
    "header": (Sticky(header="X-Account"), lambda user: {"x-account": user}),
    "cookie": (Sticky(cookie="sid"), lambda user: {"cookie": f"theme=dark; sid={user}; sid2=same"}),
    "claim": (
        Sticky(jwt_claim="sub"),
        lambda user: {"authorization": f"Bearer {token(act={'sub': 'same'}, scope='sub', sub=user, name='é')}"},
    ),
    "numeric claim": (
        Sticky(jwt_claim="uid"),
        lambda user: {"authorization": f"Bearer {token(uid=int(user.rpartition('-')[2]), exp=1)}"},
    ),
}


@pytest.mark.parametrize("kind", STICKY)
def test_a_user_stays_on_one_side_and_a_higher_weight_moves_nobody_back(bench, table, kind):
    sticky, sent = STICKY[kind]
    users = [f"user-{number}" for number in range(200)]
    before: set[str] = set()
    for weight in (10, 30, 60, 90):
        bench.gateway.apply(bench.gateway.render(replace(table(auth=weight), sticky=sticky)))
        turns = [{user: bench.ask("/api/auth/x", method, sent(user)) for user in users} for method in ("GET", "POST")]
        assert turns[0] == turns[1]
        assert set(turns[0].values()) == {("auth", "/auth/x"), ("monolith", "/api/auth/x")}
        new = {user for user, (who, _) in turns[0].items() if who == "auth"}
        assert before <= new
        # Binomial with n=200: five standard deviations are 35 at most.
        assert abs(len(new) - 2 * weight) <= 35
        before = new
        assert bench.gateway.observe().weights["USE_AUTH_SERVICE"] == weight
        assert bench.gateway.observe().drift == ()


@pytest.mark.parametrize("headers", [{}, {"x-account": ""}, {"authorization": "Bearer"}, {"cookie": "x-account=1"}])
def test_requests_without_the_key_are_split_at_random(bench, table, headers):
    bench.gateway.apply(bench.gateway.render(replace(table(auth=30), sticky=Sticky(header="x-account"))))
    seen = Counter(bench.ask("/api/auth/x", "GET", headers) for _ in range(200))
    assert set(seen) == {("auth", "/auth/x"), ("monolith", "/api/auth/x")}
    assert 28 <= seen["auth", "/auth/x"] <= 92  # n=200, p=0.3: five standard deviations are 32


def test_users_stay_on_their_side_when_the_other_fails_over(bench, mortal):
    name = mortal(weight=50, sticky=Sticky(header="x-account"))
    users = [{"x-account": f"user-{number}"} for number in range(30)]
    new = [user for user in users if bench.ask(f"/api/{name}/x", "GET", user)[0] == name]
    assert 0 < len(new) < 30
    bench.kill(name)
    for user in users:
        assert bench.ask(f"/api/{name}/x", "GET", user) == ("monolith", f"/api/{name}/x")
    assert bench.gateway.traffic()[name, Side.SERVICE].failovers == len(new)


SECRET = "open-sesame_0123456789"


@pytest.mark.parametrize("weight", [0, 40, 100])
@pytest.mark.parametrize("sticky", [None, Sticky(header="x-account")])
def test_a_tester_is_sent_to_the_side_that_was_asked_for(bench, table, weight, sticky):
    bench.gateway.apply(bench.gateway.render(replace(table(auth=weight), tester_secret=SECRET, sticky=sticky)))
    for method in ("GET", "POST") * 5:
        for side, seen in (("service", ("auth", "/auth/x")), ("monolith", ("monolith", "/api/auth/x"))):
            asked = {"x-switchyard-side": f"{side} {SECRET}", "x-account": f"user-{method}"}
            assert bench.ask("/api/auth/x", method, asked) == seen
    seen = bench.gateway.observe()
    assert (seen.weights["USE_AUTH_SERVICE"], seen.drift, seen.error) == (weight, (), "")


@pytest.mark.parametrize(
    "value", ["service", "service ", f"service {SECRET}x", f"service  {SECRET}", SECRET, "service x"]
)
def test_any_other_value_is_ignored(bench, table, value):
    bench.gateway.apply(bench.gateway.render(replace(table(auth=0), tester_secret=SECRET)))
    assert bench.ask("/api/auth/x", "GET", {"x-switchyard-side": value})[0] == "monolith"


def test_without_a_secret_nobody_can_choose(bench, run):
    run(auth=0)
    for value in ("service ", "service", f"service {SECRET}"):
        assert bench.ask("/api/auth/x", "GET", {"x-switchyard-side": value})[0] == "monolith"


def test_the_secret_of_testers_is_told_by_nobody(bench, table):
    made = replace(table(auth=30), tester_secret=SECRET)
    rendered = bench.gateway.render(made)
    bench.gateway.apply(rendered)
    assert SECRET not in f"{made!r}{made}{rendered!r}{rendered}"
    bench.edit_running()
    seen = bench.gateway.observe()
    assert seen.drift
    assert SECRET not in repr(seen)
    with pytest.raises(InvalidTable) as refused:
        bench.gateway.render(replace(made, tester_secret="short one!"))
    assert "short one" not in str(refused.value)
    bench.gateway.apply(bench.gateway.render(table()))


def test_a_tester_is_sent_to_a_path_that_is_counted_by_itself(bench, table):
    secret = "a-secret-of-testers"
    made = replace(table(auth=0), tester_secret=secret, counted=(Counted("/api/auth/login"),))
    bench.gateway.apply(bench.gateway.render(made))
    headers = {"x-switchyard-side": f"service {secret}"}
    assert bench.ask("/api/auth/login", headers=headers) == ("auth", "/auth/login")
    assert bench.ask("/api/auth/login") == ("monolith", "/api/auth/login")
    assert bench.gateway.observe().weights["USE_AUTH_SERVICE"] == 0


def test_a_tester_who_asks_for_the_new_side_gets_it_or_its_error_and_never_the_monolith(bench, mortal):
    name = mortal(weight=0, secret=SECRET)
    asked = {"x-switchyard-side": f"service {SECRET}"}
    bench.answer_with(name, 500)
    assert bench.ask(f"/api/{name}/x", "GET", asked) is None
    bench.kill(name)
    for method in ("GET", "POST") * 3:
        assert bench.ask(f"/api/{name}/x", method, asked) is None


def test_what_testers_do_counts_for_nobody_and_takes_no_user_off_the_new_side(bench, mortal):
    name = mortal(weight=100, counted=("", "login"), secret=SECRET)
    bench.answer_with(name, 500)
    for side in Side:
        asked = {"x-switchyard-side": f"{side} {SECRET}"}
        for path, method in itertools.product((f"/api/{name}/x", f"/api/{name}/login"), ("GET", "POST") * 3):
            bench.ask(path, method, asked)
    bench.answer_with(name, 200)
    assert bench.ask(f"/api/{name}/login", "POST") == (name, f"/{name}/login")
    found = bench.gateway.traffic()
    counted = {side: (one.requests, one.errors) for (key, side), one in found.items() if key == name}
    assert counted == {side: (int(side is Side.SERVICE), 0) for side in counted}
    assert sum(one.requests for one in bench.apart(name).values()) == 1
    assert bench.gateway.failing_over() == {}
