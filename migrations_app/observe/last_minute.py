"""What the gateways counted within the last minute, in one query, and what pages tell of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, repeat
from operator import add, sub
from typing import NamedTuple

from django.db import connection
from django.utils import timezone

from migrations_app.gateways.base import Side

MINUTE = timedelta(seconds=60)
CLOCKS_APART = timedelta(hours=1)  # at most: how far ahead of this clock a reading may lie


class Counts(NamedTuple):
    """Requests meant for one side: all, as gateways.base.SideTraffic has them."""

    requests: int
    errors: int
    failovers: int
    failed_failovers: int

    @property
    def failed(self) -> int:
        """Those that clients saw fail: what failed over did only where the monolith failed too."""
        return max(0, self.errors - self.failovers) + max(0, self.failed_failovers)


NOTHING = Counts(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Remaining:
    """What the monolith still answers of one service, or, without one, of what no route matches.

    `requests` are those to its old side and those that failed over to it; `share`, from 0 to 1, is theirs of all
    requests to the gateway.
    """

    service: str | None
    requests: int
    share: float


@dataclass(frozen=True, slots=True)
class LastMinute:
    """`counts` by service key ("": what no route matches) and side; what had no traffic is not in it.

    `alone`: the service that it is of, when it is not of all.
    """

    counts: Mapping[tuple[str, Side], Counts]
    alone: str | None = None

    def sides(self, service: str) -> tuple[Counts, Counts]:
        """What was meant for the old side of it, and for the new one."""
        if self.alone not in {None, service}:
            raise ValueError(f"the traffic of {service} was not read")
        return self.counts.get((service, Side.MONOLITH), NOTHING), self.counts.get((service, Side.SERVICE), NOTHING)

    def failures(self) -> dict[str, tuple[int, int]]:
        """Service key -> requests of both sides, and how many of them clients saw fail."""
        found: dict[str, tuple[int, int]] = {}
        for (service, _), one in self.counts.items():
            if service and (one.requests or one.errors):
                requests, failed = found.get(service, (0, 0))
                found[service] = (requests + one.requests, failed + one.failed)
        return found

    def still_on_monolith(self) -> list[Remaining]:
        """What the monolith still answers, the most first. Nobody of whom it answers nothing is in it."""
        everything = 0
        served: dict[str, int] = defaultdict(int)
        for (service, side), (requests, _, failovers, _) in self.counts.items():
            # A request may have failed over and not be over yet.
            everything += max(failovers, requests)
            served[service] += requests if side is Side.MONOLITH else failovers
        return [
            Remaining(service or None, requests, requests / everything)
            for service, requests in sorted(served.items(), key=lambda item: (-item[1], item[0]))
            if requests
        ]


# The newest running sums, those at the beginning of the minute, or nearly so, and the names of the services: as lists,
# because a thousand rows take longer to put together and to read than all the rest. `beside`: samples after the newest
# sums are added; those between the beginning and the sums nearest to it are added, or taken away when these are the
# earlier ones. Most of the time there are none of either, and the index tells: PostgreSQL takes a range that is open to
# one side, from a moment that it does not know beforehand, for a third of the day, and reads all of it. What lies
# further back than a day was never read within the minute; that spares it to plan for all days that are kept.
_SUMS = """
WITH last AS (
    SELECT * FROM migrations_app_trafficreading ORDER BY read_at DESC LIMIT 1
), first AS (
    SELECT * FROM migrations_app_trafficreading WHERE read_at >= coalesce(
        (SELECT max(read_at) FROM migrations_app_trafficreading WHERE read_at <= %(since)s), '-infinity'
    ) ORDER BY read_at LIMIT 1
), beside AS (
    SELECT service_id, side, 1 AS sign, requests, errors, failovers, failed_failovers
    FROM migrations_app_trafficsample
    WHERE read_at > %(since)s AND read_at > coalesce((SELECT read_at FROM last), '-infinity') AND read_at < %(soon)s
    UNION ALL
    SELECT service_id, side, sign, requests, errors, failovers, failed_failovers
    FROM migrations_app_trafficsample CROSS JOIN (
        SELECT CASE WHEN read_at > %(since)s THEN 1 ELSE -1 END AS sign FROM first
    ) AS early
    WHERE read_at > least(%(since)s, (SELECT read_at FROM first))
        AND read_at <= greatest((SELECT read_at FROM first), least(%(since)s, (SELECT read_at FROM last)))
        AND read_at > %(yesterday)s AND read_at < %(soon)s
)
"""
_COUNTED = f"""{_SUMS}
SELECT last.services, last.sides, last.requests, last.errors, last.failovers, last.failed_failovers,
    first.requests, first.errors, first.failovers, first.failed_failovers, named.ids, named.keys, (
        SELECT json_agg(json_build_array(service_id, side, sign * requests, sign * errors, sign * failovers,
            sign * failed_failovers)) FROM beside
    )
