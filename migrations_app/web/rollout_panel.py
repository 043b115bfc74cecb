"""What the page of a service shows of its rollout and its triggers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, Subquery

from migrations_app.actions.advance import judge
from migrations_app.actions.rollouts import Step, steps_of, under_way
from migrations_app.choices import Breach, RolloutState
from migrations_app.durations import in_words
from migrations_app.gates.steps import StepVerdict
from migrations_app.models import Flag, Plan, Rollout, TriggerState
from migrations_app.planfile.rollout import RolloutPart
from migrations_app.planfile.triggers import AnyTrigger, from_rows

_DOES = {"rollback": "rolls it back", "pause": "pauses its rollout", "tell": "tells, in the audit log"}
_WATCHES = {"health": "Failed polls", "errors": "Errors", "failover": "Failover", "latency": "Response time"}
_STATES = {
    Breach.OK: ("Within", "check"),
    Breach.BREACHED: ("Past it", "cross"),
    Breach.NO_DATA: ("Unknown", "unknown"),
}


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step. `place` is taken, here or ahead; `hold` in words, as long as it really takes."""

    number: int
    weight: int
    hold: str
    requests: int
    place: str

    @property
    def waits(self) -> str:
        parts = [self.hold] if self.hold else []
        parts += [f"{self.requests:,} requests"] if self.requests else []
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """One trigger. `state` is None while it is not watched, or has not been looked at since the weight was changed."""

    title: str
    does: str
    dry_run: bool
    state: TriggerState | None
    fired: TriggerState | None

    @property
    def word(self) -> str:
        return _STATES[Breach(self.state.state)][0] if self.state else "Not watched"

    @property
    def icon(self) -> str:
        return _STATES[Breach(self.state.state)][1] if self.state else "ring"


@dataclass(frozen=True, slots=True)
class RolloutPanel:
    """The steps of the plan, or those of the rollout that is under way, and what its step waits for."""

    flag: Flag
    rollout: Rollout | None
    steps: tuple[StepRow, ...]
    verdict: StepVerdict | None
    triggers: tuple[TriggerRow, ...]

    @property
    def paused(self) -> bool:
        return self.rollout is not None and self.rollout.state == RolloutState.PAUSED

    @property
    def startable(self) -> bool:
        return self.rollout is None and not self.flag.is_fully_on

    @property
    def on_failure(self) -> str:
        return "rolled back" if self.rollout and self.rollout.on_failure == "rollback" else "paused"


def panel_of(flag: Flag, plan: Plan, now: datetime) -> RolloutPanel:
    """One query; more while a rollout is under way, or where the plan has triggers."""
    running = Rollout.objects.filter(flag=OuterRef("pk"), ended_at__isnull=True).values("pk")
    asked = Flag.objects.filter(pk=flag.pk).annotate(running=Subquery(running))
    [(part, triggers, running_now)] = asked.values_list("service__rollout", "service__triggers", "running")
    rollout = under_way(flag.key) if running_now else None
    if rollout:
        steps, at = steps_of(rollout), rollout.position
    else:
        effective = RolloutPart.model_validate_json(json.dumps(part)).effective
        steps = tuple(Step(step.weight, step.hold.total_seconds(), step.requests) for step in effective)
        at = -1
    rows = tuple(
        StepRow(
            number=place + 1,
            weight=step.weight,
            hold=in_words(plan.scaled(timedelta(seconds=step.hold))) if step.hold else "",
            requests=step.requests,
            place="here" if place == at else "taken" if place < at or step.weight <= flag.weight else "ahead",
        )
        for place, step in enumerate(steps)
    )
    verdict = judge(rollout, now) if rollout else None
    return RolloutPanel(flag, rollout, rows, verdict, _triggers(flag, from_rows(json.dumps(triggers))))


def _triggers(flag: Flag, triggers: tuple[AnyTrigger, ...]) -> tuple[TriggerRow, ...]:
    if not triggers:
        return ()
    states = {state.key: state for state in TriggerState.objects.filter(flag=flag)}
    return tuple(_row(flag, trigger, states.get(trigger.key)) for trigger in triggers)


def _row(flag: Flag, trigger: AnyTrigger, state: TriggerState | None) -> TriggerRow:
    watched = state if state and flag.is_on and state.generation == flag.generation else None
    fired = state if state and state.fired_at else None
    return TriggerRow(_WATCHES[trigger.when], _DOES[trigger.do], trigger.dry_run, watched, fired)
