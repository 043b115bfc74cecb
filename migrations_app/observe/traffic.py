"""Reads the gateway's counters and keeps the differences: requests to each side of each service."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from migrations_app.gateways.base import Side, SideTraffic
from migrations_app.models import Gateway, Service, TrafficCounter, TrafficSample
from migrations_app.reconcile.adapters import adapter_for

SHARE_WINDOW = timedelta(seconds=60)  # over which a share of traffic is told


def read_once(now: datetime | None = None) -> int:
    """Read every gateway once; the number of samples stored. A gateway that is away raises Unreachable."""
    totals: dict[tuple[str, Side], SideTraffic] = defaultdict(lambda: SideTraffic(0, 0))
    for gateway in Gateway.objects.all():
        for key, counted in adapter_for(gateway).traffic().items():
            before = totals[key]
            totals[key] = SideTraffic(before.requests + counted.requests, before.errors + counted.errors)
    return store(dict(totals), now or timezone.now())


def store(totals: dict[tuple[str, Side], SideTraffic], now: datetime) -> int:
    """Keep what has come since the last reading. A counter that is lower than before was reset: it counts from zero."""
    services = {service.key: service for service in Service.objects.all()}
    with transaction.atomic():
        last = {(row.service_id, row.side): row for row in TrafficCounter.objects.select_for_update().order_by("pk")}
        samples, counters = [], []
        for (key, side), counted in totals.items():
            if key not in services:
                continue
            service = services[key]
            row = last.get((service.pk, side.value))
            if row is not None:
                samples.append(
                    TrafficSample(
                        service=service,
                        side=side.value,
                        read_at=now,
                        requests=_since(row.requests, counted.requests),
                        errors=_since(row.errors, counted.errors),
                    )
                )
            counters.append(
                TrafficCounter(
                    service=service, side=side.value, requests=counted.requests, errors=counted.errors, read_at=now
                )
            )
        samples = [sample for sample in samples if sample.requests or sample.errors]
        TrafficSample.objects.bulk_create(samples)
        TrafficCounter.objects.bulk_create(
            counters,
            update_conflicts=True,
            unique_fields=["service", "side"],
            update_fields=["requests", "errors", "read_at"],
        )
    return len(samples)


def _since(before: int, now: int) -> int:
    return now - before if now >= before else now


def recent(now: datetime | None = None) -> dict[str, dict[Side, int]]:
    """Service key -> side -> requests within the last SHARE_WINDOW. A service without traffic is not in it."""
    since = (now or timezone.now()) - SHARE_WINDOW
    found: dict[str, dict[Side, int]] = defaultdict(lambda: dict.fromkeys(Side, 0))
    rows = (
        TrafficSample.objects.filter(read_at__gt=since)
        .values("service__key", "side")
        .annotate(total=Sum("requests"))
        .order_by()
    )
    for row in rows:
        found[row["service__key"]][Side(row["side"])] = row["total"]
    return dict(found)
