"""`week_stable` on rows as the pollers, the traffic reader and the actions write them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.weeks import roll_back_week
from migrations_app.choices import CheckState, Health
from migrations_app.gates.checks.week_stable import week_stable
from migrations_app.gateways.base import Side
from migrations_app.models import Flag, HealthState, Plan, Service, TrafficSample, Week
from migrations_app.observe.health import PollResult, store
from tests.factories import put_behind
from tests.gates.checks.scene import scene

DAY = {"week": 1, "for": "24h", "error_rate": 0.1}
SERVICES = ("notification", "storage", "rag")


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def week(plan, now) -> Week:
    """Week 1: on for 30 hours, healthy and polled all the time."""
    put_behind(1)
    on_since = now - timedelta(hours=30)
    Flag.objects.filter(week__number=1).update(changed_at=on_since)
    Week.objects.filter(number=1).update(soak_started_at=on_since)
    HealthState.objects.update(since=now - timedelta(days=3), polled_at=now)
    return Week.objects.get(number=1)


def serve(requests, errors, at, *, key="storage", side=Side.SERVICE):
    TrafficSample.objects.create(
        service=Service.objects.get(key=key), side=side.value, read_at=at, requests=requests, errors=errors
    )


def check(now, parameters=DAY):
    return week_stable(parameters, scene(2, now))


def test_a_week_that_nothing_has_disturbed_for_the_time_holds(week, now):
    serve(12_000, 2, now - timedelta(hours=1))
    serve(34, 0, now - timedelta(hours=2), key="rag")
    found = check(now)
    assert found.state == CheckState.HELD
    assert found.value == "stable for 30 h, 0.02 % errors of 12,034 requests"
    assert (found.limit, found.act) == ("24 h, at most 0.1 %", "")
    assert found.since == now - timedelta(hours=30)


def test_less_than_the_time_does_not_hold_and_says_how_long_yet(week, now):
    Flag.objects.filter(week=week).update(changed_at=now - timedelta(hours=12, minutes=3))
    serve(12_034, 2, now - timedelta(hours=1))
    found = check(now)
    assert found.state == CheckState.NOT_HELD
    assert found.value == "stable for 12 h 3 min, 0.02 % errors of 12,034 requests"
    assert found.act == "Wait another 11 h 57 min."
    assert found.since == now - timedelta(hours=12, minutes=3)


def test_a_soak_clock_that_started_anew_counts(week, now):
    Week.objects.filter(pk=week.pk).update(soak_started_at=now - timedelta(hours=3))
    serve(10, 0, now - timedelta(hours=1))
    assert check(now).value.startswith("stable for 3 h,")


def test_a_soak_clock_that_stands_does_not_hold(week, now):
    Week.objects.filter(pk=week.pk).update(soak_started_at=None, soak_stopped_because="RAG service was unhealthy")
    found = check(now)
    assert (found.state, found.value) == (CheckState.NOT_HELD, "its soak clock stands: RAG service was unhealthy")


def test_a_rollback_ends_it(week, now, shell):
    serve(10, 0, now - timedelta(hours=1))
    assert check(now).state == CheckState.HELD
    roll_back_week(number=1, actor=shell)
    found = check(timezone.now())
    assert (found.state, found.value) == (CheckState.NOT_HELD, "0 of 3 flags fully on")
    assert "USE_RAG_SERVICE" in found.act


def test_a_part_of_the_week_is_not_the_week(week, now, shell):
    roll_back_flag(key="USE_RAG_SERVICE", actor=shell)
    found = check(now)
    assert (found.state, found.value, found.act) == (
        CheckState.NOT_HELD,
        "2 of 3 flags fully on",
        "Enable USE_RAG_SERVICE.",
    )


def test_an_unhealthy_poll_starts_the_time_anew_and_is_told(week, now):
    serve(10, 0, now - timedelta(minutes=10))

    def poll(at, *, healthy):
        ok = {"status_code": 200, "milliseconds": 1.0} if healthy else {"error": "answered 503, expected 200"}
        store([PollResult(key, at, healthy or key != "rag", **ok) for key in SERVICES])

    poll(now, healthy=True)
    assert check(now).state == CheckState.HELD
    poll(now - timedelta(hours=5, seconds=2), healthy=False)
    poll(now - timedelta(hours=5), healthy=True)
    poll(now, healthy=True)
    found = check(now)
    assert found.state == CheckState.NOT_HELD
    assert found.value == "stable for 5 h, 0.00 % errors of 10 requests"
    assert found.act == "Wait another 19 h. RAG service was unhealthy until then: answered 503, expected 200."


def test_an_unhealthy_service_does_not_hold(week, now):
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="no connection", since=now)
    found = check(now)
    assert (found.state, found.value) == (CheckState.NOT_HELD, "RAG service is unhealthy: no connection")


def test_services_of_other_weeks_do_not_matter(week, now):
    HealthState.objects.filter(target="auth").update(state=Health.UNHEALTHY, since=now)
    serve(10, 10, now - timedelta(minutes=1), key="auth")
    serve(10, 10, now - timedelta(minutes=1), side=Side.MONOLITH)
    serve(10, 0, now - timedelta(minutes=1))
    assert check(now).state == CheckState.HELD


def test_a_service_that_nobody_has_polled_is_unknown(week, now):
    HealthState.objects.filter(target="rag").delete()
    found = check(now)
    assert (found.state, found.value) == (CheckState.UNKNOWN, "RAG service has not been polled")


def test_a_poll_that_is_too_old_is_unknown(week, now, settings):
    HealthState.objects.filter(target="rag").update(polled_at=now - timedelta(seconds=settings.HEALTH_STALE_AFTER + 10))
    found = check(now)
    assert (found.state, found.value) == (CheckState.UNKNOWN, "RAG service has not been polled for 40 s")


def test_a_service_that_is_polled_only_lately_has_been_stable_only_lately(week, now):
    HealthState.objects.filter(target="rag").update(since=now - timedelta(hours=1))
    serve(10, 0, now - timedelta(minutes=10))
    found = check(now)
    assert found.state == CheckState.NOT_HELD
    assert found.act == "Wait another 23 h. RAG service was not polled before."


def test_too_many_errors_do_not_hold_however_long_it_lasts(week, now):
    serve(990, 9, now - timedelta(hours=23))
    serve(10, 1, now - timedelta(minutes=1), key="rag")
    found = check(now)
    assert found.state == CheckState.NOT_HELD
    assert found.value == "stable for 30 h, 1.00 % errors of 1,000 requests"
    assert check(now, DAY | {"error_rate": 1.0}).state == CheckState.HELD


def test_errors_from_before_the_time_do_not_count(week, now):
    serve(100, 100, now - timedelta(hours=24, seconds=1))
    serve(100, 0, now - timedelta(hours=1))
    assert check(now).value == "stable for 30 h, 0.00 % errors of 100 requests"


def test_without_a_request_it_is_unknown(week, now):
    found = check(now)
    assert (found.state, found.value) == (CheckState.UNKNOWN, "stable for 30 h, no request was counted")
    assert "Wait for traffic" in found.act


def test_a_time_longer_than_samples_are_kept_is_told_as_that(week, now):
    long_ago = now - timedelta(days=40)
    Flag.objects.filter(week=week).update(changed_at=long_ago)
    Week.objects.filter(pk=week.pk).update(soak_started_at=long_ago)
    HealthState.objects.update(since=long_ago)
    serve(500, 0, now - timedelta(days=6))
    found = check(now, DAY | {"for": "30d"})
    assert found.state == CheckState.HELD
    assert found.value == "stable for 40 d, 0.00 % errors of 500 requests in the last 7 d"
    HealthState.objects.filter(target="rag").update(since=now - timedelta(days=20))
    assert check(now, DAY | {"for": "30d"}).state == CheckState.NOT_HELD


def test_a_time_scale_shortens_the_time_but_not_below_a_few_readings(week, now):
    Plan.objects.update(time_scale=3600)
    Flag.objects.filter(week=week).update(changed_at=now - timedelta(seconds=30))
    serve(10, 0, now - timedelta(seconds=9))
    found = check(now)
    assert (found.state, found.limit) == (CheckState.HELD, "24 s, at most 0.1 %")
    assert check(now, DAY | {"for": "1h"}).value == "stable for 30 s, 0.00 % errors of 10 requests"


def test_a_week_that_has_not_begun_or_is_not_there_says_so(plan, now):
    assert check(now).value == "0 of 3 flags fully on"
    assert check(now, DAY | {"week": 6}).value == "planned"
    found = check(now, DAY | {"week": 9})
    assert (found.state, found.value) == (CheckState.UNKNOWN, "the plan has no week 9")


def test_a_week_that_moves_no_traffic_is_stable_since_it_started(plan, now):
    put_behind(6)
    Week.objects.filter(number=6).update(soak_started_at=now - timedelta(hours=25))
    found = check(now, DAY | {"week": 6})
    assert (found.state, found.value) == (CheckState.HELD, "stable for 25 h")


def test_a_clock_that_was_put_back_opens_nothing(week, now):
    serve(10, 0, now - timedelta(hours=31))
    assert check(now - timedelta(hours=31)).state != CheckState.HELD


def test_its_questions_do_not_grow_with_the_services(week, now, django_assert_max_num_queries):
    serve(10, 0, now - timedelta(minutes=1))
    asked = scene(2, now)
    with django_assert_max_num_queries(5):
        week_stable(DAY, asked)