FROM (SELECT array_agg(id) AS ids, array_agg(key) AS keys FROM migrations_app_service) AS named
LEFT JOIN last ON true LEFT JOIN first ON true
"""  # noqa: S608  # constants
# Not from its samples: those of the last minute are newer than what PostgreSQL knows of the table, so it takes them for
# few, and reads those of all services.
_COUNTED_OF_ONE = f"""{_SUMS}, service AS (SELECT id FROM migrations_app_service WHERE key = %(service)s)
SELECT side, sum(requests)::bigint, sum(errors)::bigint, sum(failovers)::bigint, sum(failed_failovers)::bigint
FROM (
    SELECT place.side, last.requests[at] - coalesce(first.requests[at], 0) AS requests,
        last.errors[at] - coalesce(first.errors[at], 0) AS errors,
        last.failovers[at] - coalesce(first.failovers[at], 0) AS failovers,
        coalesce(last.failed_failovers[at], 0) - coalesce(first.failed_failovers[at], 0) AS failed_failovers
    FROM last CROSS JOIN first
    CROSS JOIN LATERAL unnest(last.services, last.sides) WITH ORDINALITY AS place (service_id, side, at)
    WHERE place.service_id = (SELECT id FROM service)
    UNION ALL
    SELECT side, sign * requests, sign * errors, sign * failovers, sign * failed_failovers
    FROM beside WHERE service_id = (SELECT id FROM service)
) AS parts GROUP BY side
"""  # noqa: S608  # constants
_SIDES = {side.value: side for side in Side}


def last_minute(now: datetime | None = None) -> LastMinute:
    """One query, whose cost does not grow with the number of readings."""
    now = now or timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED, _moments(now))
        services, sides, *lists, ids, keys, beside = (value or [] for value in cursor.fetchone())
    sums, before = lists[: len(Counts._fields)], lists[len(Counts._fields) :]
    names = {None: "", **dict(zip(ids, keys, strict=True))}
    places = zip(map(names.get, services), map(_SIDES.__getitem__, sides), strict=True)
    found = dict(zip(places, map(Counts, *map(_since, sums, before)), strict=False))
    for service, side, *counts in beside:
        key = names.get(service), _SIDES[side]
        found[key] = Counts._make(map(add, found.get(key, NOTHING), counts))
    return LastMinute({(name, side): one for (name, side), one in found.items() if name is not None and any(one)})


def last_minute_of(service: str, now: datetime) -> LastMinute:
    """The same of one service alone, and the same query but for what is brought here."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED_OF_ONE, {"service": service, **_moments(now)})
        return LastMinute({(service, _SIDES[side]): Counts(*counts) for side, *counts in cursor.fetchall()}, service)


def _moments(now: datetime) -> dict[str, datetime]:
    return {"since": now - MINUTE, "yesterday": now - timedelta(days=1), "soon": now + CLOCKS_APART}


def _since(sums: Iterable[int], before: Iterable[int]) -> Iterator[int]:
    """The differences, for ever: a list that is shorter than others was begun before it had anything to count."""
    return map(sub, chain(sums, repeat(0)), chain(before, repeat(0)))
