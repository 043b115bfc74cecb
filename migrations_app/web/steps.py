"""Where a service is in its rollout, as pages of the plan tell it: read with the flags, at no question of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Self

from migrations_app.choices import RolloutState
from migrations_app.durations import in_words
from migrations_app.gates.rows import FlagRow
from migrations_app.models import Plan


@dataclass(frozen=True)
class StepNow:
    """The step that a rollout is at. `confirmed` is when every gateway had confirmed it, None before."""

    state: RolloutState
    position: int
    steps: tuple[dict[str, Any], ...]
    generation: int
    since: datetime
    because: str
    confirmed: datetime | None
    plan: Plan
    now: datetime

    @classmethod
    def of(cls, row: FlagRow, confirmed: dict[int, datetime], plan: Plan, now: datetime) -> Self | None:
        """None while no rollout is under way."""
        if row.rollout is None:
            return None
        state, position, steps, generation, since, because = json.loads(row.rollout)
        begun = datetime.fromtimestamp(since, UTC)
        at = confirmed.get(generation)
        return cls(RolloutState(state), position, tuple(steps), generation, begun, because, at, plan, now)

    @property
    def paused(self) -> bool:
        return self.state == RolloutState.PAUSED

    @property
    def icon(self) -> str:
        return "warn" if self.paused else "half"

    @property
    def place(self) -> str:
        """`Step 2 of 5, 5 %`."""
        return f"Step {self.position + 1} of {len(self.steps)}, {self.steps[self.position]['weight']} %"

    @cached_property
    def waits(self) -> str:
        """`next in 40 s`: what comes next, or why nothing does."""
        if self.paused:
            return f"paused: {self.because}" if self.because else "paused"
        if self.confirmed is None:
            return "the gateway has not confirmed it yet"
        step = self.steps[self.position]
        last = self.position + 1 == len(self.steps)
        left = self.plan.scaled(timedelta(seconds=step["hold"])) - (self.now - max(self.confirmed, self.since))
        if left > timedelta(0):
            return f"{'over' if last else 'next'} in {in_words(left)}"
        if step["requests"]:
            return f"{'over' if last else 'next'} after {step['requests']:,} requests, once all is well"
        return f"{'over' if last else 'next'} once all is well"


def generations_of(rows: list[FlagRow]) -> list[int]:
    """Those whose confirmation the steps that are under way wait for."""
    return [json.loads(row.rollout)[3] for row in rows if row.rollout is not None]
