"""Traffic from the gateway's counters."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.gateways.base import NO_LATENCY, Side, SideTraffic
from migrations_app.models import Gateway, Service, TrafficCounter, TrafficDay, TrafficReading, TrafficSample
from migrations_app.models.traffic import latency_of, requests_of
from migrations_app.models.windows import Window, traffic_in
from migrations_app.observe.last_minute import MINUTE, Remaining, last_minute, last_minute_of
from migrations_app.observe.rollups import TRAFFIC, roll_up
from migrations_app.observe.traffic import MOST, SINGLE_FOR, read_once, store, store_all
from tests.counted import requests_in
from tests.explained import Explained
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
    with CaptureQueriesContext(connection) as asked:
        store({KEY: SideTraffic(300, 30, ())}, noon + timedelta(days=2))
    assert len(TrafficSample.objects.all()) == 6
    # A statement for each minute that has readings of its own, and none for the days without any.
    assert 3 <= sum("WITH moved" in one["sql"] for one in asked) <= 12
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


def test_the_last_minute_by_side(plan, noon):
    service = ("auth", Side.SERVICE)
    store({KEY: SideTraffic(0, 0), service: SideTraffic(0, 0)}, noon)
    store({KEY: SideTraffic(100, 0), service: SideTraffic(0, 0)}, noon + timedelta(seconds=10))
    store({KEY: SideTraffic(130, 0), service: SideTraffic(20, 0)}, noon + timedelta(seconds=65))
    found = requests_in(last_minute(noon + timedelta(seconds=71)))
    assert found == {"auth": {Side.MONOLITH: 30, Side.SERVICE: 20}}
    assert requests_in(last_minute(noon + timedelta(seconds=200))) == {}


def test_read_from_the_gateway_itself(plan):
    read_once(timezone.now())
    adapter = memory_gateway()
    for _ in range(3):
        adapter.serve("/api/auth/login")
    assert read_once(timezone.now()) == 1
    assert requests_in(last_minute())["auth"] == {Side.MONOLITH: 3, Side.SERVICE: 0}
    assert TrafficSample.objects.get().latency == list(spread(r0=3))


NEW_SIDE = ("auth", Side.SERVICE)
REST = ("", Side.MONOLITH)
COLUMNS = ("requests", "errors", "client_errors", "retries", "failovers", "failed_failovers")
SECOND = timedelta(seconds=1)


def counted(*counts, **more):
    """`counts` in the order of COLUMNS; what is not told is 0."""
    return SideTraffic(**{"requests": 0, "errors": 0} | dict(zip(COLUMNS, counts, strict=False)) | more)


def test_client_errors_retries_and_failovers_are_kept_as_differences(plan, noon):
    store({NEW_SIDE: counted(100, 5, 20, 3, 2, 1)}, noon)
    store({NEW_SIDE: counted(130, 6, 27, 4, 4, 2)}, noon + 2 * SECOND)
    assert TrafficSample.objects.values_list(*COLUMNS).get() == (30, 1, 7, 1, 2, 1)
    assert TrafficCounter.objects.values_list(*COLUMNS).get() == (130, 6, 27, 4, 4, 2)


@pytest.mark.parametrize("lower", COLUMNS)
def test_a_restart_that_any_counter_shows_resets_all_of_them(plan, noon, lower):
    before, after = counted(100, 50, 50, 50, 50, 50), counted(101, 51, 52, 53, 54, 55)
    store({NEW_SIDE: before}, noon)
    after = replace(after, **{lower: 7})
    store({NEW_SIDE: after}, noon + 2 * SECOND)
    assert TrafficSample.objects.values_list(*COLUMNS).get() == tuple(getattr(after, column) for column in COLUMNS)


def test_what_an_older_version_did_not_read_counts_from_now_on(plan, noon):
    store({NEW_SIDE: counted(100, 5)}, noon)
    TrafficCounter.objects.update(client_errors=None, retries=None, failovers=None, failed_failovers=None)
    store({NEW_SIDE: counted(110, 5, 4000, 300, 20, 10)}, noon + 2 * SECOND)
    store({NEW_SIDE: counted(111, 5, 4001, 302, 20, 10)}, noon + 4 * SECOND)
    found = TrafficSample.objects.order_by("read_at").values_list(*COLUMNS)
    assert list(found) == [(10, 0, 0, 0, 0, 0), (1, 0, 1, 2, 0, 0)]


def test_counts_of_two_gateways_add_up():
    assert counted(10, 1, 2, 3, 4, 1) + counted(20, 2, 3, 4, 5, 2) == counted(30, 3, 5, 7, 9, 3)


def test_the_new_counts_are_put_together_by_the_minute_too(plan, noon):
    for second in range(0, 180, 2):
        served = counted(second, second // 10, second // 4, second // 6, second // 8, second // 12)
        store({NEW_SIDE: served}, noon + second * SECOND)
    before = TrafficSample.objects.aggregate(*map(Sum, COLUMNS))
    assert all(before.values())
    store({NEW_SIDE: counted(178, 17, 44, 29, 22, 14)}, noon + 4 * SINGLE_FOR)
    spans = TrafficSample.objects.order_by("read_at").values_list("begins_at", "read_at")
    minutes = [(0, 58), (58, 118), (118, 178)]
    assert list(spans) == [(noon + begin * SECOND, noon + end * SECOND) for begin, end in minutes]
    assert TrafficSample.objects.aggregate(*map(Sum, COLUMNS)) == before


def test_what_no_route_matches_is_kept_without_a_service(plan, noon):
    store({REST: counted(1000), KEY: counted(5)}, noon)
    assert store({REST: counted(1040, 1, 9), KEY: counted(5)}, noon + 2 * SECOND) == 1
    store({REST: counted(3), KEY: counted(5)}, noon + 4 * SECOND)
    rows = TrafficSample.objects.order_by("read_at").values_list("service", "side", *COLUMNS)
    assert list(rows) == [(None, "monolith", 40, 1, 9, 0, 0, 0), (None, "monolith", 3, 0, 0, 0, 0, 0)]
    assert TrafficCounter.objects.filter(service=None).values_list(*COLUMNS).get() == (3, 0, 0, 0, 0, 0)
    assert requests_in(last_minute(noon + 5 * SECOND)) == {}
    assert last_minute(noon + 5 * SECOND).failures() == {}


def test_the_database_takes_one_counter_of_what_no_route_matches_and_the_monoliths_alone(plan, noon):
    row = {"service": None, "requests": 1, "errors": 0, "read_at": noon}
    gateway, other = Gateway.objects.get(), Gateway.objects.create(plan=plan, key="gw-2", adapter="memory")
    for one in (gateway, other):
        TrafficCounter.objects.create(gateway=one, side="monolith", **row)
    with pytest.raises(IntegrityError, match="one_counter_per_gateway_service_and_side"), transaction.atomic():
        TrafficCounter.objects.create(gateway=gateway, side="monolith", **row)
    with pytest.raises(IntegrityError, match="traffic_of_no_service_is_the_monoliths"), transaction.atomic():
        TrafficSample.objects.create(side="service", **row)
    with pytest.raises(IntegrityError, match="traffic_sample_is_counted"), transaction.atomic():
        TrafficSample.objects.create(side="monolith", retries=-1, **row)


def test_a_reading_costs_the_same_questions_for_500_services_as_for_one(plan, noon):
    number = 500
    Service.objects.bulk_create(
        Service(plan=plan, key=f"more-{one}", title=f"More {one}", host="127.0.0.1", port=9) for one in range(number)
    )

    def totals(services, requests):
        keys = [("auth", side) for side in Side] + [(f"more-{one}", side) for one in range(services) for side in Side]
        return {key: counted(requests, 1, 1, 1, 1) for key in keys}

    def questions(services, at):
        with CaptureQueriesContext(connection) as captured:
            store(totals(services, at), noon + at * SECOND)
        return [query["sql"].split()[0] for query in captured]

    store(totals(number, 0), noon)
    few = questions(0, 1)
    assert questions(number, 2) == few
    assert questions(number, 3) == few
    assert len(few) < 15
    assert TrafficSample.objects.count() == 2 + 2 * 2 * (1 + number)
    with CaptureQueriesContext(connection) as captured:
        found = last_minute(noon + 4 * SECOND)
        assert {len(told) for told in (requests_in(found), found.failures(), found.still_on_monolith())} == {1 + number}
    assert len(captured) == 1


class Ledger:
    """What was served, request by request, beside what is told of it. Each reading adds to the counters."""

    def __init__(self, start):
        self.start, self.totals, self.served = start, {}, []

    def reset(self):
        self.totals = dict.fromkeys(self.totals, counted(0))

    def read(self, second, **requests):
        """`new`, `old`, `rest`: requests since the last reading; `over`: of `new`, those that failed over.

        Half of these failed on the old side too.
        """
        over = requests.pop("over", 0)
        for name, key in (("new", NEW_SIDE), ("old", KEY), ("rest", REST)):
            more = requests.get(name, 0)
            failed_over = over if name == "new" else 0
            self.totals[key] = self.totals.get(key, counted(0)) + counted(
                more, more // 5, failovers=failed_over, failed_failovers=failed_over // 2
            )
            self.served.append((self.start + second * SECOND, key, more, more // 5, failed_over, failed_over // 2))
        store(self.totals, self.start + second * SECOND)

    def lately(self, now):
        """What `last_minute` has to tell: counted one by one."""
        rows = [row for row in self.served if row[0] > now - MINUTE]
        sums = {
            key: [sum(row[place] for row in rows if row[1] == key) for place in (2, 3, 4, 5)] for key in self.totals
        }
        new, old, rest = (sums.get(key, [0, 0, 0, 0]) for key in (NEW_SIDE, KEY, REST))
        everything = new[0] + old[0] + rest[0]
        left = [("auth", old[0] + new[2]), (None, rest[0])]
        left = [Remaining(name, requests, requests / everything) for name, requests in left if requests]
        seen = bool(new[0] or old[0])
        return (
            {"auth": {Side.MONOLITH: old[0], Side.SERVICE: new[0]}} if seen else {},
            {"auth": (old[0] + new[0], old[1] + max(0, new[1] - new[2]) + new[3])} if seen else {},
            sorted(left, key=lambda one: (-one.requests, one.service or "")),
        )


def lately(now):
    found = last_minute(now)
    return requests_in(found), found.failures(), found.still_on_monolith()


def assert_told(ledger, *seconds):
    for second in seconds:
        now = ledger.start + second * SECOND
        assert lately(now) == ledger.lately(now), second


@pytest.fixture
def ledger(plan, noon):
    ledger = Ledger(noon)
    ledger.read(0)
    return ledger


def test_the_last_minute_is_exact_at_every_moment_and_through_restarts_of_the_gateway(ledger):
    for second in range(1, 200, 2):
        if second % 71 == 0:
            ledger.reset()
        ledger.read(second, new=second % 13, old=second % 7, rest=second % 3, over=second % 13 // 3)
        assert_told(ledger, second, second + 0.5, second + 1.9)
    told = lately(ledger.start + 200 * SECOND)
    TrafficSample.objects.all().delete()  # none of them is read
    assert lately(ledger.start + 200 * SECOND) == told
    assert TrafficReading.objects.count() <= 62
    assert_told(ledger, 215, 240, 258.9, 259, 260, 1000)


def test_the_last_minute_is_exact_after_the_reader_was_down(ledger):
    for second in range(1, 30):
        ledger.read(second, new=10, old=2, over=1)
    assert_told(ledger, 60, 75, 88)
    ledger.read(500, new=4000, rest=7)
    assert_told(ledger, 500, 501, 559, 560)
    for second in (502, 504, 561, 563):
        ledger.read(second, old=3)
        assert_told(ledger, second, second + 1)


def test_the_last_minute_is_exact_while_there_are_no_running_sums_of_it_yet(ledger):
    for second in range(1, 60):
        ledger.read(second, new=10, old=second, over=1)
    TrafficReading.objects.all().delete()
    assert_told(ledger, 59, 80)
    for second in range(60, 130, 3):
        ledger.read(second, new=1, old=second, rest=1)
        assert_told(ledger, second, second + 1)


def test_of_one_service_the_last_minute_is_the_same_and_nothing_is_told_of_others(ledger, django_assert_num_queries):
    for second in (*range(1, 90, 2), 400, 401):
        ledger.read(second, new=second % 13, old=second % 7, rest=second % 3, over=second % 13 // 3)
        for later in (0, 0.5, 30):
            now = ledger.start + (second + later) * SECOND
            assert last_minute_of("auth", now).sides("auth") == last_minute(now).sides("auth")
    with django_assert_num_queries(1):
        found = last_minute_of("auth", now)
    with pytest.raises(ValueError, match="the traffic of rag was not read"):
        found.sides("rag")


def test_the_last_minute_is_exact_when_the_clock_goes_back(ledger):
    for second in range(100, 130):
        ledger.read(second, new=10, old=second)
    for second in range(50, 120, 7):
        ledger.read(second, new=1, old=1, rest=second)
        assert_told(ledger, second, second + 3)


def test_what_failed_over_and_is_not_answered_yet_is_told(plan, noon):
    store({NEW_SIDE: counted(0)}, noon)
    store({NEW_SIDE: counted(0, failovers=1)}, noon + SECOND)
    assert lately(noon + 2 * SECOND) == ({}, {}, [Remaining("auth", 1, 1.0)])
    store({NEW_SIDE: counted(1, failovers=1)}, noon + 70 * SECOND)
    assert lately(noon + 71 * SECOND)[1:] == ({"auth": (1, 0)}, [])
    assert TrafficSample.objects.aggregate(*map(Sum, COLUMNS))["failovers__sum"] == 1


def test_samples_of_an_older_version_are_in_the_sums(ledger):
    auth = Service.objects.get(key="auth")
    for second in range(1, 130):
        if second % 3:
            ledger.read(second, new=10, old=second, over=1)
        else:
            at = ledger.start + second * SECOND
            TrafficSample.objects.create(service=auth, side=Side.SERVICE.value, read_at=at, requests=5, errors=1)
            ledger.served.append((at, NEW_SIDE, 5, 1, 0, 0))
        assert_told(ledger, second)


def test_running_sums_of_an_older_version_have_no_failovers_that_failed_too(ledger):
    ledger.read(1, new=10, over=2)
    TrafficReading.objects.update(failed_failovers=[])
    ledger.served = [(*row[:5], 0) for row in ledger.served]
    assert_told(ledger, 1)
    for second in range(2, 80, 3):
        ledger.read(second, new=10, over=3)
        assert_told(ledger, second)


def test_a_reading_begins_where_the_gateway_was_asked_before(plan, noon):
    gateway = Gateway.objects.get().pk
    store_all({gateway: {KEY: counted(1)}}, noon, noon - SECOND / 10)
    store_all({gateway: {KEY: counted(2)}}, noon + SECOND, noon + SECOND / 2)
    store_all({gateway: {KEY: counted(5), NEW_SIDE: counted(3)}}, noon + 2 * SECOND)
    spans = TrafficSample.objects.order_by("read_at", "side").values_list("begins_at", "read_at", "requests")
    asked = noon + SECOND / 2
    assert list(spans) == [
        (noon - SECOND / 10, noon + SECOND, 1),
        (asked, noon + 2 * SECOND, 3),
        (asked, noon + 2 * SECOND, 3),
    ]


def test_a_window_has_no_reading_that_was_begun_before_what_it_is_about(plan, noon):
    """A step of a rollout began 0.5 s after a reading; the workers were away for a minute in between."""
    auth = Service.objects.get(key="auth").pk
    for second, requests in ((0, 0), (1, 100), (2, 120), (62, 900), (63, 1000)):
        store({NEW_SIDE: counted(requests)}, noon + second * SECOND)

    def seen(begun, since=None, until=63):
        window = Window(auth, Side.SERVICE, noon + (begun if since is None else since) * SECOND, noon + begun * SECOND)
        found = traffic_in([window], noon + until * SECOND, timed=[window])[window]
        assert sum(found.latency) == 0
        return found.requests

    assert requests_of([auth], Side.SERVICE, noon, noon + 63 * SECOND) == (1000, 0)
    assert requests_of([auth], Side.SERVICE, noon + 0.5 * SECOND, noon + 2 * SECOND) == (20, 0)
    assert (seen(0), seen(0.5), seen(0.5, until=2)) == (1000, 900, 20)
    # What came in a minute without a worker is not what came in the last ten seconds.
    assert (seen(0, since=53), seen(0, since=60), seen(0, since=62.5)) == (100, 100, 100)
    assert seen(0, since=0.5, until=1) == 100


def test_a_jump_that_no_number_of_a_sample_has_room_for_is_kept_as_the_most(plan, noon):
    """A backup of the database was put back; the counters have gone on since."""
    far = 3 * MOST
    latency = (far, 7, *NO_LATENCY[2:])
    store({KEY: counted(0), NEW_SIDE: counted(0)}, noon)
    for turn in (1, 2):
        served = SideTraffic(turn * far, turn * far, tuple(turn * one for one in latency))
        store({KEY: served, NEW_SIDE: counted(turn)}, noon + turn * SECOND)
    rows = TrafficSample.objects.filter(side="monolith").values_list("requests", "errors", "latency")
    assert list(rows) == [(MOST, MOST, [MOST, 7, *NO_LATENCY[2:]])] * 2
    assert requests_in(last_minute(noon + 3 * SECOND))["auth"] == {Side.MONOLITH: 2 * MOST, Side.SERVICE: 2}
    assert roll_up(TRAFFIC, noon + 4 * SINGLE_FOR)
    store({KEY: served}, noon + 4 * SINGLE_FOR)
    assert TrafficSample.objects.get(side="monolith").requests == MOST
    assert TrafficDay.objects.get(side="monolith").latency[:2] == [MOST, 14]


def test_a_service_that_is_gone_is_told_no_more(ledger, noon):
    ledger.read(1, new=10, old=10, rest=10)
    Service.objects.get(key="auth").flag.delete()
    Service.objects.get(key="auth").delete()
    assert lately(noon + 2 * SECOND) == ({}, {}, [Remaining(None, 10, 1.0)])


def test_what_remains_is_the_old_side_and_what_failed_over_the_most_first(plan, noon):
    rag = [("rag", side) for side in Side]
    store(dict.fromkeys([KEY, NEW_SIDE, REST, *rag], counted(0)), noon)
    store(
        {KEY: counted(20), NEW_SIDE: counted(100, failovers=30), REST: counted(5), rag[1]: counted(45)}, noon + SECOND
    )
    found = last_minute(noon + 2 * SECOND).still_on_monolith()
    assert found == [Remaining("auth", 50, 50 / 170), Remaining(None, 5, 5 / 170)]
    assert last_minute(noon + timedelta(hours=1)).still_on_monolith() == []


def test_the_last_minute_is_found_by_its_index_in_a_long_day(plan, noon):
    """PostgreSQL took a range that is open to one side for a third of the day, and read all of it for each page.

    It does so where rows do not lie in the order of time: minutes that are put together fill the gaps of older rows.
    """
    store({("auth", Side.SERVICE): counted(1)}, noon - SECOND)
    store({("auth", Side.SERVICE): counted(2)}, noon)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO migrations_app_trafficsample (service_id, side, read_at, requests, errors, latency)
            SELECT %s, 'service', %s::timestamptz - n * interval '1 second', 1, 0, '{}'
            FROM generate_series(61, 30000) AS n ORDER BY md5(n::text)
            """,
            [Service.objects.get(key="auth").pk, noon],
        )
        cursor.execute("ANALYZE migrations_app_trafficsample")
        cursor.execute("SELECT DISTINCT tableoid::regclass::text FROM migrations_app_trafficsample")
        [(day,)] = cursor.fetchall()
    with connection.execute_wrapper(explained := Explained()):
        assert requests_in(last_minute(noon)) == {"auth": {Side.MONOLITH: 0, Side.SERVICE: 1}}
    scans = [line for line in explained.plan.splitlines() if f" on {day} " in line]
    assert len(scans) == 2
    assert all("Index Scan" in line for line in scans), explained.plan
