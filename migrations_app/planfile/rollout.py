"""The `rollout` part of a plan file: in which steps a flag's traffic goes to the new side. No Django."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, model_validator

from migrations_app.durations import format_duration
from migrations_app.gates.parameters import Length
from migrations_app.planfile.part import Part

TemplateWord = Literal["canary", "halves"]
FailureWord = Literal["rollback", "pause"]
MOST_STEPS = 20


class StepPart(Part):
    """One step: so much of the traffic, for at least so long, and for at least so many requests."""

    weight: Annotated[int, Field(ge=1, le=100, description="Per cent on the new side.")]
    hold: Annotated[
        Length, PlainSerializer(format_duration), Field(description="Before the next step, such as 10m.")
    ] = timedelta(0)
    requests: Annotated[
        int, Field(ge=0, le=1_000_000_000, description="That the new side must have served before the next step.")
    ] = 0


def _steps(*weights: int, hold: timedelta, requests: int) -> tuple[StepPart, ...]:
    steps = [StepPart(weight=weight, hold=hold, requests=requests) for weight in weights]
    return (*steps, StepPart(weight=100, hold=hold))


TEMPLATES: dict[TemplateWord, tuple[StepPart, ...]] = {
    "canary": _steps(1, 5, 25, 50, hold=timedelta(minutes=10), requests=100),
    "halves": _steps(10, 50, hold=timedelta(minutes=30), requests=100),
}


class RolloutPart(Part):
    """The steps, by the name of a template or one by one, and what ends them early.

    Limits hold for each step from its beginning: errors of the new side in per cent of its answers, and the time in
    which it gives 95 % of them, in milliseconds. Neither is judged by fewer than 20 requests.
    """

    template: Annotated[TemplateWord | None, Field(description="canary: 1-5-25-50-100; halves: 10-50-100.")] = None
    steps: Annotated[tuple[StepPart, ...], Field(max_length=MOST_STEPS, description="Rising to 100.")] = ()
    error_rate: Annotated[float, Field(ge=0, le=100, description="Most errors of the new side, in per cent.")] = 5.0
    p95: Annotated[int | None, Field(ge=1, le=30_000, description="Its slowest p95, in milliseconds.")] = None
    on_failure: Annotated[FailureWord, Field(description="What is done when a limit is passed.")] = "rollback"

    @model_validator(mode="after")
    def _rises_to_all(self) -> Self:
        if self.template and self.steps:
            raise ValueError("give a template or steps, not both")
        weights = [step.weight for step in self.steps]
        if weights and weights[-1] != 100:
            raise ValueError(f"the last step is at {weights[-1]} %; it must be at 100 %")
        for before, after in itertools.pairwise(weights):
            if after <= before:
                raise ValueError(f"the step to {after} % comes after {before} %; steps rise")
        return self

    @property
    def effective(self) -> tuple[StepPart, ...]:
        """The steps, those of `canary` when nothing is told."""
        return self.steps or TEMPLATES[self.template or "canary"]

    def row(self) -> dict[str, Any]:
        """What is told, as the database keeps it; `RolloutPart.model_validate_json` reads it back."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def words(self) -> str:
        """`1-5-25-50-100 %, error_rate 2`: what is told, for people."""
        steps = "-".join(str(step.weight) for step in self.effective)
        holds = " ".join(f"{step.weight}:{format_duration(step.hold)}/{step.requests}" for step in self.steps)
        rest = [f"{key} {value}" for key, value in self.row().items() if key not in {"steps", "template"}]
        return ", ".join([f"{steps} %", *([holds] if holds else []), *rest])
