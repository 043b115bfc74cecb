"""Traffic from the gateway's counters."""

from datetime import timedelta

from django.db.models import Sum
from django.utils import timezone

from migrations_app.gateways.base import NO_LATENCY, Side, SideTraffic
from migrations_app.models import Service, TrafficCounter, TrafficSample
from migrations_app.models.traffic import latency_of, requests_of
from migrations_app.observe.traffic import SINGLE_FOR, read_once, recent, store
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


def spread(**counts: int) -> tuple[int, ...]:
    """Counts by range: `spread(r0=5, r22=1)`."""
    return tuple(counts.get(f"r{position}", 0) for position in range(len(NO_LATENCY)))


def test_response_times_are_kept_as_differences_too(plan, noon):
    store({KEY: SideTraffic(10, 0, spread(r0=8, r5=2))}, noon)
    store({KEY: SideTraffic(14, 0, spread(r0=9, r5=4, r22=1))}, noon + timedelta(seconds=2))
    assert TrafficSample.objects.get().latency == list(spread(r0=1, r5=2, r22=1))
    assert TrafficCounter.objects.get().latency == list(spread(r0=9, r5=4, r22=1))


def test_response_times_that_come_late_are_kept(plan, noon):
    store({KEY: SideTraffic(10, 0, spread(r0=8))}, noon)
    assert store({KEY: SideTraffic(10, 0, spread(r0=10))}, noon + timedelta(seconds=2)) == 1
    row = TrafficSample.objects.get()
    assert (row.requests, row.latency) == (0, list(spread(r0=2)))


def test_a_restart_that_one_counter_alone_shows_resets_all_of_a_side(plan, noon):
    store({KEY: SideTraffic(10, 0, spread(r0=2, r5=8))}, noon)
    store({KEY: SideTraffic(12, 0, spread(r0=12))}, noon + timedelta(seconds=2))
    row = TrafficSample.objects.get()
    assert (row.requests, row.latency) == (12, list(spread(r0=12)))


def test_response_times_that_were_not_told_are_not_made_up(plan, noon):
    store({KEY: SideTraffic(10, 0, ())}, noon)
    store({KEY: SideTraffic(14, 0, spread(r0=14))}, noon + timedelta(seconds=2))
    store({KEY: SideTraffic(15, 0, spread(r0=15))}, noon + timedelta(seconds=4))
    store({KEY: SideTraffic(17, 1, ())}, noon + timedelta(seconds=6))
    kept = TrafficSample.objects.order_by("read_at").values_list("requests", "errors", "latency")
    assert list(kept) == [(4, 0, []), (1, 0, list(spread(r0=1))), (2, 1, [])]


def test_the_first_requests_of_a_side_that_was_silent_count(plan, noon):
    service = ("auth", Side.SERVICE)
    store({KEY: SideTraffic(1000, 0)}, noon)
    store({KEY: SideTraffic(1000, 0), service: SideTraffic(20, 3, spread(r3=17))}, noon + timedelta(seconds=2))
    row = TrafficSample.objects.get()
    assert (row.side, row.requests, row.errors, row.latency) == ("service", 20, 3, list(spread(r3=17)))


def read_every_two_seconds(start, until, *, minutes=()):
    """A request a second, half of them slow; the response times of some minutes are not told."""
    at, total = start, 0
    while at <= until:
        known = spread(r0=total // 2, r9=total - total // 2)
        store({KEY: SideTraffic(total, total // 10, () if at.minute in minutes else known)}, at)
        at, total = at + timedelta(seconds=2), total + 2


def test_readings_are_put_together_by_the_minute_once_they_are_old(plan, noon):
    start = noon + timedelta(seconds=31)
    read_every_two_seconds(start, start + timedelta(minutes=5))
    before = TrafficSample.objects.aggregate(Sum("requests"), Sum("errors"))
    service = Service.objects.get(key="auth").pk
    whole = (start - timedelta(minutes=1), start + timedelta(days=1))
    times = latency_of(service, Side.MONOLITH, *whole)
    store({KEY: SideTraffic(300, 30, ())}, noon + timedelta(minutes=3, seconds=10) + SINGLE_FOR)
    rows = list(TrafficSample.objects.order_by("read_at"))
    merged = [row for row in rows if row.read_at < noon + timedelta(minutes=3)]
    assert [(row.read_at - noon).total_seconds() for row in merged] == [59, 119, 179]
    assert [(row.requests, sum(row.latency)) for row in merged] == [(28, 28), (60, 60), (60, 60)]
    assert len(rows) == 3 + 76
    assert TrafficSample.objects.aggregate(Sum("requests"), Sum("errors")) == before
    assert latency_of(service, Side.MONOLITH, *whole) == times
    store({KEY: SideTraffic(300, 30, ())}, noon + timedelta(days=2))
    assert len(TrafficSample.objects.all()) == 6
    assert requests_of([service], Side.MONOLITH, *whole) == (before["requests__sum"], before["errors__sum"])


def test_response_times_that_are_not_known_are_missing_in_their_minute_alone(plan, noon):
    read_every_two_seconds(noon, noon + timedelta(minutes=3), minutes=(1,))
    store({KEY: SideTraffic(180, 18, ())}, noon + timedelta(hours=3))
    rows = TrafficSample.objects.order_by("read_at").values_list("requests", "latency")
    # A difference needs both of its readings: the first one of the third minute is without times too.
    assert [(requests, sum(latency)) for requests, latency in rows] == [(58, 58), (60, 0), (60, 58), (2, 2)]
    assert [bool(latency) for _, latency in rows] == [True, False, True, True]


def test_the_latest_readings_stay_single(plan, noon):
    read_every_two_seconds(noon, noon + timedelta(minutes=2))
    store({KEY: SideTraffic(120, 12, ())}, noon + SINGLE_FOR - timedelta(seconds=1))
    assert TrafficSample.objects.count() == 60


def test_traffic_of_two_gateways_adds_up_and_unknown_times_stay_unknown():
    one, other = SideTraffic(10, 1, spread(r0=9)), SideTraffic(5, 0, spread(r0=2, r1=3))
    assert one + other == SideTraffic(15, 1, spread(r0=11, r1=3))
    assert one + SideTraffic(5, 0, ()) == SideTraffic(15, 1, ())


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
    assert TrafficSample.objects.get().latency == list(spread(r0=3))
