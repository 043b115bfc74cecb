"""Triggers: what is measured moves traffic back before a person could. Level-triggered: asked every second."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Breach, RolloutState
from migrations_app.errors import ActionError
from migrations_app.gates.triggers import Judged
from migrations_app.models import Flag, Rollout, TriggerState
from migrations_app.observe.watched import Watched, watched
from migrations_app.planfile.triggers import AnyTrigger, FailoverTrigger, HealthTrigger

from .flags import roll_back_flag
from .measures import Measures, key_of
from .refusals import clipped
from .rollouts import pause_rollout
from .weeks import roll_back_week

logger = logging.getLogger(__name__)
WITHOUT_WINDOW = (HealthTrigger, FailoverTrigger)


def watch_triggers(now: datetime | None = None) -> list[str]:
    """One look at every trigger whose flag, or one of whose week, has traffic on the new side; those that fired.

    Told as `USE_AUTH_SERVICE/errors` and `week 3/errors`. Safe to run late, twice or in two places. What a trigger
    judges came after every gateway had confirmed the weight: nothing that went before counts against it. The number of
    questions to the database does not grow with the flags and triggers; it is one where nothing is on.
    """
    now = now or timezone.now()
    subjects = watched()
    if not subjects:
        return []
    states = TriggerState.objects.filter(key__in={one.key for subject in subjects for one in subject.triggers})
    known = {(state.flag_id, state.week_id, state.key): state for state in states}
    measures = Measures([(subject, known.get(key_of(subject, one)), one) for subject, one in _each(subjects)], now)
    looks = [_look(*pair, known, measures, now) for pair in _each(subjects)]
    # Before anything is done: what was measured is kept also when that fails.
    _keep(looks)
    return [f"{look.subject.name}/{look.trigger.key}" for look in looks if look.fires and _fire(look)]


@dataclass(frozen=True, slots=True)
class _Look:
    """One trigger, what it found, and whether that is the first time for this weight."""

    trigger: AnyTrigger
    subject: Watched
    judged: Judged
    state: TriggerState
    fires: bool


def _each(subjects: Iterable[Watched]) -> list[tuple[Watched, AnyTrigger]]:
    return [(subject, trigger) for subject in subjects for trigger in subject.triggers]


def _look(
    subject: Watched,
    trigger: AnyTrigger,
    known: Mapping[tuple[int | None, int | None, str], TriggerState],
    measures: Measures,
    now: datetime,
) -> _Look:
    key = key_of(subject, trigger)
    state = known.get(key) or TriggerState(flag_id=key[0], week_id=key[1], key=key[2])
    judged = measures.judge(subject, trigger)
    if (state.state, state.generation) != (judged.state, subject.generation):
        state.since = now
    state.state, state.value, state.limit = judged.state, clipped(judged.value, 500), clipped(judged.limit, 200)
    state.generation, state.judged_at = subject.generation, now
    state.baseline = measures.baseline(subject, trigger)
    fires = _due(trigger, judged, subject.begun, now) and state.fired_for != subject.generation
    if fires:
        state.fired_at, state.fired_value = now, clipped(judged.sentence(), 500)
    return _Look(trigger, subject, judged, state, fires)


def _keep(looks: list[_Look]) -> None:
    """In one statement. Who fired is for `_fire` to say, once it was done."""
    fields = ["state", "value", "limit", "generation", "judged_at", "since", "fired_at", "fired_value", "baseline"]
    TriggerState.objects.bulk_create(
        [look.state for look in looks],
        update_conflicts=True,
        unique_fields=["flag", "week", "key"],
        update_fields=fields,
    )


def _due(trigger: AnyTrigger, judged: Judged, begun: datetime, now: datetime) -> bool:
    """Whether it has to fire. A whole window without enough to tell is for `on_no_data` to say."""
    if judged.state == Breach.BREACHED:
        return True
    if judged.state == Breach.OK or isinstance(trigger, WITHOUT_WINDOW) or trigger.on_no_data == "wait":
        return False
    return now - begun >= trigger.window


def _fire(look: _Look) -> bool:
    """Do what the trigger is for; whether it was done. What failed is tried again at the next look."""
    trigger, subject, judged = look.trigger, look.subject, look.judged
    act = trigger.do
    no_data = judged.state == Breach.NO_DATA
    if trigger.dry_run or (no_data and not isinstance(trigger, WITHOUT_WINDOW) and trigger.on_no_data == "tell"):
        act = "tell"
    reason = f"Trigger {trigger.key}: {judged.sentence()}."
    told = {"trigger": {"key": trigger.key, "value": judged.value, "limit": judged.limit}}
    try:
        # Both or neither: a process that was killed in between would tell it a second time.
        with transaction.atomic():
            if act == "rollback":
                _roll_back(subject, reason, told)
            elif not (act == "pause" and _pause(subject, reason)):
                _tell(trigger, subject, reason, told)
            fired = TriggerState.objects.filter(flag=look.state.flag_id, week=look.state.week_id, key=trigger.key)
            fired.update(fired_for=subject.generation)
    except ActionError as refusal:
        logger.warning("the trigger %s of %s could not act: %s", trigger.key, subject.name, refusal)
        return False
    return True


def _roll_back(subject: Watched, reason: str, told: Mapping[str, Any]) -> None:
    if subject.week is None:
        (flag,) = subject.flags
        roll_back_flag(key=flag.key, actor=SYSTEM, reason=reason, told=told, measured_at=flag.generation)
    else:
        at = {flag.key: flag.generation for flag in subject.flags}
        roll_back_week(number=subject.week.number, actor=SYSTEM, reason=reason, told=told, measured_at=at)


def _pause(subject: Watched, reason: str) -> bool:
    """Pause each rollout that runs; whether there was any. All of a week's, or none when one was moved meanwhile."""
    rows = Rollout.objects.filter(flag__in=subject.flags, ended_at__isnull=True, state=RolloutState.RUNNING)
    generations = {flag.key: flag.generation for flag in subject.flags}
    keys = list(rows.order_by("flag__key").values_list("flag__key", flat=True))
    with transaction.atomic():
        for key in keys:
            pause_rollout(key=key, actor=SYSTEM, because=reason, measured_at=generations[key])
    return bool(keys)


def _tell(trigger: AnyTrigger, subject: Watched, reason: str, told: Mapping[str, Any]) -> None:
    would = f" Dry run: would have done {trigger.do}." if trigger.dry_run else ""
    weights: dict[str, Any] = {flag.key: flag.weight for flag in subject.flags}
    if subject.week is None:
        weights = {"weight": subject.flags[0].weight}
    record(
        AuditKind.TRIGGER_FIRED,
        actor=SYSTEM,
        subject=subject.name,
        week_number=_week_number(subject.flags),
        reason=reason + would,
        after={**told, **weights},
    )


def _week_number(flags: tuple[Flag, ...]) -> int:
    return int(flags[0].week.number)
