"""`manage.py history generate`."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Sum
from django.utils import timezone

from migrations_app.gateways.base import Side
from migrations_app.models import (
    HealthDay,
    HealthHour,
    HealthMinute,
    HealthSample,
    HealthSummary,
    RollupMark,
    TrafficDay,
    TrafficHour,
    TrafficMinute,
    TrafficReading,
    TrafficSample,
)
from migrations_app.observe.history import bars, latency_series, summaries
from migrations_app.observe.last_minute import last_minute
from migrations_app.observe.rollups import HEALTH, TRAFFIC, roll_up
from tests.counted import requests_in


def generate(*options: str) -> None:
    call_command("history", "generate", *options, stdout=StringIO(), stderr=StringIO())


def test_every_target_has_all_of_its_days_and_the_spans_agree(plan):
    generate("--days", "20", "--services", "14", "--minute-days", "2")
    now = timezone.now()
    found = summaries(now)
    assert {"monolith", "auth", "invented-001", "invented-004"} <= set(found)
    assert len(found) == 15
    assert all(summary.uptime_90d and 9_900 < summary.uptime_90d < 10_000 for summary in found.values())
    assert [bar.uptime is not None for bar in bars("auth", 25, now)] == [False] * 4 + [True] * 21
    since = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    for models, total in (
        ((HealthMinute, HealthHour, HealthDay), "polls"),
        *(
            ((TrafficMinute, TrafficHour, TrafficDay), total)
            for total in ("requests", "client_errors", "retries", "failovers")
        ),
    ):
        sums = {model.objects.filter(bucket__gte=since).aggregate(total=Sum(total))["total"] for model in models}
        assert len(sums) == 1
        assert sums.pop() > 0
    assert latency_series("auth", Side.SERVICE, now - timedelta(days=7), now)
    assert HealthSample.objects.filter(target="auth").count() == 600
    assert TrafficSample.objects.filter(service=None).count() == 600
    assert TrafficDay.objects.filter(service="", side="monolith").exists()
    until = TrafficReading.objects.latest("read_at").read_at
    lately = last_minute(until)
    assert requests_in(lately)["auth"] == {Side.MONOLITH: 120, Side.SERVICE: 120}
    assert {one.service: one.requests for one in lately.still_on_monolith()}[None] == 120
    TrafficReading.objects.all().delete()
    assert last_minute(until) == lately


def test_what_comes_afterwards_is_summed_up_and_spoils_nothing(plan):
    generate("--days", "1")
    before = HealthDay.objects.get(target="auth", bucket__date=timezone.now().date()).polls
    now = timezone.now()
    HealthSample.objects.create(target="auth", polled_at=now + timedelta(minutes=1), healthy=True)
    assert roll_up(HEALTH, now + timedelta(minutes=5))
    assert roll_up(TRAFFIC, now + timedelta(minutes=5))
    assert RollupMark.objects.get(source="health").done_until > now
    today = HealthDay.objects.filter(target="auth").order_by("bucket").aggregate(Sum("polls"))["polls__sum"]
    assert today >= before + 1
    assert HealthSummary.objects.count() == 11


def test_a_database_with_a_history_and_production_are_refused(plan, settings):
    generate("--days", "1")
    count = HealthDay.objects.count()
    with pytest.raises(CommandError, match="has a history already"):
        generate("--days", "1")
    assert HealthDay.objects.count() == count
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="in production"):
        generate()
