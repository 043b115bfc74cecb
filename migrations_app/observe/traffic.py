"""Reads the gateways' counters and keeps the differences: requests to each side of each service."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from migrations_app.gateways.base import NO_LATENCY, Side, SideTraffic
from migrations_app.gateways.errors import Unreachable
from migrations_app.live import Topic, tell
from migrations_app.models import Gateway, Service, TrafficCounter, TrafficReading
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.side_by_side import SideBySide

from .last_minute import MINUTE

READINGS_FOR = 2 * MINUTE  # how long running sums are kept: the newest before the window is needed too
# How long every reading is kept on its own; after that one sample stands for each minute. To add up a day of one side,
# read every two seconds, took over a second; by the minute a twentieth, and checks add up days, again and again.
SINGLE_FOR = timedelta(minutes=10)
MOST = 2**31 - 1  # of a number of a sample: counters that were read before a backup of the database may be far on
SUMMED_RANGES = ", ".join(f"least(sum(latency[{place}]), {MOST})" for place in range(1, len(NO_LATENCY) + 1))
STORE_LOCK = 0x5357_5243  # two readings that are stored at once would both count the same requests

Key = tuple[int | None, str]  # primary key of a service, None for what no route matches; and a side
Totals = Mapping[tuple[str, Side], SideTraffic]


class _Counter(NamedTuple):
    """A row of TrafficCounter."""

    requests: int
    errors: int
    client_errors: int | None
    retries: int | None
    failovers: int | None
    failed_failovers: int | None
    latency: list[int]
    read_at: datetime


_OF_COUNTER = ("gateway_id", "service_id", "side", *_Counter._fields)
_COUNTS = _Counter._fields[:6]  # columns of counters and of samples, as SideTraffic has them
_COUNT_COLUMNS = ", ".join(_COUNTS)


class _Sample(NamedTuple):
    """What came to a side later than `begins_at`."""

    counted: SideTraffic
    begins_at: datetime

    def with_(self, other: _Sample) -> _Sample:
        return _Sample(self.counted + other.counted, min(self.begins_at, other.begins_at))


def read_once(now: datetime | None = None) -> int:
    """Read every gateway once; the number of samples stored.

    A gateway that is away is passed over: what it counts meanwhile comes with its next reading. Raises Unreachable when
    none answers.
    """
    gateways, asked = {gateway.pk: gateway for gateway in Gateway.objects.all()}, timezone.now()
    readings, away = _read(gateways)
    for key, reading in readings.items():
        _keep_failing_over(gateways[key], reading.failing_over)
    if away is not None and not readings:
        raise away
    totals = {key: reading.totals for key, reading in readings.items()}
    return store_all(totals, now or timezone.now(), now or asked, away=len(readings) < len(gateways))


@dataclass(frozen=True, slots=True)
class _Reading:
    totals: Totals
    failing_over: dict[str, str]


_rounds: SideBySide[_Reading] = SideBySide()


def _ask(gateway: Gateway) -> _Reading:
    """Uses no database: several gateways are asked in threads. Raises Unreachable."""
    adapter = adapter_for(gateway)
    return _Reading(adapter.traffic(), adapter.failing_over())


def _read(gateways: Mapping[int, Gateway]) -> tuple[dict[int, _Reading], Unreachable | None]:
    """By primary key, of the gateways that answer; and why another one does not."""
    found: dict[int, _Reading] = {}
    away: Unreachable | None = None
    if len(gateways) < 2:
        return {key: _ask(gateway) for key, gateway in gateways.items()}, None
    answered = {key for key, gateway in gateways.items() if gateway.observed_generation is not None}
    calls = {key: partial(_ask, gateway) for key, gateway in gateways.items()}
    for key, called in _rounds.round(calls, wait_for=answered):
        try:
            found[key] = called.result()
        except Unreachable as error:
            away = error
    return found, away


def _keep_failing_over(gateway: Gateway, services: dict[str, str]) -> None:
    if services == gateway.failing_over:
        return
    with transaction.atomic():
        Gateway.objects.filter(pk=gateway.pk).update(failing_over=services)
        tell(Topic.GATEWAY, gateway.key)


def store(totals: Totals, now: datetime) -> int:
    """As `store_all`, of a plan with one gateway."""
    return store_all({Gateway.objects.values_list("pk", flat=True).get(): totals}, now)


def store_all(
    readings: Mapping[int, Totals], now: datetime, asked: datetime | None = None, *, away: bool = False
) -> int:
    """Keep what has come since the last reading of each gateway, by their primary keys; added up, in one sample a side.

    `asked`: when the gateways were asked, `now` unless told. What they count after that is of the next reading or of
    this one, so the next one begins there; of several gateways a sample begins where the first one's does. `away`: one
    did not answer.

    A counter that is lower than before was reset, with its gateway: it counts from zero. Response times that a reading
    or the one before did not tell are an empty list in the sample. The minutes that have got older than SINGLE_FOR
    since the last reading are put together. The number of samples stored.
    """
    services: dict[str, int | None] = {"": None, **dict(Service.objects.values_list("key", "pk"))}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [STORE_LOCK])
        last: dict[int, dict[Key, _Counter]] = defaultdict(dict)
        for gateway, service, side, *columns in TrafficCounter.objects.values_list(*_OF_COUNTER):
            last[gateway][service, side] = _Counter(*columns)
        samples: dict[Key, _Sample] = {}
        counters: dict[tuple[int, Key], SideTraffic] = {}
        for gateway, totals in readings.items():
            own = {(services[name], side.value): one for (name, side), one in totals.items() if name in services}
            counters |= {(gateway, key): one for key, one in own.items()}
            for key, one in _new(last[gateway], own).items():
                sample = _Sample(one, min(_read_before(last[gateway], key), now))
                samples[key] = samples[key].with_(sample) if key in samples else sample
        before = [row.read_at for rows in last.values() for row in rows.values()]
        if before:
            newest = max(before)
            _merge_minutes(newest - SINGLE_FOR, min(now - SINGLE_FOR, newest + 2 * MINUTE))
        _add_samples(samples, now)
        _set_counters(counters, asked or now)
        _add_up(now, away)
        if samples:
            tell(Topic.TRAFFIC)
    return len(samples)


def _new(last: Mapping[Key, _Counter], totals: Mapping[Key, SideTraffic]) -> dict[Key, SideTraffic]:
    """What came to each side of one gateway since its last reading."""
    found: dict[Key, SideTraffic] = {}
    known = {service for service, _ in last}
    for key, counted in totals.items():
        if key in last:
            found[key] = _since(_before(last[key], counted), counted)
        elif key[0] in known:
            # A side without a counter beside one that has one was silent until now: its first requests count.
            found[key] = counted
    return {key: one for key, one in found.items() if any(_counts(one)) or any(one.latency)}


def _read_before(last: Mapping[Key, _Counter], key: Key) -> datetime:
    """When the last reading was; of a side that was silent until now, that of the one beside it."""
    if row := last.get(key):
        return row.read_at
    return max(row.read_at for (service, _), row in last.items() if service == key[0])


def _before(row: _Counter, counted: SideTraffic) -> SideTraffic:
    """The last reading. What was not read then counts from this one on."""
    return SideTraffic(
        row.requests,
        row.errors,
        tuple(row.latency),
        counted.client_errors if row.client_errors is None else row.client_errors,
        counted.retries if row.retries is None else row.retries,
        counted.failovers if row.failovers is None else row.failovers,
        counted.failed_failovers if row.failed_failovers is None else row.failed_failovers,
    )


def _since(before: SideTraffic, now: SideTraffic) -> SideTraffic:
    """What came in between. One gateway restart resets all of a side's counters, which not every one of them shows."""
    told = len(before.latency) == len(now.latency)
    pairs = list(zip(_counts(before), _counts(now), strict=True))
    ranges = list(zip(before.latency, now.latency, strict=True)) if told else []
    if any(new < old for old, new in (*pairs, *ranges)):
        return now
    requests, errors, *more = (new - old for old, new in pairs)
    return SideTraffic(requests, errors, tuple(new - old for old, new in ranges), *more)


