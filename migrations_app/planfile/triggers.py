"""The `triggers` of a plan file: what moves a service back by itself. No Django.

Each is watched while some of the service's traffic is on the new side, during a rollout and after it, and judges what
came since the last change of its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainSerializer, TypeAdapter, model_validator

from migrations_app.durations import format_duration
from migrations_app.gates.parameters import Name, Span
from migrations_app.planfile.part import Part

ActWord = Literal["rollback", "pause", "tell"]
NoDataWord = Literal["wait", "tell", "act"]
LONGEST_WINDOW = timedelta(hours=1)


def _within(length: timedelta) -> timedelta:
    if length > LONGEST_WINDOW:
        raise ValueError(f"is longer than {format_duration(LONGEST_WINDOW)}")
    return length


Window = Annotated[Span, PlainSerializer(format_duration), AfterValidator(_within)]


class TriggerPart(Part):
    """What all triggers have. `on_no_data`: what is done when a whole window tells nothing."""

    key: Annotated[Name, Field(description="Unique within its service, such as errors.")]
    do: Annotated[ActWord, Field(description="pause: the rollout; tell: an audit event alone.")] = "rollback"
    dry_run: Annotated[bool, Field(description="Tell what would have been done, and do nothing.")] = False


class HealthTrigger(TriggerPart):
    """The service has failed so many polls in a row."""

    when: Literal["health"]
    failures: Annotated[int, Field(ge=1, le=100)] = 3


class ErrorTrigger(TriggerPart):
    """More than so many per cent of the new side's requests fail: 5xx, or no answer."""

    when: Literal["errors"]
    above: Annotated[float, Field(ge=0, lt=100, description="Per cent.")] = 5.0
    window: Window = timedelta(seconds=30)
    requests: Annotated[int, Field(ge=1, le=1_000_000, description="Fewer in the window tell nothing.")] = 20
    on_no_data: NoDataWord = "wait"


class LatencyTrigger(TriggerPart):
    """The new side's p95 is above a limit, or so many times the monolith's in the same window.

    With both, either is enough. `times` alone tells nothing while the monolith has too few requests to compare with.
    """

    when: Literal["latency"]
    above: Annotated[int | None, Field(ge=1, le=30_000, description="Milliseconds.")] = None
    times: Annotated[float | None, Field(gt=1, le=100, description="Of the monolith's p95.")] = None
    window: Window = timedelta(minutes=1)
    requests: Annotated[int, Field(ge=1, le=1_000_000, description="Fewer on a side tell nothing.")] = 20
    on_no_data: NoDataWord = "wait"

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.above is None and self.times is None:
            raise ValueError("give above, times or both")
        return self


class FailoverTrigger(TriggerPart):
    """The gateway lets the monolith answer in the place of the service."""

    when: Literal["failover"]


AnyTrigger = FailoverTrigger | HealthTrigger | ErrorTrigger | LatencyTrigger
Trigger = Annotated[AnyTrigger, Field(discriminator="when")]
_STORED: TypeAdapter[tuple[AnyTrigger, ...]] = TypeAdapter(tuple[Trigger, ...])


def keys_once(triggers: tuple[AnyTrigger, ...]) -> tuple[AnyTrigger, ...]:
    """Raises ValueError."""
    keys = [trigger.key for trigger in triggers]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the trigger '{key}' is there twice")
    return triggers


def rows(triggers: Sequence[AnyTrigger]) -> list[dict[str, Any]]:
    """As the database keeps them."""
    return [trigger.model_dump(mode="json", exclude_none=True) for trigger in triggers]


def from_rows(stored: bytes | str) -> tuple[AnyTrigger, ...]:
    """From their JSON. Raises pydantic.ValidationError."""
    return _STORED.validate_json(stored)


def words(trigger: TriggerPart) -> str:
    """`errors: rollback when errors above 5, window 30s`, for people who compare plans."""
    values = trigger.model_dump(mode="json", exclude_defaults=True, exclude={"key", "do", "when", "dry_run"})
    when = getattr(trigger, "when", "")
    rest = ", ".join(f"{name} {value}" for name, value in values.items())
    dry = " (dry run)" if trigger.dry_run else ""
    return f"{trigger.key}: {trigger.do}{dry} by {when}" + (f" {rest}" if rest else "")
