"""Reads the gateway's counters and keeps the differences: requests to each side of each service."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import connection, transaction
from django.utils import timezone

from migrations_app.gateways.base import NO_LATENCY, Side, SideTraffic
from migrations_app.live import Topic, tell
from migrations_app.models import Gateway, Service, TrafficCounter, TrafficSample
from migrations_app.reconcile.adapters import adapter_for

Row = TypeVar("Row", TrafficCounter, TrafficSample)
SHARE_WINDOW = timedelta(seconds=60)  # over which a share of traffic is told
# How long every reading is kept on its own; after that one sample stands for each minute. To add up a day of one side,
# read every two seconds, took over a second; by the minute a twentieth, and checks add up days, again and again.
SINGLE_FOR = timedelta(minutes=10)
SUMMED_RANGES = ", ".join(f"sum(latency[{position}])" for position in range(1, len(NO_LATENCY) + 1))


def read_once(now: datetime | None = None) -> int:
    """Read every gateway once; the number of samples stored. A gateway that is away raises Unreachable."""
    totals: dict[tuple[str, Side], SideTraffic] = defaultdict(lambda: SideTraffic(0, 0))
    for gateway in Gateway.objects.all():
        for key, counted in adapter_for(gateway).traffic().items():
            totals[key] += counted
    return store(dict(totals), now or timezone.now())


def store(totals: dict[tuple[str, Side], SideTraffic], now: datetime) -> int:
    """Keep what has come since the last reading. A counter that is lower than before was reset: it counts from zero.

    Response times that this reading or the last one did not tell are an empty list in the sample. The minutes that have
    got older than SINGLE_FOR since the last reading are put together.
    """
    services = {service.key: service for service in Service.objects.all()}
    with transaction.atomic():
        last = {(row.service_id, row.side): row for row in TrafficCounter.objects.select_for_update().order_by("pk")}
        known = {service for service, _ in last}
        samples, counters = [], []
        for (key, side), counted in totals.items():
            if key not in services:
                continue
            service = services[key]
            row = last.get((service.pk, side.value))
            # A side without a counter beside one that has one was silent until now: its first requests count.
            before = _traffic(row) if row else SideTraffic(0, 0) if service.pk in known else None
            if before is not None:
                samples.append(_row(TrafficSample, service, side, _since(before, counted), now))
            counters.append(_row(TrafficCounter, service, side, counted, now))
        if last:
            _merge_minutes(max(row.read_at for row in last.values()) - SINGLE_FOR, now - SINGLE_FOR)
        samples = [sample for sample in samples if sample.requests or sample.errors or any(sample.latency)]
        TrafficSample.objects.bulk_create(samples)
        TrafficCounter.objects.bulk_create(
            counters,
            update_conflicts=True,
            unique_fields=["service", "side"],
            update_fields=["requests", "errors", "latency", "read_at"],
        )
        if samples:
            tell(Topic.TRAFFIC)
    return len(samples)


def _row(model: type[Row], service: Service, side: Side, counted: SideTraffic, now: datetime) -> Row:
    return model(
        service=service,
        side=side.value,
        read_at=now,
        requests=counted.requests,
        errors=counted.errors,
        latency=list(counted.latency),
    )


def _traffic(row: TrafficCounter) -> SideTraffic:
    return SideTraffic(row.requests, row.errors, tuple(row.latency))


def _since(before: SideTraffic, now: SideTraffic) -> SideTraffic:
    """What came in between. One gateway restart resets all of a side's counters, which not every one of them shows."""
    told = len(before.latency) == len(now.latency)
    pairs = [(before.requests, now.requests), (before.errors, now.errors)]
    pairs += zip(before.latency, now.latency, strict=True) if told else []
    if any(new < old for old, new in pairs):
        return now
    requests, errors, *latency = (new - old for old, new in pairs)
    return SideTraffic(requests, errors, tuple(latency))


def _merge_minutes(since: datetime, until: datetime) -> None:
    """One sample for each side and minute, from the minute of `since` up to that of `until`, which is left alone.

    It is read at the last reading of the minute. Response times that are not known are missing in its own.
    """
    since, until = (at.replace(second=0, microsecond=0) for at in (since, until))
    if since >= until:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH moved AS (
                DELETE FROM migrations_app_trafficsample WHERE read_at >= %s AND read_at < %s
                RETURNING service_id, side, read_at, requests, errors,
                    CASE cardinality(latency) WHEN %s THEN latency END AS latency
            )
            INSERT INTO migrations_app_trafficsample (service_id, side, read_at, requests, errors, latency)
            SELECT service_id, side, max(read_at), sum(requests), sum(errors),
                CASE WHEN count(latency) > 0 THEN ARRAY[{SUMMED_RANGES}] ELSE '{{}}' END
            FROM moved GROUP BY service_id, side, date_trunc('minute', read_at)
            """,  # noqa: S608  # the ranges are numbers
            [since, until, len(NO_LATENCY)],
        )


def recent(now: datetime | None = None) -> dict[str, dict[Side, int]]:
    """Service key -> side -> requests within the last SHARE_WINDOW. A service without traffic is not in it."""
    since = (now or timezone.now()) - SHARE_WINDOW
    found: dict[str, dict[Side, int]] = defaultdict(lambda: dict.fromkeys(Side, 0))
    with connection.cursor() as cursor:
        # Summed up before the names are looked up: with 500 services these are 60,000 rows.
        cursor.execute(
            """
            SELECT key, side, total FROM (
                SELECT service_id, side, sum(requests) AS total FROM migrations_app_trafficsample
                WHERE read_at > %s GROUP BY service_id, side
            ) AS sums JOIN migrations_app_service AS service ON service.id = service_id
            """,
            [since],
        )
        for key, side, total in cursor.fetchall():
            found[key][Side(side)] = int(total)
    return dict(found)


def recent_errors(now: datetime | None = None) -> dict[str, tuple[int, int]]:
    """Service key -> requests and errors of both sides within the last SHARE_WINDOW."""
    since = (now or timezone.now()) - SHARE_WINDOW
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT key, requests, errors FROM (
                SELECT service_id, sum(requests) AS requests, sum(errors) AS errors FROM migrations_app_trafficsample
                WHERE read_at > %s GROUP BY service_id
            ) AS sums JOIN migrations_app_service AS service ON service.id = service_id
            """,
            [since],
        )
        return {key: (int(requests), int(errors)) for key, requests, errors in cursor.fetchall()}
