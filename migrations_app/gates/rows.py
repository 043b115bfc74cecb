"""What a plan's flags and targets are now, read as columns: gates are judged by it, and pages show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection
from django.utils import timezone

from migrations_app.choices import Health
from migrations_app.models.health import MONOLITH_TARGET, trusted_for

_HEALTH = {state.value: state for state in Health}


class FlagRow(NamedTuple):
    """A flag, its service and the routes of that, as columns: models take ten times as long, and plans are long."""

    week: int
    id: int
    key: str
    weight: int
    generation: int
    changed: float | None  # seconds since 1970
    service_id: int
    service: str  # its key
    title: str
    area: str
    owner: str
    host: str
    port: int
    strip: str
    health_path: str
    new_side_only: bool
    prefixes: list[str]
    point_of_no_return: str
    rollout: str | None  # the one under way, as JSON: state, position, steps, generation, since (as above), because

    @property
    def changed_at(self) -> datetime | None:
        return None if self.changed is None else _moment(self.changed)


class TargetHealth(NamedTuple):
    """The state of a target as it counts now, since when, and the milliseconds of the last answer."""

    state: Health
    error: str
    since: datetime
    milliseconds: float | None


class Scope(NamedTuple):
    """What gates look at: weeks by their numbers, those that services are in, and the monolith."""

    weeks: Collection[int]
    services: Collection[str]


def current_health(now: datetime | None = None) -> dict[str, tuple[Health, str]]:
    """Target -> (state, error). A state that no poll has confirmed for HealthState.trusted_for is unknown.

    So is one that lies as far in the future, from before the clock was put back, until the next poll.
    """
    now = now or timezone.now()
    found = {}
    for target, age, state, error, stale_after in fetched(_AGES, [now]):
        health = _health_at(now, age, state, error, now, None, stale_after)
        found[target] = (health.state, health.error)
    return found


# Moments as numbers: to make a thousand of them readable takes longer than to read them.
_AGES = """
    SELECT target, extract(epoch FROM %s - polled_at)::float8, state, error, stale_after FROM migrations_app_healthstate
"""


def _health_at(now: datetime, age: float, *row: Any) -> TargetHealth:
    """`age` of the last poll in seconds; `row`: state, error, since, milliseconds, stale_after."""
    state, error, since, milliseconds, stale_after = row
    if abs(age) > settings.HEALTH_STALE_AFTER and abs(age) > trusted_for(stale_after).total_seconds():
        if age > 0:
            last = now - timedelta(seconds=age)
            return TargetHealth(Health.UNKNOWN, f"the last poll was {int(age)} s ago", last, None)
        return TargetHealth(Health.UNKNOWN, "no poll since the clock was put back", now, None)
    known = _HEALTH[state]
    return TargetHealth(known, error, since, None if known is Health.UNKNOWN else milliseconds)


# To put this together anew for each page and each click would take the ORM longer than PostgreSQL takes to answer.
# Moments come as seconds: to read hundreds of them as text takes longer than all the rest.
_FLAGS_AND_HEALTH = """
    SELECT whole.*, health.target, extract(epoch FROM %s - health.polled_at)::float8,
        extract(epoch FROM health.since)::float8, health.state, health.error, health.milliseconds, health.stale_after
    FROM (
        SELECT week.number, flag.id, flag.key AS flag, flag.weight, flag.generation,
            extract(epoch FROM flag.changed_at)::float8 AS changed,
            service.id AS service_id, service.key AS service, service.title, service.area, service.owner, service.host,
            service.port, service.strip, service.health_path, service.new_side_only,
            coalesce(routes.prefixes, '{{}}') AS prefixes, service.point_of_no_return,
            CASE WHEN rollout.id IS NOT NULL THEN json_build_array(
                rollout.state, rollout.position, rollout.steps, rollout.generation, extract(epoch FROM rollout.since),
                rollout.paused_because
            )::text END AS rollout,
            service.position
        FROM migrations_app_flag AS flag
        JOIN migrations_app_week AS week ON week.id = flag.week_id
        JOIN migrations_app_service AS service ON service.id = flag.service_id
        {routes}
        LEFT JOIN migrations_app_rollout AS rollout ON rollout.flag_id = flag.id AND rollout.ended_at IS NULL
        {of_weeks}
    ) AS whole
    FULL JOIN migrations_app_healthstate AS health ON health.target = whole.service
    {of_targets}
    ORDER BY whole.position, whole.flag
"""
_PREFIXES = 'array_agg(prefix::text ORDER BY prefix COLLATE "C") AS prefixes FROM migrations_app_route'
_WHOLE = _FLAGS_AND_HEALTH.format(
    routes=f"LEFT JOIN (SELECT service_id, {_PREFIXES} GROUP BY 1) AS routes ON routes.service_id = service.id",
    of_weeks="",
    of_targets="",
)
_PART = _FLAGS_AND_HEALTH.format(
    routes=f"LEFT JOIN LATERAL (SELECT {_PREFIXES} WHERE service_id = service.id) AS routes ON true",
    of_weeks="""WHERE week.number = ANY(%s) OR week.id IN (
            SELECT beside.week_id FROM migrations_app_flag AS beside
            JOIN migrations_app_service AS named ON named.id = beside.service_id WHERE named.key = ANY(%s)
        )""",
    of_targets="WHERE whole.id IS NOT NULL OR health.target = %s",
)
_COLUMNS = len(FlagRow._fields)


def flags_and_health(now: datetime, scope: Scope | None) -> tuple[dict[int, list[FlagRow]], dict[str, TargetHealth]]:
    """The flags in scope, or all, by the number of their week, in the order of pages; and the state of the targets."""
    flags: dict[int, list[FlagRow]] = defaultdict(list)
    health = {}
    part = [] if scope is None else [list(scope.weeks), list(scope.services), MONOLITH_TARGET]
    for row in fetched(_WHOLE if scope is None else _PART, [now, *part]):
        if row[0] is not None:
            flag = FlagRow._make(row[:_COLUMNS])
            flags[flag.week].append(flag)
        _, target, age, since, state, *others = row[_COLUMNS:]
        if target is not None:
            error, milliseconds, stale_after = others
            health[target] = _health_at(now, age, state, error, _moment(since), milliseconds, stale_after)
    return dict(flags), health


@lru_cache(maxsize=2000)  # a plan has hundreds of them, and most stay as they are from one look to the next
def _moment(seconds: float) -> datetime:
    """Of seconds since 1970, which a float has to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC)


def fetched(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
