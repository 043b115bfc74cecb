"""Triggers: what is measured moves traffic back before a person could. Level-triggered: asked every second."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Breach, RolloutState
from migrations_app.errors import ActionError
from migrations_app.gates.triggers import Judged
from migrations_app.models import Flag, Rollout, TriggerState
from migrations_app.models.downtime import longest_reading
from migrations_app.observe.watched import Watched, watched
from migrations_app.planfile.triggers import AnyTrigger, FailoverTrigger, HealthTrigger, QueryTrigger, rule_of

from .flags import roll_back_flag
from .measures import Asked, Measures
from .refusals import clipped
from .rollouts import pause_rollout
from .weeks import roll_back_week

logger = logging.getLogger(__name__)
WITHOUT_WINDOW = (HealthTrigger, FailoverTrigger)


def watch_triggers(now: datetime | None = None) -> list[str]:
    """One look at every trigger whose flag, or one of whose week, has traffic on the new side; those that fired.

    Told as `USE_AUTH_SERVICE/errors` and `week 3/errors`. Safe to run late, twice or in two places. What a trigger
    judges came after the first gateway had confirmed the weight: nothing that went before counts against it. The number
    of questions to the database does not grow with the flags and triggers; it is one where nothing is on.
    """
    now = now or timezone.now()
    subjects = watched()
    if not subjects:
        return []
    states = TriggerState.objects.filter(key__in={one.key for subject in subjects for one in subject.triggers})
    known = {(state.flag_id, state.week_id, state.key): state for state in states}
    asked = [
        Asked(subject, trigger, rule_of(trigger), known.get(subject.key_of(trigger)))
        for subject in subjects
        for trigger in subject.triggers
    ]
    measures = Measures(asked, now)
    looks = [_look(one, measures, now) for one in asked]
    # Before anything is done: what was measured is kept also when that fails.
    _keep(looks)
    return [f"{look.subject.name}/{look.trigger.key}" for look in looks if look.fires and _fired(look)]


@dataclass(frozen=True, slots=True)
class _Look:
    """One trigger, what it found, what is to be done by that, and whether that is still to be done at this weight."""

    trigger: AnyTrigger
    subject: Watched
    judged: Judged
    state: TriggerState
    act: str
    fires: bool

    def deed(self, act: str) -> str:
        """As TriggerState.fired_as has it."""
        return f"{self.judged.state} {act}"


def _look(asked: Asked, measures: Measures, now: datetime) -> _Look:
    subject, trigger, before = asked.subject, asked.trigger, asked.before
    flag, week, key = subject.key_of(trigger)
    judged = measures.judge(subject, trigger)
    state = TriggerState(
        flag_id=flag,
        week_id=week,
        key=key,
        state=judged.state,
        value=clipped(judged.value, 500),
        limit=clipped(judged.limit, 200),
        generation=subject.generation,
        rule=asked.rule,
        judged_at=now,
        since=now,
        baseline=measures.baseline(subject, trigger),
    )
    # What nobody has looked at meanwhile may have been otherwise meanwhile.
    if asked.same and before and before.state == state.state and abs(now - before.judged_at) <= longest_reading():
        state.since = before.since
    act = _act(trigger, judged)
    look = _Look(trigger, subject, judged, state, act, fires=False)
    done = before.done(subject.generation, asked.rule) if before else []
    return replace(look, fires=_due(look, now) and look.deed(act) not in done)


def _act(trigger: AnyTrigger, judged: Judged) -> str:
    silent = judged.state == Breach.NO_DATA
    only_tells = trigger.dry_run or (
        silent and not isinstance(trigger, WITHOUT_WINDOW) and trigger.on_no_data == "tell"
    )
    return "tell" if only_tells else trigger.do


def _keep(looks: list[_Look]) -> None:
    """In one statement. Who fired is for `_mark` to say, once it was done."""
    fields = ["state", "value", "limit", "generation", "rule", "judged_at", "since", "baseline"]
    TriggerState.objects.bulk_create(
        [look.state for look in looks],
        update_conflicts=True,
        unique_fields=["flag", "week", "key"],
        update_fields=fields,
    )


def _due(look: _Look, now: datetime) -> bool:
    """Whether it has to fire. A whole window without enough to tell is for `on_no_data` to say.

    Requests are too few in a window; of a number of others, each answer may tell nothing, and all of a window must.
    """
    trigger, state = look.trigger, look.judged.state
    if state == Breach.BREACHED:
        return True
    if state == Breach.OK or isinstance(trigger, WITHOUT_WINDOW) or trigger.on_no_data == "wait":
        return False
    silent_since = look.state.since if isinstance(trigger, QueryTrigger) else look.subject.begun
    return now - silent_since >= trigger.window


def _fired(look: _Look) -> bool:
    """Whether it was done what the trigger is for. What failed is tried again at the next look; the others go on."""
    try:
        return _fire(look)
    except ActionError as refusal:
        logger.warning("the trigger %s of %s could not act: %s", look.trigger.key, look.subject.name, refusal)
    except (OperationalError, InterfaceError, SoftTimeLimitExceeded):
        # Without a database, or when the task's time is up, there is nothing to be done for the others either.
        raise
    except Exception:
        logger.exception("the trigger %s of %s could not act", look.trigger.key, look.subject.name)
    return False


def _fire(look: _Look) -> bool:
    """Do what the trigger is for; whether anything was done. Raises ActionError."""
    trigger, subject, judged = look.trigger, look.subject, look.judged
    reason = f"Trigger {trigger.key}: {judged.sentence()}."
    told = {"trigger": {"key": trigger.key, "value": judged.value, "limit": judged.limit}}
    # Both or neither: a process that was killed in between would tell it a second time.
    with transaction.atomic():
        act = look.act
        if act == "rollback":
            _roll_back(subject, reason, told)
        elif act == "pause" and not _pause(subject, reason):
            act = "tell"
        # After an act, which takes the plan's lock; before a tell, which takes that of the audit log. As a load does.
        marked = _mark(look, act)
        if act == "tell" and marked:
            _tell(trigger, subject, reason, told)
    return marked


def _mark(look: _Look, act: str) -> bool:
    """Note what was done at this weight; whether it was not before, by another process too."""
    state, deed = look.state, look.deed(act)
    row = TriggerState.objects.select_for_update().get(flag=state.flag_id, week=state.week_id, key=state.key)
    done = row.done(state.generation, state.rule)
    if deed in done:
        return False
    row.fired_for, row.fired_rule, row.fired_as = state.generation, state.rule, [*done, deed]
    row.fired_at, row.fired_value = state.judged_at, clipped(look.judged.sentence(), 500)
    row.save(update_fields=["fired_for", "fired_rule", "fired_as", "fired_at", "fired_value"])
    return True


def _roll_back(subject: Watched, reason: str, told: Mapping[str, Any]) -> None:
    if subject.week is None:
        (flag,) = subject.flags
        roll_back_flag(key=flag.key, actor=SYSTEM, reason=reason, told=told, measured_at=flag.generation)
    else:
        at = {flag.key: flag.generation for flag in subject.flags}
        roll_back_week(number=subject.week.number, actor=SYSTEM, reason=reason, told=told, measured_at=at)


def _pause(subject: Watched, reason: str) -> bool:
    """Pause each rollout that runs; whether one was. All of a week's, or none when one was moved meanwhile."""
    rows = Rollout.objects.filter(flag__in=subject.flags, ended_at__isnull=True, state=RolloutState.RUNNING)
    generations = {flag.key: flag.generation for flag in subject.flags}
    keys = list(rows.order_by("flag__key").values_list("flag__key", flat=True))
    with transaction.atomic():
        pauses = [pause_rollout(key=key, actor=SYSTEM, because=reason, measured_at=generations[key]) for key in keys]
    return any(pause.changed for pause in pauses)


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
