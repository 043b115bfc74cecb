"""What moved, and what changed its state, within a span of time: of all flags and of many targets, one query each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from migrations_app.choices import Health
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models.audit import MOVES


@dataclass(frozen=True, slots=True)
class Move:
    """One change of what is asked of a flag. Weights are per cent."""

    at: datetime
    before: int
    after: int
    kind: str  # of models.audit.MOVES
    actor: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the state of a target, and the error that led to it."""

    at: datetime
    was: Health
    state: Health
    reason: str


# As expressions of the ORM it takes longer to put in words than to answer.
_MOVES = """
    SELECT at, kind, actor, before, after FROM migrations_app_auditevent
    WHERE kind = ANY(%(kinds)s) AND at >= %(since)s AND (%(flags)s::text[] IS NULL OR after ?| %(flags)s::text[])
    ORDER BY at DESC, id DESC LIMIT %(most)s
"""


def moves_since(
    since: datetime, flags: Collection[str] | None = None, most: int | None = None
) -> dict[str, list[Move]]:
    """Flag key -> what moved it from `since` on, oldest first.

    With `flags`, of these alone; with `most`, by the newest so many events alone. By an index of moves, so what it
    costs does not grow with the log.
    """
    found: dict[str, list[Move]] = defaultdict(list)
    named = None if flags is None else list(flags)
    kinds = [kind.value for kind in MOVES]
    with connection.cursor() as cursor:
        cursor.execute(_MOVES, {"kinds": kinds, "since": since, "flags": named, "most": most})
        rows = cursor.fetchall()
    for at, kind, actor, *told in reversed(rows):
        before, after = map(json.loads, told)
        weights = {flag: weight for flag, weight in after.items() if isinstance(weight, int)}
        for flag in weights.keys() if flags is None else weights.keys() & flags:
            found[flag].append(Move(at, before.get(flag, MONOLITH_WEIGHT), weights[flag], kind, actor))
    return dict(found)


def changes_since(targets: Collection[str], since: datetime, most: int) -> dict[str, list[Change]]:
    """Target -> its changes of state from `since` on, at most so many, newest first.

    After them the last one to unhealthy, when it lies further back. By the index of each target's changes.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT target, at, was, state, reason FROM unnest(%(targets)s::text[]) AS targets (target)
            CROSS JOIN LATERAL (
                (SELECT at, was, state, reason FROM migrations_app_healthchange AS change
                    WHERE change.target = targets.target AND at >= %(since)s ORDER BY at DESC LIMIT %(most)s)
                UNION
                (SELECT at, was, state, reason FROM migrations_app_healthchange AS change
                    WHERE change.target = targets.target AND state = 'unhealthy' ORDER BY at DESC LIMIT 1)
            ) AS changes ORDER BY target, at DESC
            """,
            {"targets": list(targets), "since": since, "most": most},
        )
        found: dict[str, list[Change]] = defaultdict(list)
        for target, at, was, state, reason in cursor.fetchall():
            found[target].append(Change(at, Health(was), Health(state), reason))
    return dict(found)
