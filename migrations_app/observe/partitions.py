"""Partitions of what grows with time: made ahead, and dropped by age, which costs the same however much is in them.

No write waits for a partition: a default one takes what has none yet, and is emptied here.
"""
# ruff: noqa: S608  # statements are put together from names in this file, never from what somebody sent

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Greatest

from migrations_app.models import RollupMark

AHEAD = timedelta(days=3)
DELETED_AT_ONCE = 10_000  # rows
PARTITION_LOCK = 0x5357_5041
logger = logging.getLogger(__name__)
Source = Literal["health", "traffic"]


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table with a partition for each day, or each month, of UTC. `kept` names the setting of days to keep.

    `room` is how full, in per cent, pages are filled at first: rows that are updated need some beside them. `summed_up`
    tables are dropped no further than the rollups of their source have come.
    """

    table: str
    column: str
    span: Literal["day", "month"]
    kept: str
    source: Source
    room: int = 100
    summed_up: bool = False

    def range_of(self, at: datetime) -> tuple[datetime, datetime]:
        """The partition that this moment belongs in: from, and until (not in it)."""
        since = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.span == "day":
            return since, since + timedelta(days=1)
        since = since.replace(day=1)
        return since, (since + timedelta(days=32)).replace(day=1)

    def name_of(self, since: datetime) -> str:
        return f"{self.table}_{since:%Y%m%d}" if self.span == "day" else f"{self.table}_{since:%Y%m}"

    def oldest(self, now: datetime) -> datetime:
        """What is older may go."""
        return now - timedelta(days=getattr(settings, self.kept))


SAMPLES = (
    Partitioned("migrations_app_healthsample", "polled_at", "day", "HEALTH_RAW_DAYS", "health", summed_up=True),
    Partitioned("migrations_app_trafficsample", "read_at", "day", "HISTORY_DAYS", "traffic", summed_up=True),
)
ROLLUPS = (
    Partitioned("migrations_app_healthminute", "bucket", "day", "MINUTE_DAYS", "health", room=90),
    Partitioned("migrations_app_trafficminute", "bucket", "day", "MINUTE_DAYS", "traffic", room=90),
    Partitioned("migrations_app_healthhour", "bucket", "month", "HOUR_DAYS", "health", room=60),
    Partitioned("migrations_app_traffichour", "bucket", "month", "HOUR_DAYS", "traffic", room=60),
)
PARTITIONED = SAMPLES + ROLLUPS


def make_ahead(now: datetime) -> int:
    """Make the partitions of today, the days ahead, and those that rows wait for in a default one.

    The number of rows moved out of the default partitions. Rows of a farther future stay there until their day.
    """
    moved = 0
    present = _present()
    for kind in PARTITIONED:
        wanted = {kind.range_of(now + timedelta(days=day)) for day in range(AHEAD.days + 1)}
        wanted |= {
            kind.range_of(day)
            for day in _days_in_default(kind)
            if kind.oldest(now) < kind.range_of(day)[1] <= now + AHEAD
        }
        for since, until in sorted(wanted):
            if kind.name_of(since) not in present[kind.table]:
                moved += _make(kind, since, until)
    return moved


def drop_old(now: datetime) -> list[str]:
    """Drop the partitions that are older than they are kept; their names. Samples stay until they are summed up.

    What was made of them is never computed anew from then on: without them it would come out too low.
    """
    dropped = []
    present = _present()
    done = dict(RollupMark.objects.values_list("source", "done_until"))
    for kind in PARTITIONED:
        oldest = kind.oldest(now)
        if kind.summed_up:
            if kind.source not in done:
                continue
            oldest = min(oldest, done[kind.source] - timedelta(hours=1))
        kept_from, _ = kind.range_of(oldest)
        RollupMark.objects.filter(source=kind.source).update(
            complete_from=Greatest(Coalesce(F("complete_from"), kept_from), kept_from)
        )
        for name, until in _ends(kind, present[kind.table]):
            if until <= kept_from and _drop(name):
                dropped.append(name)
        _delete_from_default(kind, kept_from)
    return dropped


def _present() -> dict[str, set[str]]:
    """Table -> the names of its partitions."""
    found: dict[str, set[str]] = defaultdict(set)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT parent.relname, child.relname FROM pg_inherits
            JOIN pg_class AS parent ON parent.oid = inhparent JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = ANY(%s::regclass[])
            """,
            [[kind.table for kind in PARTITIONED]],
        )
        for table, name in cursor.fetchall():
            found[table].add(name)
    return found


def _ends(kind: Partitioned, names: set[str]) -> Iterator[tuple[str, datetime]]:
    for name in sorted(names - {f"{kind.table}_default"}):
        day = name.removeprefix(f"{kind.table}_")
        yield name, kind.range_of(datetime.strptime(f"{day}01"[:8] + "+0000", "%Y%m%d%z"))[1]


def _days_in_default(kind: Partitioned) -> list[datetime]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT date_trunc('day', {kind.column}, 'UTC') FROM {kind.table}_default")
        return [day for (day,) in cursor.fetchall()]


def _make(kind: Partitioned, since: datetime, until: datetime) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s), to_regclass(%s)", [PARTITION_LOCK, kind.name_of(since)])
        if cursor.fetchone()[1] is not None:
            return 0
        cursor.execute(
            "SELECT switchyard_add_partition(%s, %s, %s, %s, %s, %s)",
            [kind.table, kind.column, kind.name_of(since), since, until, f"fillfactor={kind.room}"],
        )
        return int(cursor.fetchone()[0])


def _drop(name: str) -> bool:
    """Whether it is gone. Whoever reads or writes the table from now on waits behind us, so we wait but briefly."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '500ms'")
            cursor.execute(f"DROP TABLE {name}")
    except OperationalError as error:
        logger.warning("partition %s is not dropped yet: %s", name, error)
        return False
    return True


def _delete_from_default(kind: Partitioned, kept_from: datetime) -> None:
    """In parts, each within the time limit of a statement. Hardly ever is anything there."""
    table = f"{kind.table}_default"
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("
                f"SELECT ctid FROM {table} WHERE {kind.column} < %s LIMIT %s))",
                [kept_from, DELETED_AT_ONCE],
            )
            if cursor.rowcount < DELETED_AT_ONCE:
                return
