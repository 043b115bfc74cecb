"""What came in many windows of time at once: a fixed number of questions, however many windows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from django.db import connection

from migrations_app.gateways.base import NO_LATENCY, Counted, Side

from .downtime import longest_reading


class Window(NamedTuple):
    """Readings of one side of one service (primary key) later than `since` that begin at `begun` or later.

    Nor do they begin before the window, or, where that is shorter, so long ago that most of them is older. `begun` is
    None where it does not matter.
    """

    service: int
    side: Side
    since: datetime
    begun: datetime | None = None


class Seen(NamedTuple):
    """What came in a window. `latency` as LATENCY_BOUNDS has it; empty when it was not asked for."""

    requests: int
    errors: int
    latency: tuple[int, ...] = ()


class RouteWindow(NamedTuple):
    """Readings of all that belongs to `counted`, of one side or of both, later than `since` and up to `until`.

    They begin as those of a `Window`.
    """

    service: int
    counted: Counted
    side: Side | None
    since: datetime
    until: datetime
    begun: datetime | None = None


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """What came in a window. `codes`: status from 400 on -> answers."""

    requests: int = 0
    codes: Mapping[int, int] = field(default_factory=dict)
    retries: int = 0
    latency: tuple[int, ...] = NO_LATENCY

    def count(self, codes: Iterable[int | str]) -> int:
        """Answers with one of these statuses or classes, each once: `[401, "5xx"]`."""
        wanted = {str(code) for code in codes}
        return sum(answers for code, answers in self.codes.items() if {str(code), f"{code // 100}xx"} & wanted)


def traffic_in(windows: Collection[Window], until: datetime, *, timed: Collection[Window] = ()) -> dict[Window, Seen]:
    """What came in each window up to `until`; of those that are `timed`, with response times.

    One question, and one more if there are timed ones: those cost more by the number of ranges. Samples whose response
    times are not known, or were counted by other bounds, are not among these.
    """
    counted = sorted(set(windows) | set(timed))
    if not counted:
        return {}
    sums = "coalesce(sum(requests), 0), coalesce(sum(errors), 0)"
    found = {one: Seen(int(row[0]), int(row[1])) for one, row in zip(counted, _sums(sums, counted, until), strict=True)}
    if slow := sorted(set(timed)):
        ranges = ", ".join(
            f"coalesce(sum(latency[{place}]) FILTER (WHERE cardinality(latency) = {len(NO_LATENCY)}), 0)"
            for place in range(1, len(NO_LATENCY) + 1)
        )
        for one, row in zip(slow, _sums(ranges, slow, until), strict=True):
            found[one] = found[one]._replace(latency=tuple(int(answers) for answers in row))
    return found


def _sums(sums: str, windows: Sequence[Window], until: datetime) -> list[tuple[int, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT found.* FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::timestamptz[]) WITH ORDINALITY
                AS wanted (service, side, since, oldest, place)
            CROSS JOIN LATERAL (
                SELECT {sums} FROM migrations_app_trafficsample
                WHERE service_id = wanted.service AND side = wanted.side AND read_at > wanted.since AND read_at <= %s
                    AND coalesce(begins_at, read_at) >= wanted.oldest
            ) AS found ORDER BY wanted.place
            """,  # noqa: S608  # the sums are constants and numbers
            [*_columns((one.service, one.side.value, one.since, _oldest(one, until)) for one in windows), until],
        )
        found: list[tuple[int, ...]] = cursor.fetchall()
        return found


def routes_in(windows: Collection[RouteWindow]) -> dict[RouteWindow, RouteSeen]:
    """What came in each window. One question."""
    asked = list(dict.fromkeys(windows))
    if not asked:
        return {}
    ranges = ", ".join(
        f"coalesce(sum(latency[{place}]) FILTER (WHERE cardinality(latency) = {len(NO_LATENCY)}), 0)::bigint"
        for place in range(1, len(NO_LATENCY) + 1)
    )
    columns = _columns(
        (
            one.service,
            one.counted.path,
            one.counted.method,
            one.side.value if one.side else "",
            one.since,
            one.until,
            _oldest(one, one.until),
        )
        for one in asked
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT total.requests, total.retries, total.latency, coalesce(told.codes, '{{}}'::jsonb)
            FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[],
                %s::timestamptz[]) WITH ORDINALITY
                AS wanted (service, path, method, side, since, until, oldest, place)
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(retries), 0) AS retries,
                    ARRAY[{ranges}] AS latency
                FROM migrations_app_routesample WHERE {_HELD}
            ) AS total
            CROSS JOIN LATERAL (
                SELECT jsonb_object_agg(code, answers) AS codes FROM (
                    SELECT code, sum(answers::bigint) AS answers
                    FROM migrations_app_routesample, jsonb_each_text(codes) AS one (code, answers)
                    WHERE {_HELD} GROUP BY code
                ) AS by_code
            ) AS told
            ORDER BY wanted.place
            """,  # noqa: S608  # constants and numbers
            columns,
        )
        rows = cursor.fetchall()
    return {
        one: RouteSeen(
            int(requests),
            {int(code): int(answers) for code, answers in _parsed(codes).items()},
            int(retries),
            tuple(int(answers) for answers in latency),
        )
        for one, (requests, retries, latency, codes) in zip(asked, rows, strict=True)
    }


# Of a wanted window: as gateways.base.Counted.holds has it.
_HELD = """service_id = wanted.service AND read_at > wanted.since AND read_at <= wanted.until
    AND coalesce(begins_at, read_at) >= wanted.oldest
    AND (path = wanted.path OR wanted.path = '/' OR starts_with(path, wanted.path || '/'))
    AND (wanted.method IN ('', method)) AND (wanted.side IN ('', side))"""


def _oldest(window: Window | RouteWindow, until: datetime) -> datetime:
    """Where its readings may begin. Within a window that is shorter than a reading none would lie as a whole."""
    reach = min(window.since, until - longest_reading())
    return max(window.begun, reach) if window.begun else reach


def _parsed(codes: str | Mapping[str, int]) -> Mapping[str, int]:
    found: Mapping[str, int] = json.loads(codes) if isinstance(codes, str) else codes
    return found


def _columns(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    """Rows as columns; the rows are not none."""
    return [list(column) for column in zip(*rows, strict=True)]
