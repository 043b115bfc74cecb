"""What pages show of triggers: what each watches, what it last measured against what, and what it does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection

from migrations_app.choices import Breach
from migrations_app.models.triggers import not_looked_at
from migrations_app.planfile.triggers import AnswersTrigger, AnyTrigger, from_rows

from .board import WeekRow

_OF_A_SERVICE = {"rollback": "rolls it back", "pause": "pauses its rollout", "tell": "tells, in the audit log"}
_OF_A_WEEK = {
    "rollback": "rolls the week back",
    "pause": "pauses the week's rollouts",
    "tell": "tells, in the audit log",
}
_WATCHES = {
    "answers": "Answers",
    "errors": "Errors",
    "failover": "Failover",
    "health": "Failed polls",
    "latency": "Response time",
    "query": "A number of others",
}
_STATES = {
    Breach.OK: ("Within", "check"),
    Breach.BREACHED: ("Past it", "cross"),
    Breach.NO_DATA: ("Unknown", "unknown"),
}


@dataclass(frozen=True, slots=True)
class StateRow:
    """A TriggerState as pages need it."""

    key: str
    state: Breach
    value: str
    limit: str
    generation: int
    judged_at: datetime
    fired_at: datetime | None
    fired_value: str


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """One trigger. `state` is None while it is not watched, or has not been looked at since the weight was changed."""

    title: str
    does: str
    dry_run: bool
    state: StateRow | None
    fired: StateRow | None

    @property
    def word(self) -> str:
        return _STATES[self.state.state][0] if self.state else "Not watched"

    @property
    def icon(self) -> str:
        return _STATES[self.state.state][1] if self.state else "ring"


# What was last measured, as JSON (see `_read`), beside something else: of its flag or week.
STATES = """coalesce(json_agg(json_build_object(
    'key', trigger.key, 'state', trigger.state, 'value', trigger.value, 'limit', trigger."limit",
    'generation', trigger.generation, 'judged_at', trigger.judged_at, 'fired_at', trigger.fired_at,
    'fired_value', trigger.fired_value
)), '[]') FROM migrations_app_triggerstate AS trigger"""


def rows_of_service(
    triggers: Iterable[AnyTrigger], states: Iterable[Mapping[str, Any]], generation: int | None, now: datetime
) -> tuple[TriggerRow, ...]:
    """`states` as STATES has them, `generation` of what is watched now, None while nothing is."""
    return _rows(triggers, states, generation, _OF_A_SERVICE, now)


def rows_of_week(row: WeekRow, now: datetime) -> tuple[TriggerRow, ...]:
    """No query for a week without triggers."""
    if not row.week.triggers:
        return ()
    on = [one.row.generation for one in row.services if one.row.weight]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {STATES} WHERE trigger.week_id = %s", [row.week.pk])  # a constant
        (states,) = cursor.fetchone()
    triggers = from_rows(json.dumps(row.week.triggers))
    return _rows(triggers, states, max(on, default=None), _OF_A_WEEK, now)


def _rows(
    triggers: Iterable[AnyTrigger],
    states: Iterable[Mapping[str, Any]],
    generation: int | None,
    does: dict[str, str],
    now: datetime,
) -> tuple[TriggerRow, ...]:
    known = {state.key: state for state in map(_read, states)}
    found = []
    for trigger in triggers:
        state = known.get(trigger.key)
        watched = _now(state, now) if state and state.generation == generation else None
        fired = state if state and state.fired_at else None
        found.append(TriggerRow(_title(trigger), does[trigger.do], trigger.dry_run, watched, fired))
    return tuple(found)


def _read(told: Mapping[str, Any]) -> StateRow:
    fired_at = datetime.fromisoformat(told["fired_at"]) if told["fired_at"] else None
    judged_at = datetime.fromisoformat(told["judged_at"])
    return StateRow(**{**told, "state": Breach(told["state"]), "judged_at": judged_at, "fired_at": fired_at})


def _now(state: StateRow, now: datetime) -> StateRow:
    """As it was found; unknown once nobody looks any more."""
    if why := not_looked_at(state.judged_at, now):
        return replace(state, state=Breach.NO_DATA, value=why)
    return state


def _title(trigger: AnyTrigger) -> str:
    return f"Answers of {trigger.counted}" if isinstance(trigger, AnswersTrigger) else _WATCHES[trigger.when]