def _counts(one: SideTraffic) -> tuple[int, ...]:
    """In the order of _COUNTS."""
    return one.requests, one.errors, one.client_errors, one.retries, one.failovers, one.failed_failovers


def at_most(counts: Sequence[int]) -> Sequence[int]:
    """With MOST for what is above: a number that does not fit would fail this reading, and each one after it."""
    return counts if max(counts, default=0) <= MOST else [min(count, MOST) for count in counts]


def _add_samples(samples: Mapping[Key, _Sample], now: datetime) -> None:
    """Binary COPY, as polls are written (observe.health)."""
    columns = f"service_id, side, begins_at, read_at, {_COUNT_COLUMNS}, latency"
    into = f"COPY migrations_app_trafficsample ({columns}) FROM STDIN (FORMAT BINARY)"
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(into) as copy:
        copy.set_types(["int8", "varchar", "timestamptz", "timestamptz", *["int4"] * len(_COUNTS), "int4[]"])
        for (service, side), (one, begins_at) in samples.items():
            copy.write_row((service, side, begins_at, now, *at_most(_counts(one)), list(at_most(one.latency))))


def _set_counters(counters: Mapping[tuple[int, Key], SideTraffic], now: datetime) -> None:
    """In one statement. Those of a gateway that a load of the plan has taken out meanwhile are left out."""
    values = counters.values()
    keys = zip(*((gateway, *key) for gateway, key in counters), strict=True) if counters else ((),) * 3
    counts = zip(*map(_counts, values), strict=True) if counters else ((),) * len(_COUNTS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH still_there AS (SELECT id FROM migrations_app_gateway FOR KEY SHARE)
            INSERT INTO migrations_app_trafficcounter
                (gateway_id, service_id, side, {_COUNT_COLUMNS}, latency, read_at)
            SELECT *, %s FROM unnest(
                %s::bigint[], %s::bigint[], %s::text[], {"%s::bigint[], " * len(_COUNTS)} %s::jsonb[]
            ) AS counted (gateway_id) WHERE gateway_id IN (SELECT id FROM still_there)
            ON CONFLICT (gateway_id, service_id, side) DO UPDATE SET ({_COUNT_COLUMNS}, latency, read_at) = ROW(
                {", ".join(f"excluded.{column}" for column in _COUNTS)}, excluded.latency, excluded.read_at
            )
            """,  # noqa: S608  # names of columns
            [now, *map(list, keys), *map(list, counts), [json.dumps(one.latency) for one in values]],
        )


def _add_up(now: datetime, away: bool) -> None:
    """Write the running sums with the samples since the last ones, up to `now`, whoever stored them.

    They begin anew when the clock was set back: what is summed up already cannot be told from what is still to come.
    """
    row = TrafficReading.objects.order_by("-read_at").first()
    if row is None or row.read_at >= now:
        TrafficReading.objects.all().delete()
        row = TrafficReading(read_at=now, services=[], sides=[], requests=[], errors=[], failovers=[])
    places = {key: place for place, key in enumerate(zip(row.services, row.sides, strict=True))}
    row.failed_failovers += [0] * (len(row.services) - len(row.failed_failovers))
    columns = row.requests, row.errors, row.failovers, row.failed_failovers
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT service_id, side, sum(requests)::bigint, sum(errors)::bigint, sum(failovers)::bigint,
                sum(failed_failovers)::bigint
            FROM migrations_app_trafficsample WHERE read_at > %s AND read_at <= %s GROUP BY service_id, side
            """,
            [row.read_at, now],
        )
        for service, side, *counts in cursor.fetchall():
            place = places.get((service, side), len(row.services))
            if place == len(row.services):
                row.services.append(service)
                row.sides.append(side)
                for column in columns:
                    column.append(0)
            for column, count in zip(columns, counts, strict=True):
                column[place] += count
    row.read_at, row.away = now, away
    TrafficReading.objects.bulk_create([row])
    TrafficReading.objects.filter(read_at__lt=now - READINGS_FOR).delete()


