"""What no gateway could express is refused with the route and the field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migrations_app.gateways.base import Address, Route, RoutingTable, Side, Sticky
from migrations_app.gateways.errors import InvalidTable
from migrations_app.gateways.tables import check, longest_first, stripped

AUTH = Route("auth", "USE_AUTH", "/api/auth", Address("auth", 3010), 0)
TABLE = RoutingTable("p", 1, Address("127.0.0.1", 3000), (AUTH,))


def test_a_plain_table_passes():
    check(TABLE)
    check(replace(TABLE, routes=(replace(AUTH, prefix="/", strip=""),)))
    check(replace(TABLE, routes=(AUTH, replace(AUTH, prefix="/api/login"))))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weight": 101}, "weight 101"),
        ({"weight": -1}, "weight -1"),
        ({"weight": 1.5}, "weight 1.5"),
        ({"weight": True}, "weight True"),
        ({"write_weight": 101}, "write_weight 101"),
        ({"write_weight": -1}, "write_weight -1"),
        ({"write_weight": True}, "write_weight True"),
        ({"write_weight": 0.5}, "write_weight 0.5"),
        ({"prefix": "api/auth"}, "prefix 'api/auth'"),
        ({"prefix": "/api/auth/"}, "prefix '/api/auth/'"),
        ({"prefix": "/api//auth"}, "prefix '/api//auth'"),
        ({"prefix": "/api/../auth"}, "prefix '/api/../auth'"),
        ({"prefix": "/api/%61uth"}, "prefix '/api/%61uth'"),
        ({"prefix": "/api/auth?x"}, r"prefix '/api/auth\?x'"),
        ({"prefix": ""}, "prefix ''"),
        ({"prefix": "/health", "strip": ""}, "answered by the gateway itself"),
        ({"strip": "/ap"}, "strip '/ap'"),
        ({"strip": "/other"}, "strip '/other'"),
        ({"service": "a.b"}, "service 'a.b'"),
        ({"service": ""}, "service ''"),
        ({"flag": "USE AUTH"}, "flag 'USE AUTH'"),
        ({"timeout": 0}, "timeout 0"),
        ({"timeout": float("nan")}, "timeout nan"),
        ({"health_path": "health"}, "health_path 'health'"),
        ({"upstream": Address("", 1)}, "upstream has no valid host"),
        ({"upstream": Address("auth", 0)}, "upstream has port 0"),
    ],
)
def test_a_bad_field_is_named(change, told):
    with pytest.raises(InvalidTable, match=told):
        check(replace(TABLE, routes=(replace(AUTH, **change),)))


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({}, "prefix appears twice"),
        ({"prefix": "/api/login", "weight": 5}, "flag USE_AUTH has another weight or service on route /api/auth"),
        ({"prefix": "/api/x", "write_weight": 7}, "flag USE_AUTH has another weight or service"),
        ({"prefix": "/api/x", "service": "x"}, "flag USE_AUTH has another weight or service"),
        ({"prefix": "/api/x", "flag": "USE_X"}, "service auth has another upstream or flag"),
        ({"prefix": "/api/x", "upstream": Address("x", 1)}, "service auth has another upstream or flag"),
        (
            {"prefix": "/api/x", "failover": False},
            "service auth has another failover or health_path on route /api/auth",
        ),
    ],
)
def test_two_routes_that_contradict_each_other_are_named(second, told):
    with pytest.raises(InvalidTable, match=told):
        check(replace(TABLE, routes=(AUTH, replace(AUTH, **second))))


def test_the_table_itself_is_checked():
    with pytest.raises(InvalidTable, match="generation -1"):
        check(replace(TABLE, generation=-1))
    with pytest.raises(InvalidTable, match="monolith: address has port 70000"):
        check(replace(TABLE, monolith=Address("x", 70000)))


def test_one_side_serves_a_route_only_when_reads_and_writes_agree():
    split = [(100, 99), (100, 0), (0, 100), (0, 1), (50, None), (50, 50)]
    assert [replace(AUTH, weight=reads, write_weight=writes).side() for reads, writes in split] == [None] * len(split)
    assert replace(AUTH, weight=100, write_weight=100).side() is replace(AUTH, weight=100).side() is Side.SERVICE
    assert replace(AUTH, weight=0, write_weight=0).side() is replace(AUTH, weight=0).side() is Side.MONOLITH
    assert replace(AUTH, weight=0, write_weight=1).on
    assert not AUTH.on


@pytest.mark.parametrize(
    ("sticky", "told"),
    [
        (Sticky(), "one of header, cookie and jwt_claim must be named, not 0"),
        (Sticky(header="a", cookie="b"), "must be named, not 2"),
        (Sticky(header="a b"), "'a b' may have"),
        (Sticky(jwt_claim='a"b'), "may have"),
        (Sticky(header="X-Envoy-Original-Path"), "one that the gateway removes"),
        (Sticky(header="x-switchyard-bucket"), "one that the gateway removes"),
    ],
)
def test_what_cannot_tell_users_apart_is_refused(sticky, told):
    with pytest.raises(InvalidTable, match=f"sticky: .*{told}"):
        check(replace(TABLE, sticky=sticky))


def test_longer_prefixes_come_first():
    routes = tuple(replace(AUTH, prefix=prefix) for prefix in ("/a", "/a/b/c", "/", "/a/b"))
    assert [route.prefix for route in longest_first(routes)] == ["/a/b/c", "/a/b", "/a", "/"]


def test_what_is_left_after_stripping():
    assert stripped(AUTH) == "/auth"
    assert stripped(replace(AUTH, strip="")) == "/api/auth"
    assert stripped(replace(AUTH, strip="/api/auth")) == ""
