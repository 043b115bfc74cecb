"""Health as it is stored: what the plan wants polled, every poll, the states that follow, and each change of one.

docs/decisions/0003-health-polls.md says why it is written as it is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from django.conf import settings
from django.db import connection, transaction

from migrations_app.choices import Health
from migrations_app.gateways.base import Address
from migrations_app.live import Topic, tell_all
from migrations_app.models import HealthChange, HealthState, Plan, Service
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.lateness import Lateness
from migrations_app.observe.polls import LONGEST_ERROR, PollResult, Target
from migrations_app.planfile.health import HealthPart
from migrations_app.planfile.rows import HEALTH_LOCK


def current_targets() -> list[Target]:
    """The monolith and every service of the plan that is loaded; none without a plan."""
    plan = Plan.objects.values_list(
        "pk", "monolith_host", "monolith_port", "monolith_health_path", "monolith_health"
    ).first()
    if plan is None:
        return []
    services = Service.objects.filter(plan=plan[0]).values_list("key", "host", "port", "health_path", "health")
    return [_target(*row) for row in [(MONOLITH_TARGET, *plan[1:]), *services]]


def _target(key: str, host: str, port: int, path: str, health: Mapping[str, object]) -> Target:
    how = _read(json.dumps(health))
    return Target(
        key,
        f"http://{Address(host, port)}{path}",
        how.interval.total_seconds() if how.interval else settings.HEALTH_INTERVAL,
        how.timeout.total_seconds() if how.timeout else settings.HEALTH_TIMEOUT,
        how.status,
        tuple((value.path, json.dumps(value.equals)) for value in how.json_values),
        how.fail_after,
        how.recover_after,
    )


@functools.lru_cache(maxsize=1000)
def _read(health: str) -> HealthPart:
    return HealthPart.model_validate_json(health)


@dataclass(frozen=True, slots=True)
class State:
    """The state of one target after a poll: HealthState without its key."""

    state: Health
    since: datetime
    against: int
    polled_at: datetime
    milliseconds: float | None
    error: str
    polls: int = 0
    failed: int = 0


def advance(before: State | None, result: PollResult, *, fail_after: int = 1, recover_after: int = 1) -> State:
    """The state after this poll. Pure.

    It becomes unhealthy after `fail_after` bad polls in a row, healthy after `recover_after` good ones, and unknown at
    once when nobody can tell. From unknown the same numbers count.
    """
    state = State(Health.UNKNOWN, result.polled_at, 0, result.polled_at, None, "") if before is None else before
    says, needed = Health.UNKNOWN, 1
    if result.healthy is not None:
        says, needed = (Health.HEALTHY, recover_after) if result.healthy else (Health.UNHEALTHY, fail_after)
    against = 0
    if says != state.state:
        # The last poll, if any spoke against the state, said the same as this one: else it counts from here.
        same = state.against > 0 and (state.error == "") == (result.error == "")
        against = state.against + 1 if same else 1
    changes = 0 < needed <= against
    return State(
        says if changes else state.state,
        result.polled_at if changes else state.since,
        0 if changes else against,
        result.polled_at,
        result.milliseconds,
        result.error[:LONGEST_ERROR],
        state.polls + 1,
        state.failed + (result.healthy is False),
    )


def store(results: Iterable[PollResult], targets: Mapping[str, Target] | None = None) -> int:
    """Keep every result, each target's state with the moment it began, and every change of one; the number of changes.

    `targets` have the numbers of polls in a row that change a state, by key; 1 for one that is not among them.
    """
    rows = list(results)
    if not rows:
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [HEALTH_LOCK])
        return _store(rows, targets or {})


def store_of_plan(results: Collection[tuple[Target, PollResult]], lateness: Lateness | None = None) -> list[Target]:
    """Keep the results of the targets that the plan has just as they were polled, and say what it has now.

    What was seen at an address that the plan left meanwhile, or judged by other rules, vouches for nothing. `lateness`
    is stored with results, and only with them: to wake the disk for it alone would be too much.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [HEALTH_LOCK])
        now = current_targets()
        still = set(now)
        if kept := [result for target, result in results if target in still]:
            _store(kept, {target.key: target for target in now})
        if lateness and results:
            lateness.store()
    return now


