"""Traffic from the gateway's counters."""

from datetime import timedelta

from django.utils import timezone

from migrations_app.gateways.base import Side, SideTraffic
from migrations_app.models import TrafficSample
from migrations_app.observe.traffic import read_once, recent, store
from tests.factories import memory_gateway

KEY = ("auth", Side.MONOLITH)


def test_the_first_reading_counts_nothing_and_the_next_the_difference(plan, noon):
    assert store({KEY: SideTraffic(1000, 3)}, noon) == 0
    assert store({KEY: SideTraffic(1040, 4)}, noon + timedelta(seconds=2)) == 1
    row = TrafficSample.objects.get()
    assert (row.service.key, row.side, row.requests, row.errors) == ("auth", "monolith", 40, 1)


def test_a_restarted_gateway_counts_from_zero(plan, noon):
    store({KEY: SideTraffic(1000, 10)}, noon)
    store({KEY: SideTraffic(7, 0)}, noon + timedelta(seconds=2))
    row = TrafficSample.objects.get()
    assert (row.requests, row.errors) == (7, 0)


def test_silence_stores_nothing_and_services_outside_the_plan_are_passed_over(plan, noon):
    stranger = ("stranger", Side.SERVICE)
    store({KEY: SideTraffic(5, 0), stranger: SideTraffic(5, 0)}, noon)
    assert store({KEY: SideTraffic(5, 0), stranger: SideTraffic(9, 0)}, noon + timedelta(seconds=2)) == 0


def test_recent_is_the_last_minute_by_side(plan, noon):
    service = ("auth", Side.SERVICE)
    store({KEY: SideTraffic(0, 0), service: SideTraffic(0, 0)}, noon)
    store({KEY: SideTraffic(100, 0), service: SideTraffic(0, 0)}, noon + timedelta(seconds=10))
    store({KEY: SideTraffic(130, 0), service: SideTraffic(20, 0)}, noon + timedelta(seconds=65))
    found = recent(noon + timedelta(seconds=71))
    assert found == {"auth": {Side.MONOLITH: 30, Side.SERVICE: 20}}
    assert recent(noon + timedelta(seconds=200)) == {}


def test_read_from_the_gateway_itself(plan):
    read_once(timezone.now())
    adapter = memory_gateway()
    for _ in range(3):
        adapter.serve("/api/auth/login")
    assert read_once(timezone.now()) == 1
    assert recent()["auth"] == {Side.MONOLITH: 3, Side.SERVICE: 0}
