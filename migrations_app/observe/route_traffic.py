"""Reads what the gateways count by itself, and keeps the differences for as long as triggers and pages look back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from migrations_app.gateways.base import Counted, RouteTraffic, Side
from migrations_app.gateways.errors import Unreachable
from migrations_app.models import Gateway, RouteCounter, RouteReading, RouteSample, Service
from migrations_app.reconcile.adapters import adapter_for

from .parts import delete_in_parts
from .traffic import MOST, at_most

# A trigger looks back for an hour, and for as long again before a change of weight.
KEPT_FOR = timedelta(hours=2, minutes=10)
STORE_LOCK = 0x5357_5252  # two readings that are stored at once would both count the same requests

Key = tuple[int, Counted, Side]  # primary key of a service
Totals = Mapping[tuple[str, Counted, Side], RouteTraffic]


def read_once(now: datetime | None = None) -> int:
    """Read every gateway once; the number of samples stored. One question where nothing is counted by itself.

    A gateway that is away is passed over: what it counted meanwhile comes with its next reading. One that the last look
    at it found so is not even asked, as triggers wait for this, and one that hangs is waited for.
    """
    if not Service.objects.exclude(counted=[]).exists():
        return 0
    found: dict[int, Totals] = {}
    asked = timezone.now()
    for gateway in Gateway.objects.filter(observed_generation__isnull=False):
        try:
            found[gateway.pk] = adapter_for(gateway).traffic_of_routes()
        except Unreachable:
            continue
    return store(found, now or timezone.now(), now or asked)


def store(found: Mapping[int, Totals], now: datetime, asked: datetime | None = None) -> int:
    """Keep what each gateway (primary key) has counted since its last reading. The number of samples stored.

    A counter that is lower than before was reset: it counts from zero. The first reading of a gateway tells where its
    counters stand; one that comes later beside others was silent until then, and its first requests count.
    `asked` as in observe.traffic.store_all.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [STORE_LOCK])
        wanted = {
            name: (pk, {Counted(**one) for one in counted})
            for name, pk, counted in Service.objects.exclude(counted=[]).values_list("key", "pk", "counted")
        }
        last = {(row.gateway_id, *_key(row)): row for row in RouteCounter.objects.filter(gateway__in=found)}
        known = {gateway for gateway, *_ in last}
        read_before = dict(RouteReading.objects.filter(gateway__in=found).values_list("gateway", "read_at"))
        samples: dict[Key, RouteTraffic] = defaultdict(RouteTraffic)
        begins: dict[Key, datetime] = {}
        changed = []
        for gateway, totals in found.items():
            for (name, counted, side), total in totals.items():
                service, ours = wanted.get(name, (0, set()))
                if counted not in ours:
                    continue
                key = (service, counted, side)
                before = last.get((gateway, *key))
                if before is not None and _same(before, total):
                    continue
                changed.append(_counter(gateway, key, total))
                if before is not None:
                    samples[key] += _since(before, total)
                elif gateway in known:
                    samples[key] += total
                begins[key] = min(begins.get(key, now), read_before.get(gateway, now))
        rows = [_sample(key, one, begins[key], now) for key, one in samples.items() if one.requests or any(one.latency)]
        RouteSample.objects.bulk_create(rows)
        RouteCounter.objects.bulk_create(
            changed,
            update_conflicts=True,
            unique_fields=["gateway", "service", "path", "method", "side"],
            update_fields=["requests", "codes", "retries", "latency"],
        )
        RouteReading.objects.bulk_create(
            [RouteReading(gateway_id=gateway, read_at=asked or now) for gateway in found],
            update_conflicts=True,
            unique_fields=["gateway"],
            update_fields=["read_at"],
        )
    return len(rows)


def forget_old(now: datetime) -> int:
    """Delete what is older than it is kept. The number of samples deleted."""
    return delete_in_parts(RouteSample.objects.filter(read_at__lt=now - KEPT_FOR))


def _key(row: RouteCounter) -> Key:
    return row.service_id, Counted(row.path, row.method), Side(row.side)


def _codes(row: RouteCounter) -> dict[int, int]:
    return {int(code): answers for code, answers in row.codes.items()}


def _same(row: RouteCounter, total: RouteTraffic) -> bool:
    stood = (row.requests, _codes(row), row.retries, tuple(row.latency))
    return stood == (total.requests, dict(total.codes), total.retries, total.latency)


def _since(row: RouteCounter, total: RouteTraffic) -> RouteTraffic:
    """What came in between. One restart resets all counters of a gateway, which not every one of them shows."""
    before = _codes(row)
    pairs = [(row.requests, total.requests), (row.retries, total.retries)]
    pairs += [(answers, total.codes.get(code, 0)) for code, answers in before.items()]
    told = len(row.latency) == len(total.latency)
    ranges = list(zip(row.latency, total.latency, strict=True)) if told else []
    if any(new < old for old, new in (*pairs, *ranges)):
        return total
    return RouteTraffic(
        total.requests - row.requests,
        {code: more for code, answers in total.codes.items() if (more := answers - before.get(code, 0))},
        total.retries - row.retries,
        tuple(new - old for old, new in ranges),
    )


def _counter(gateway: int, key: Key, total: RouteTraffic) -> RouteCounter:
    service, counted, side = key
    return RouteCounter(
        gateway_id=gateway,
        service_id=service,
        path=counted.path,
        method=counted.method,
        side=side.value,
        requests=total.requests,
        codes=dict(total.codes),
        retries=total.retries,
        latency=list(total.latency),
    )


def _sample(key: Key, one: RouteTraffic, begins_at: datetime, now: datetime) -> RouteSample:
    service, counted, side = key
    return RouteSample(
        service_id=service,
        path=counted.path,
        method=counted.method,
        side=side.value,
        begins_at=begins_at,
        read_at=now,
        requests=min(one.requests, MOST),
        codes=dict(one.codes),
        retries=min(one.retries, MOST),
        latency=list(at_most(one.latency)),
    )
