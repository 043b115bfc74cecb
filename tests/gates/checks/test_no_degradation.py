"""`no_degradation` on samples as the traffic reader keeps them."""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime, timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from migrations_app.choices import CheckState
from migrations_app.gates.checks.no_degradation import no_degradation
from migrations_app.gates.percentile import percentile
from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY, Side, SideTraffic
from migrations_app.models import Plan, Service, TrafficSample
from migrations_app.observe.traffic import read_once
from tests.factories import memory_gateway, put_behind
from tests.gates.checks.scene import scene

ASKED = {"services": ["storage"], "window": "15m", "min_requests": 100}


@pytest.fixture
def now(plan) -> datetime:
    return timezone.now()


def spread(*milliseconds: float) -> list[int]:
    found = list(NO_LATENCY)
    for one in milliseconds:
        found[bisect_left(LATENCY_BOUNDS, one)] += 1
    return found


def serve(at, side, requests, *, ms=10.0, errors=0, key="storage", latency=None):
    """`requests` answers, all in `ms` milliseconds."""
    TrafficSample.objects.create(
        service=Service.objects.get(key=key),
        side=side.value,
        read_at=at,
        requests=requests,
        errors=errors,
        latency=spread(*[ms] * requests) if latency is None else latency,
    )


def before(now, requests=310, **kwargs):
    """The monolith's last requests, three hours ago, just before the flag went up."""
    serve(now - timedelta(hours=3), Side.MONOLITH, requests, **kwargs)


def after(now, requests=240, **kwargs):
    serve(now - timedelta(minutes=5), Side.SERVICE, requests, **kwargs)


def check(now, **parameters):
    return no_degradation(ASKED | parameters, scene(2, now))


def test_a_new_side_as_good_as_the_monolith_holds(now):
    before(now, ms=11)
    after(now, ms=12)
    found = check(now)
    assert found.state == CheckState.HELD
    assert found.value == (
        "Storage service: p95 15 ms against 15 ms, errors 0.00 % against 0.00 %, 240 and 310 requests"
    )
    assert found.limit == "p95 at most 20 % or 1 ms above, errors at most 0.1 points, 100 requests in 15 min"


def test_a_slower_new_side_does_not_hold(now):
    before(now, ms=11)
    after(now, ms=40)
    found = check(now)
    assert found.state == CheckState.NOT_HELD
    assert found.value.startswith("Storage service: p95 49 ms against 15 ms,")
    assert found.act == "Look at Storage service, or roll it back."
    assert check(now, slower_by=300.0).state == CheckState.HELD


def test_more_errors_do_not_hold_counted_in_points(now):
    before(now, 1000, errors=10)
    after(now, 1000, errors=12)
    found = check(now)
    assert found.state == CheckState.NOT_HELD
    assert "errors 1.20 % against 1.00 %, 1,000 and 1,000 requests" in found.value
    assert check(now, error_rate=0.25).state == CheckState.HELD


def test_a_monolith_without_errors_and_without_a_measurable_time_is_a_baseline_too(now):
    before(now, ms=0)
    after(now, ms=0, errors=0)
    assert check(now).value.startswith("Storage service: p95 0.9 ms against 0.9 ms, errors 0.00 % against 0.00 %")
    TrafficSample.objects.all().delete()
    before(now, ms=0)
    after(now, ms=2)
    found = check(now, error_rate=0.0, slower_by=0.0)
    assert (found.state, "p95 1.9 ms against 0.9 ms" in found.value) == (CheckState.HELD, True)
    after(now, 1, ms=0, errors=1)
    assert check(now, error_rate=0.0).state == CheckState.NOT_HELD


def test_only_the_windows_count(now):
    before(now, ms=11)
    serve(now - timedelta(hours=3, minutes=16), Side.MONOLITH, 500, ms=400, errors=500)
    after(now, ms=12)
    serve(now - timedelta(minutes=16), Side.SERVICE, 500, ms=900, errors=500)
    found = check(now)
    assert found.state == CheckState.HELD
    assert "240 and 310 requests" in found.value


def test_while_the_traffic_is_split_both_sides_are_of_now(now):
    serve(now - timedelta(hours=3), Side.MONOLITH, 500, ms=3)
    serve(now - timedelta(minutes=1), Side.MONOLITH, 200, ms=40)
    after(now, ms=40)
    found = check(now)
    assert found.state == CheckState.HELD
    assert "240 and 200 requests" in found.value


