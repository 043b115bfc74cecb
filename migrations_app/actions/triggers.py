"""Triggers: what is measured moves traffic back before a person could. Level-triggered: asked every second."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Breach, RolloutState
from migrations_app.errors import ActionError
from migrations_app.gates.triggers import Judged, Measured, judge_errors, judge_failover, judge_health, judge_latency
from migrations_app.gateways.base import Side
from migrations_app.models import Flag, Gateway, HealthSample, TriggerState
from migrations_app.models.gateways import verified_at
from migrations_app.models.traffic import latency_of, requests_of
from migrations_app.planfile.triggers import (
    AnyTrigger,
    ErrorTrigger,
    FailoverTrigger,
    HealthTrigger,
    LatencyTrigger,
    from_rows,
)

from .flags import roll_back_flag
from .refusals import clipped
from .rollouts import pause_rollout, under_way

logger = logging.getLogger(__name__)
SEEN_LATELY = timedelta(seconds=5)
WITHOUT_WINDOW = (HealthTrigger, FailoverTrigger)


def watch_triggers(now: datetime | None = None) -> list[str]:
    """One look at every trigger whose flag has traffic on the new side; `flag/trigger` of those that fired.

    Safe to run late, twice or in two places. What a trigger judges came after every gateway had confirmed the flag's
    weight: nothing that went before counts against it.
    """
    now = now or timezone.now()
    flags = Flag.objects.filter(weight__gt=0).exclude(service__triggers=[]).select_related("service", "week")
    rows = list(flags)
    if not rows:
        return []
    confirmed = verified_at({flag.generation for flag in rows})
    known = {(state.flag_id, state.key): state for state in TriggerState.objects.filter(flag__in=rows)}
    looks = [look for flag in rows if flag.generation in confirmed for look in _looks(flag, confirmed, known, now)]
    # Before anything is done: what was measured is kept also when that fails.
    _keep(looks)
    return [f"{look.flag.key}/{look.trigger.key}" for look in looks if look.fires and _fire(look)]


@dataclass(frozen=True, slots=True)
class _Look:
    """One trigger, what it found, and whether that is the first time for this weight."""

    trigger: AnyTrigger
    flag: Flag
    judged: Judged
    state: TriggerState
    fires: bool


def _looks(
    flag: Flag,
    confirmed: Mapping[int, datetime],
    known: Mapping[tuple[int, str], TriggerState],
    now: datetime,
) -> Iterator[_Look]:
    begun = max(confirmed[flag.generation], flag.changed_at or confirmed[flag.generation])
    for trigger in from_rows(json.dumps(flag.service.triggers)):
        state = known.get((flag.pk, trigger.key)) or TriggerState(flag=flag, key=trigger.key)
        judged = _measure(trigger, flag, begun, now)
        if (state.state, state.generation) != (judged.state, flag.generation):
            state.since = now
        state.state, state.value, state.limit = judged.state, clipped(judged.value, 500), judged.limit
        state.generation, state.judged_at = flag.generation, now
        fires = _due(trigger, judged, begun, now) and state.fired_for != flag.generation
        if fires:
            state.fired_at, state.fired_value = now, clipped(judged.sentence(), 500)
        yield _Look(trigger, flag, judged, state, fires)


def _keep(looks: list[_Look]) -> None:
    """In one statement. Who fired is for `_fire` to say, once it was done."""
    TriggerState.objects.bulk_create(
        [look.state for look in looks],
        update_conflicts=True,
        unique_fields=["flag", "key"],
        update_fields=["state", "value", "limit", "generation", "judged_at", "since", "fired_at", "fired_value"],
    )


def _measure(trigger: AnyTrigger, flag: Flag, begun: datetime, now: datetime) -> Judged:
    if isinstance(trigger, HealthTrigger):
        return _health(trigger, flag, begun)
    if isinstance(trigger, FailoverTrigger):
        return judge_failover(_failing_over(flag, now))
    since = max(begun, now - trigger.window)
    new = _of(flag, Side.SERVICE, since, now, latency=isinstance(trigger, LatencyTrigger))
    if isinstance(trigger, ErrorTrigger):
        return judge_errors(new, above=trigger.above, window=trigger.window, requests=trigger.requests)
    old = Measured() if trigger.times is None else _of(flag, Side.MONOLITH, since, now, latency=True)
    return judge_latency(
        new, old, above=trigger.above, times=trigger.times, window=trigger.window, requests=trigger.requests
    )


def _of(flag: Flag, side: Side, since: datetime, now: datetime, *, latency: bool) -> Measured:
    requests, errors = requests_of([flag.service_id], side, since, now)
    return Measured(requests, errors, latency_of(flag.service_id, side, since, now) if latency else ())


def _health(trigger: HealthTrigger, flag: Flag, begun: datetime) -> Judged:
    polls = HealthSample.objects.filter(target=flag.service.key, polled_at__gt=begun).order_by("-polled_at")
    last = list(polls.values_list("healthy", "error")[: trigger.failures])
    failed = next((place for place, (healthy, _) in enumerate(last) if healthy is not False), len(last))
    error = last[0][1] if last else ""
    return judge_health(failed, len(last), failures=trigger.failures, last_error=error)


def _failing_over(flag: Flag, now: datetime) -> str | None:
    gateways = list(Gateway.objects.all())
    if any(row.observed_at is None or now - row.observed_at > SEEN_LATELY for row in gateways):
        return None
    return next((why for row in gateways if (why := row.failing_over.get(flag.service.key))), "")


def _due(trigger: AnyTrigger, judged: Judged, begun: datetime, now: datetime) -> bool:
    """Whether it has to fire. A whole window without enough to tell is for `on_no_data` to say."""
    if judged.state == Breach.BREACHED:
        return True
    if judged.state == Breach.OK or isinstance(trigger, WITHOUT_WINDOW) or trigger.on_no_data == "wait":
        return False
    return now - begun >= trigger.window


def _fire(look: _Look) -> bool:
    """Do what the trigger is for; whether it was done. What failed is tried again at the next look."""
    trigger, flag, judged = look.trigger, look.flag, look.judged
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
                roll_back_flag(key=flag.key, actor=SYSTEM, reason=reason, told=told, measured_at=flag.generation)
            elif act == "pause" and (row := under_way(flag.key)) and row.state == RolloutState.RUNNING:
                pause_rollout(key=flag.key, actor=SYSTEM, because=reason)
            else:
                _tell(trigger, flag, reason, told)
            TriggerState.objects.filter(flag=flag, key=trigger.key).update(fired_for=flag.generation)
    except ActionError as refusal:
        logger.warning("the trigger %s of %s could not act: %s", trigger.key, flag.key, refusal)
        return False
    return True


def _tell(trigger: AnyTrigger, flag: Flag, reason: str, told: Mapping[str, Any]) -> None:
    would = f" Dry run: would have done {trigger.do}." if trigger.dry_run else ""
    record(
        AuditKind.TRIGGER_FIRED,
        actor=SYSTEM,
        subject=flag.key,
        week_number=flag.week.number,
        reason=reason + would,
        after={**told, "weight": flag.weight},
    )