def _merge_minutes(since: datetime, until: datetime) -> None:
    """One sample for each side and minute, from the minute of `since` up to that of `until`, which is left alone.

    It begins with the first reading of the minute, and is read at the last one. Response times that are not known are
    missing in its own. A statement for each minute: after a stop of the workers there are several, and all at once of
    many services would take longer than a statement may.
    """
    since, until = (at.replace(second=0, microsecond=0) for at in (since, until))
    while since < until:
        _merge(since, since + MINUTE)
        since += MINUTE


def _merge(since: datetime, until: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH moved AS (
                DELETE FROM migrations_app_trafficsample WHERE read_at >= %s AND read_at < %s
                RETURNING service_id, side, begins_at, read_at, {_COUNT_COLUMNS},
                    CASE cardinality(latency) WHEN %s THEN latency END AS latency
            )
            INSERT INTO migrations_app_trafficsample
                (service_id, side, begins_at, read_at, {_COUNT_COLUMNS}, latency)
            SELECT service_id, side, min(coalesce(begins_at, read_at)), max(read_at),
                {", ".join(f"least(sum({column}), {MOST})" for column in _COUNTS)},
                CASE WHEN count(latency) > 0 THEN ARRAY[{SUMMED_RANGES}] ELSE '{{}}' END
            FROM moved GROUP BY service_id, side, date_trunc('minute', read_at)
            """,  # noqa: S608  # the ranges are numbers
            [since, until, len(NO_LATENCY)],
        )
