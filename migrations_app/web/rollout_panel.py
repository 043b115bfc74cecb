"""What the page of a service shows of its rollout and its triggers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from migrations_app.actions.advance import judge
from migrations_app.actions.rollouts import Step, steps_of, under_way
from migrations_app.choices import RolloutState
from migrations_app.durations import in_words
from migrations_app.gates.steps import StepVerdict
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models import Flag, Plan, Rollout
from migrations_app.observe.last_minute import MINUTE
from migrations_app.planfile.rollout import RolloutPart
from migrations_app.planfile.triggers import from_rows

from .route_rows import SAMPLES, RouteRow, route_rows
from .trigger_rows import STATES, TriggerRow, rows_of_service


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
class RolloutPanel:
    """The steps of the plan, or those of the rollout that is under way, and what its step waits for."""

    flag: Flag
    rollout: Rollout | None
    steps: tuple[StepRow, ...]
    verdict: StepVerdict | None
    triggers: tuple[TriggerRow, ...]
    by_prefix: tuple[RouteRow, ...] = ()
    writes_from: int = 1  # per cent

    @property
    def paused(self) -> bool:
        return self.rollout is not None and self.rollout.state == RolloutState.PAUSED

    @property
    def startable(self) -> bool:
        return self.rollout is None and not self.flag.is_fully_on

    @property
    def writes_wait(self) -> bool:
        """Only reads are on the new side."""
        return MONOLITH_WEIGHT < self.flag.weight < self.writes_from

    @property
    def on_failure(self) -> str:
        return "rolled back" if self.rollout and self.rollout.on_failure == "rollback" else "paused"


# As expressions of the ORM it takes longer to put in words than to answer.
_PANEL = f"""
    SELECT service.rollout, service.triggers, service.counted, service.writes_from,
        EXISTS (SELECT FROM migrations_app_rollout WHERE flag_id = %(flag)s AND ended_at IS NULL),
        (SELECT {STATES} WHERE trigger.flag_id = %(flag)s),
        (
            SELECT {SAMPLES} WHERE sample.service_id = %(service)s
                AND sample.read_at > %(since)s AND sample.read_at <= %(now)s
        )
    FROM migrations_app_service AS service WHERE service.id = %(service)s
"""  # noqa: S608  # constants


def panel_of(flag: Flag, plan: Plan, now: datetime) -> RolloutPanel:
    """One query, with what triggers measured and what was counted by prefix; more while a rollout is under way."""
    with connection.cursor() as cursor:
        cursor.execute(_PANEL, {"flag": flag.pk, "service": flag.service_id, "since": now - MINUTE, "now": now})
        part, triggers, counted, writes_from, running, states, samples = cursor.fetchone()
    rollout = under_way(flag.key) if running else None
    if rollout:
        steps, at = steps_of(rollout), rollout.position
    else:
        effective = RolloutPart.model_validate_json(part).effective
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
    watching = rows_of_service(from_rows(triggers), states, flag.generation if flag.is_on else None, now)
    return RolloutPanel(flag, rollout, rows, verdict, watching, route_rows(json.loads(counted), samples), writes_from)