def _store(results: list[PollResult], targets: Mapping[str, Target]) -> int:
    known = _states({result.target for result in results})
    states = dict(known)
    changes = []
    for result in results:
        target, before = targets.get(result.target), states.get(result.target)
        after = advance(
            before,
            result,
            fail_after=target.fail_after if target else 1,
            recover_after=target.recover_after if target else 1,
        )
        was = before.state if before else Health.UNKNOWN
        if after.state != was:
            changes.append(
                HealthChange(target=result.target, at=after.since, was=was, state=after.state, reason=after.error)
            )
        states[result.target] = after
    _copy_samples(results)
    stale_after = {key: 2 * target.interval + target.timeout for key, target in targets.items()}
    _update_states({target: state for target, state in states.items() if target in known}, stale_after)
    HealthState.objects.bulk_create(
        HealthState(
            target=target,
            state=new.state,
            since=new.since,
            against=new.against,
            polled_at=new.polled_at,
            milliseconds=new.milliseconds,
            error=new.error,
            polls=new.polls,
            failed=new.failed,
            stale_after=stale_after.get(target, 0),
        )
        for target, new in states.items()
        if target not in known
    )
    _tell(known, states)
    if changes:
        HealthChange.objects.bulk_create(changes)
    else:
        # Nothing waits for the disk: a crash of PostgreSQL may lose the last half second of polls, as one of ours does.
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
    return len(changes)


def _tell(before: Mapping[str, State], after: Mapping[str, State]) -> None:
    """Whom a page shows otherwise now, and who was polled."""
    changed = [
        target
        for target, new in after.items()
        if target not in before or (before[target].state, before[target].error) != (new.state, new.error)
    ]
    tell_all({Topic.POLL: list(after), Topic.HEALTH: changed})


def _states(targets: set[str]) -> dict[str, State]:
    fields = ("target", "state", "since", "against", "polled_at", "milliseconds", "error", "polls", "failed")
    rows = HealthState.objects.filter(target__in=targets).values_list(*fields)
    return {target: State(Health(state), *rest) for target, state, *rest in rows}


def _copy_samples(results: list[PollResult]) -> None:
    """Binary COPY: half of what rows as arrays cost, a sixth of `bulk_create`."""
    columns = "target, polled_at, healthy, status_code, connect_ms, first_byte_ms, milliseconds, error"
    into = f"COPY migrations_app_healthsample ({columns}) FROM STDIN (FORMAT BINARY)"
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(into) as copy:
        copy.set_types(["varchar", "timestamptz", "bool", "int2", "float8", "float8", "float8", "varchar"])
        for it in results:
            times = it.connect_ms, it.first_byte_ms, it.milliseconds
            copy.write_row((it.target, it.polled_at, it.healthy, it.status_code, *times, it.error[:LONGEST_ERROR]))


def _update_states(states: Mapping[str, State], stale_after: Mapping[str, float]) -> None:
    if not states:
        return
    columns = zip(
        *(
            (it.state.value, it.since, it.against, it.polled_at, it.milliseconds, it.error, it.polls, it.failed)
            for it in states.values()
        ),
        strict=True,
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE migrations_app_healthstate AS old
            SET state = new.state, since = new.since, against = new.against, polled_at = new.polled_at,
                milliseconds = new.milliseconds, error = new.error, polls = new.polls, failed = new.failed,
                stale_after = new.stale_after
            FROM unnest(
                %s::text[], %s::text[], %s::timestamptz[], %s::int[], %s::timestamptz[], %s::float8[], %s::text[],
                %s::int8[], %s::int8[], %s::float8[]
            ) AS new (target, state, since, against, polled_at, milliseconds, error, polls, failed, stale_after)
            WHERE old.target = new.target
            """,
            [
                list(states),
                *(list(column) for column in columns),
                [stale_after.get(target, 0) for target in states],
            ],
        )


def cut_off(result: PollResult) -> PollResult:
    """The same poll, which tells nothing of its target."""
    error = f"nothing answers, not even the gateway: {result.error}"
    return replace(result, healthy=None, error=error[:LONGEST_ERROR])