@pytest.mark.parametrize(("new", "old"), [(99, 310), (240, 99), (0, 310), (240, 0)])
def test_too_few_requests_tell_nothing(now, new, old):
    if old:
        before(now, old)
    if new:
        after(now, new, errors=new // 2)
    found = check(now)
    assert (found.state, found.value) == (
        CheckState.UNKNOWN,
        f"Storage service: {new} and {old} requests, too few to tell",
    )
    assert found.act.startswith("Wait for more traffic" if old >= 100 else "Send Storage service back to the monolith")
    found = check(now, without_traffic="held")
    assert found.state == CheckState.HELD
    assert found.value.endswith("too few to tell; the plan counts that as held")


def test_requests_whose_response_times_are_not_known_are_judged_by_errors_alone(now):
    before(now)
    after(now, latency=[])
    found = check(now)
    assert found.state == CheckState.UNKNOWN
    assert found.value.endswith("but response times of only 0 and 310")
    after(now, 100, errors=50, latency=[])
    assert check(now).state == CheckState.NOT_HELD


def test_a_baseline_that_is_no_longer_kept_is_no_baseline(now):
    after(now)
    assert check(now).value == "Storage service: 240 and 0 requests, too few to tell"


def test_a_baseline_that_a_rollback_and_a_new_try_left_short_reaches_further_back(now):
    after(now, ms=12)
    before(now, 30, ms=11)
    serve(now - timedelta(hours=4), Side.MONOLITH, 69, ms=11)
    assert check(now).value == "Storage service: 240 and 30 requests, too few to tell"
    serve(now - timedelta(hours=5), Side.MONOLITH, 80, ms=11)
    serve(now - timedelta(hours=6), Side.MONOLITH, 500, ms=400, errors=500)
    found = check(now)
    assert (found.state, "240 and 179 requests" in found.value) == (CheckState.HELD, True)


def test_a_service_that_the_monolith_never_had_is_held_to_its_errors(now):
    asked = {"services": ["reports"], "error_rate": 1.0}
    after(now, 200, ms=900, errors=2, key="reports")
    found = check(now, **asked)
    assert (found.state, found.value) == (
        CheckState.HELD,
        "Reports service: errors 1.00 %, 200 requests; the monolith never had it",
    )
    after(now, 1, errors=1, key="reports")
    assert check(now, **asked).state == CheckState.NOT_HELD
    TrafficSample.objects.all().delete()
    assert check(now, **asked).state == CheckState.UNKNOWN
    assert check(now, **asked, without_traffic="held").state == CheckState.HELD


def test_of_several_services_the_worst_is_named(now):
    keys = ("notification", "storage", "rag")
    for key, ms in zip(keys, (11, 12, 13), strict=True):
        before(now, ms=11, key=key)
        after(now, ms=ms, key=key)
    week = {"services": [], "weeks": [1]}
    assert check(now, **week).state == CheckState.HELD
    after(now, 100, ms=60, key="rag")
    found = check(now, **week)
    assert (found.state, found.value.partition(":")[0]) == (CheckState.NOT_HELD, "RAG service")
    after(now, 100, ms=900, key="storage")
    found = check(now, **week)
    assert found.value.startswith("Storage service: p95 ")
    assert found.value.endswith("; 1 more like it")
    after(now, 10, errors=10, key="notification")
    assert check(now, **week).value.startswith("Notification service: errors ")


def test_one_service_that_tells_nothing_makes_it_unknown(now):
    before(now)
    after(now)
    found = check(now, services=["storage", "rag"])
    assert (found.state, found.value) == (CheckState.UNKNOWN, "RAG service: 0 and 0 requests, too few to tell")


def test_a_service_that_is_not_in_the_plan_is_unknown(now):
    found = check(now, services=["storage", "nothing"])
    assert (found.state, found.value) == (CheckState.UNKNOWN, "the plan has no service nothing")
    assert check(now, services=[], weeks=[6]).value == "there is no service to compare"


def test_a_time_scale_shortens_the_window_but_not_below_a_few_readings(now):
    Plan.objects.update(time_scale=3600)
    before(now)
    serve(now - timedelta(seconds=9), Side.SERVICE, 150)
    serve(now - timedelta(seconds=11), Side.SERVICE, 500)
    found = check(now)
    assert "150 and 310 requests" in found.value
    assert found.limit.endswith("100 requests in 10 s")


def test_it_reads_what_a_gateway_counted(now):
    gateway = memory_gateway()
    read_once(now - timedelta(seconds=30))
    for _ in range(120):
        gateway.serve("/api/storage/x", milliseconds=11)
    read_once(now - timedelta(seconds=20))
    put_behind(1)
    from migrations_app.reconcile.loop import reconcile_all

    reconcile_all()
    for _ in range(110):
        gateway.serve("/api/storage/x", milliseconds=13)
    read_once(now - timedelta(seconds=10))
    found = check(now)
    assert found.state == CheckState.HELD
    assert found.value.endswith("110 and 120 requests")


def test_its_questions_grow_with_the_services_alone(now, django_assert_num_queries):
    for _ in range(5):
        before(now)
        after(now)
    asked = scene(2, now)
    with django_assert_num_queries(1 + 5):
        no_degradation(ASKED, asked)


@given(st.lists(st.floats(0, 29_999), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_the_percentile_is_off_by_less_than_the_range_it_falls_in(times, share):
    latency = spread(*times)
    rank = max(1, -(-len(times) * share // 1))
    exact = sorted(times)[min(len(times), int(rank)) - 1]
    position = bisect_left(LATENCY_BOUNDS, exact)
    lower = LATENCY_BOUNDS[position - 1] if position else 0
    assert lower <= percentile(latency, share) <= LATENCY_BOUNDS[position]


def test_a_percentile_above_all_ranges_is_the_last_bound_and_of_nothing_is_nothing():
    assert percentile(spread(1, 40_000, 40_000), 0.95) == LATENCY_BOUNDS[-1]
    assert percentile(NO_LATENCY, 0.95) == 0.0
    assert percentile(SideTraffic(1, 0).latency, 0.95) == 0.0
