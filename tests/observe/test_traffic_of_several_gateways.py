"""Counters of several gateways: each has its own, and one sample has what came to all."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from migrations_app.gateways.base import NO_LATENCY, Side, SideTraffic
from migrations_app.gateways.errors import Unreachable
from migrations_app.models import Gateway, TrafficCounter, TrafficReading, TrafficSample
from migrations_app.observe.traffic import read_once, store_all
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import memory_gateway, on_gateways, tracseq

AUTH = ("auth", Side.MONOLITH)
SECOND = timedelta(seconds=1)


@pytest.fixture
def two(plan, shell):
    """Primary keys of the two."""
    load_plan(on_gateways(tracseq(adapter="memory", by_hand=True), "gw-2"), actor=shell, reason="for a test")
    reconcile_all()
    return [Gateway.objects.get(key=key).pk for key in ("main", "gw-2")]


def counted(requests: int, errors: int = 0) -> dict:
    return {AUTH: SideTraffic(requests, errors, NO_LATENCY)}


def samples() -> list[tuple[int, int]]:
    return list(TrafficSample.objects.order_by("read_at").values_list("requests", "errors"))


def test_one_sample_has_what_came_to_all_of_them(two, noon):
    main, other = two
    store_all({main: counted(1000), other: counted(50)}, noon)
    assert store_all({main: counted(1010, 1), other: counted(57, 2)}, noon + SECOND) == 1
    assert samples() == [(17, 3)]


def test_the_restart_of_one_is_its_own_reset_and_does_not_hide_in_the_sum(two, noon):
    """Summed up, 1,050 and then 1,010 + 4 would look like a reset of everything, 1,090 + 4 like 44 requests."""
    main, other = two
    store_all({main: counted(1000), other: counted(50)}, noon)
    store_all({main: counted(1010), other: counted(4)}, noon + SECOND)
    store_all({main: counted(1090), other: counted(9)}, noon + 2 * SECOND)
    assert samples() == [(14, 0), (85, 0)]


def test_what_one_counts_while_it_is_not_read_comes_with_its_next_reading(two, noon):
    main, other = two
    store_all({main: counted(1000), other: counted(50)}, noon)
    store_all({main: counted(1010)}, noon + SECOND)
    store_all({main: counted(1020), other: counted(80)}, noon + 2 * SECOND)
    assert samples() == [(10, 0), (40, 0)]


def test_the_first_reading_of_one_that_was_added_counts_nothing(two, noon):
    main, other = two
    store_all({main: counted(1000)}, noon)
    store_all({main: counted(1010), other: counted(500)}, noon + SECOND)
    store_all({main: counted(1010), other: counted(503)}, noon + 2 * SECOND)
    assert samples() == [(10, 0), (3, 0)]


def test_a_reading_of_one_that_a_load_has_taken_out_is_passed_over(two, noon):
    main, other = two
    store_all({main: counted(1), other: counted(1)}, noon)
    Gateway.objects.get(pk=other).delete()
    store_all({main: counted(2), other: counted(2)}, noon + SECOND)
    assert list(TrafficCounter.objects.values_list("gateway", "requests")) == [(main, 2)]


def test_the_counters_of_all_are_written_by_one_statement(two, noon):
    main, other = two
    store_all({main: counted(1), other: counted(1)}, noon)

    def questions(readings: dict, at: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            store_all(readings, noon + at * SECOND)
        return len(captured)

    one = questions({main: counted(2)}, 1)
    assert questions({main: counted(3), other: counted(2)}, 2) == one == 12  # as many as when there could be one alone


def test_one_that_is_away_loses_nobody_elses_readings(two):
    read_once()
    memory_gateway("main").serve("/api/auth/login")
    memory_gateway("gw-2").serve("/api/auth/login")
    memory_gateway("gw-2").answers = False
    assert read_once() == 1
    assert samples() == [(1, 0)]
    assert list(TrafficReading.objects.order_by("read_at").values_list("away", flat=True)) == [False, True]
    memory_gateway("main").answers = False
    with pytest.raises(Unreachable):
        read_once()


def test_each_tells_for_itself_whom_the_monolith_stands_in_for(two):
    for key in ("main", "gw-2"):
        memory_gateway(key).down = {"auth"} if key == "gw-2" else set()
    read_once()
    assert {row.key: row.failing_over for row in Gateway.objects.all()} == {"main": {}, "gw-2": {}}
