"""The `health` part of a plan file: how the monolith or a service is polled. No Django.

What is not told has its default, or comes from the settings HEALTH_INTERVAL and HEALTH_TIMEOUT. The longest interval
is a minute: a state is trusted for two intervals, and a gate must not open on one that is older than that.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from migrations_app.gates.parameters import JsonValue
from migrations_app.planfile.part import Part

LONGEST_INTERVAL = timedelta(seconds=60)
LONGEST_TIMEOUT = timedelta(seconds=10)
_SECONDS = r"[0-9]{1,3}(\.[0-9]{1,3})?s"
_CLASS = r"[2-5]xx"


def _parse_seconds(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or re.fullmatch(_SECONDS, value) is None:
        raise ValueError("expected seconds such as 2s or 1.5s")
    return timedelta(milliseconds=round(float(value[:-1]) * 1000))


def format_seconds(length: timedelta) -> str:
    """1.5 seconds -> `1.5s`."""
    return f"{length.total_seconds():g}s"


def _between(least: timedelta, most: timedelta) -> AfterValidator:
    def check(length: timedelta) -> timedelta:
        if length < least:
            raise ValueError(f"{format_seconds(length)} is too short; the least is {format_seconds(least)}")
        if length > most:
            raise ValueError(f"{format_seconds(length)} is too long; the most is {format_seconds(most)}")
        return length

    return AfterValidator(check)


def _status(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(_CLASS, value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599:
        return value
    raise ValueError("expected a status from 200 to 599, or 2xx, 3xx, 4xx or 5xx")


def _once_each(statuses: tuple[int | str, ...]) -> tuple[int | str, ...]:
    for status in statuses:
        if statuses.count(status) > 1:
            raise ValueError(f"{status} is there twice")
    return statuses


def _places_once(values: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
    places = [value.path for value in values]
    for place in places:
        if places.count(place) > 1:
            raise ValueError(f"the place '{place}' is there twice; it cannot have two values")
    return values


Seconds = Annotated[
    timedelta,
    BeforeValidator(_parse_seconds),
    PlainSerializer(format_seconds),
    WithJsonSchema({"type": "string", "pattern": f"^{_SECONDS}$"}),
]
Status = Annotated[
    Any,
    BeforeValidator(_status),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 200, "maximum": 599}, {"type": "string", "pattern": f"^{_CLASS}$"}]}
    ),
]


class HealthPart(Part):
    """How it is polled: how often, what counts as healthy, and how many polls in a row change its state."""

    interval: Annotated[
        Annotated[Seconds, _between(timedelta(seconds=1), LONGEST_INTERVAL)] | None,
        Field(description="From one poll to the next, 1s to 60s; HEALTH_INTERVAL unless told."),
    ] = None
    timeout: Annotated[
        Annotated[Seconds, _between(timedelta(seconds=0.1), LONGEST_TIMEOUT)] | None,
        Field(description="For a whole poll, 0.1s to 10s; HEALTH_TIMEOUT unless told."),
    ] = None
    status: Annotated[
        tuple[Status, ...],
        Field(min_length=1, max_length=20, description="What it may answer: numbers, or 2xx."),
        AfterValidator(_once_each),
    ] = (200,)
    json_values: Annotated[
        tuple[JsonValue, ...],
        Field(alias="json", max_length=10, description="Values that its JSON must have, all of them."),
        AfterValidator(_places_once),
    ] = ()
    fail_after: Annotated[int, Field(ge=1, le=100, description="Bad polls in a row that make it unhealthy.")] = 1
    recover_after: Annotated[int, Field(ge=1, le=100, description="Good polls in a row that make it healthy.")] = 1

    def row(self) -> dict[str, Any]:
        """What is told, as the database keeps it; `HealthPart.model_validate_json` reads it back."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def words(self) -> str:
        """`interval 2s, fail_after 3`: what is told, for people."""
        return ", ".join(f"{key} {_word(value)}" for key, value in self.row().items()) or "as by default"


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{item['path']}={item['equals']!r}" if isinstance(item, dict) else str(item) for item in value)
    return str(value)
