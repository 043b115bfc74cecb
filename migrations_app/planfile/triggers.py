"""The `triggers` of a plan file: what moves a service back by itself. No Django.

Each is watched while some of the service's traffic is on the new side, during a rollout and after it, and judges what
came since the last change of its weight.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

from migrations_app.durations import format_duration
from migrations_app.gates.parameters import Name, Place, Span, matches
from migrations_app.gateways.base import Counted
from migrations_app.gateways.tables import DOT_SEGMENT, METHOD, PREFIX
from migrations_app.planfile.part import Part

ActWord = Literal["rollback", "pause", "tell"]
NoDataWord = Literal["wait", "tell", "act"]
_URL = r"https?://[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*(/[!$-;=?-Z_a-z~]*)?"  # nobody's name and password, no fragment
LONGEST_WINDOW = timedelta(hours=1)


def _within(length: timedelta) -> timedelta:
    if length > LONGEST_WINDOW:
        raise ValueError(f"is longer than {format_duration(LONGEST_WINDOW)}")
    return length


def _code(value: object) -> object:
    if isinstance(value, str) and value in {"4xx", "5xx"}:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return value
    raise ValueError("expected a status from 400 to 599, 4xx or 5xx")


def _codes_once(codes: tuple[int | str, ...]) -> tuple[int | str, ...]:
    for code in codes:
        if codes.count(code) > 1:
            raise ValueError(f"{code} is there twice")
    return codes


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected text that can be seen, on one line")
    return text


def _no_dots(path: str) -> str:
    if re.search(DOT_SEGMENT, path):
        raise ValueError("has a '.' or '..' between slashes, which no gateway keeps")
    return path


Window = Annotated[Span, PlainSerializer(format_duration), AfterValidator(_within)]
RoutePath = Annotated[
    str,
    Field(max_length=200, json_schema_extra={"pattern": f"^{PREFIX}$"}),
    matches(PREFIX, "a path; write one such as /api/auth/login, with no slash at the end"),
    AfterValidator(_no_dots),
]
MethodWord = Annotated[
    str, Field(json_schema_extra={"pattern": f"^{METHOD}$"}), matches(METHOD, "a method; write one such as POST")
]
Code = Annotated[
    Any,
    BeforeValidator(_code),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 400, "maximum": 599}, {"enum": ["4xx", "5xx"]}]}),
]
PromQuery = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_on_one_line)]
Url = Annotated[
    str,
    Field(max_length=500, json_schema_extra={"pattern": f"^{_URL}$"}),
    matches(_URL, "an address; write one such as http://127.0.0.1:9090/numbers.json"),
]


class TriggerPart(Part):
    """What all triggers have. `on_no_data`: what is done when a whole window tells nothing.

    Each thing is done once for a change of the weight, and anew once the plan has the trigger otherwise. So what only
    told that nobody can tell still acts when it is breached.
    """

    key: Annotated[Name, Field(description="Unique within its service, such as errors.")]
    do: Annotated[ActWord, Field(description="pause: the rollout; tell: an audit event alone.")] = "rollback"
    dry_run: Annotated[bool, Field(description="Tell what would have been done, and do nothing.")] = False


class HealthTrigger(TriggerPart):
    """The service has failed so many polls in a row. Polls that are old, or could not tell, tell nothing."""

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

    With both, either is enough. A monolith with too few requests in it, as at 100 %, is taken as it was in the window
    before the last change of weight at which it had enough; `times` alone tells nothing when it never had.
    Within `slower_ms` of the monolith's it counts for nothing: three times two milliseconds is what nobody feels.
    """

    when: Literal["latency"]
    above: Annotated[int | None, Field(ge=1, le=30_000, description="Milliseconds.")] = None
    times: Annotated[float | None, Field(gt=1, le=100, description="Of the monolith's p95.")] = None
    slower_ms: Annotated[
        float, Field(ge=0, le=30_000, description="Milliseconds by which it may be above the monolith's in any case.")
    ] = 0.0
    window: Window = timedelta(minutes=1)
    requests: Annotated[int, Field(ge=1, le=1_000_000, description="Fewer on a side tell nothing.")] = 20
    on_no_data: NoDataWord = "wait"

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.above is None and self.times is None:
            raise ValueError("give above, times or both")
        return self


class AnswersTrigger(TriggerPart):
    """Too many of the answers of one route have these statuses, such as those of the sign-in: 401 and 5xx.

    What clients saw of the new side. `times` compares with the share that the old side had in the window before the
    last change of weight at which it had `requests` or more; none of them then counts as one. With fewer, ever, there
    is no baseline.
    """

    when: Literal["answers"]
    route: Annotated[RoutePath, Field(description="A route of the service, or a path below one.")]
    method: Annotated[MethodWord | None, Field(description="Such as POST; all unless told.")] = None
    codes: Annotated[
        tuple[Code, ...],
        Field(min_length=1, max_length=20, description="Statuses from 400 on, 4xx and 5xx."),
        AfterValidator(_codes_once),
    ] = (401, "5xx")
    above: Annotated[float | None, Field(ge=0, lt=100, description="Per cent of the route's requests.")] = None
    times: Annotated[float | None, Field(gt=1, le=100, description="Of the old side's share before.")] = None
    window: Window = timedelta(minutes=1)
    requests: Annotated[int, Field(ge=1, le=1_000_000, description="Fewer in the window tell nothing.")] = 20
    on_no_data: NoDataWord = "wait"

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.above is None and self.times is None:
            raise ValueError("give above, times or both")
        return self

    @property
    def counted(self) -> Counted:
        """What the gateway has to count for it."""
        return Counted(self.route, self.method or "")


class QueryTrigger(TriggerPart):
    """A number that somebody else tells is past a limit, at every answer for so long.

    From the JSON of `url` at `path`, or from a query that gives one number in `prometheus`. No answer, no number and
    more than one tell nothing; a gap between two answers breaks what was past its limit.
    """

    when: Literal["query"]
    url: Annotated[Url | None, Field(description="Answers with JSON.")] = None
    path: Annotated[Place | None, Field(description="Where the number stands in it, such as data.failed.")] = None
    prometheus: Annotated[Url | None, Field(description="Its address, such as http://127.0.0.1:9090.")] = None
    query: Annotated[PromQuery | None, Field(description="In PromQL; it must give one number.")] = None
    above: Annotated[float | None, Field(description="Past it, when higher.", allow_inf_nan=False)] = None
    below: Annotated[float | None, Field(description="Past it, when lower.", allow_inf_nan=False)] = None
    window: Annotated[Window, Field(alias="for", description="How long it must be past it.")] = timedelta(seconds=15)
    on_no_data: NoDataWord = "wait"

    @model_validator(mode="after")
    def _asks_one_place(self) -> Self:
        given = tuple(value is not None for value in (self.url, self.path, self.prometheus, self.query))
        if given not in {(True, True, False, False), (False, False, True, True)}:
            raise ValueError("give url and path, or prometheus and query")
        if self.above is None and self.below is None:
            raise ValueError("give above, below or both")
        return self

    @property
    def address(self) -> str:
        """The URL that is asked."""
        if self.prometheus is None:
            return self.url or ""
        return f"{self.prometheus.rstrip('/')}/api/v1/query?{urlencode({'query': self.query or ''})}"

    def past(self, value: float) -> bool:
        """Whether a number is past a limit."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)


class FailoverTrigger(TriggerPart):
    """The gateway lets the monolith answer in the place of the service."""

    when: Literal["failover"]


AnyTrigger = AnswersTrigger | FailoverTrigger | HealthTrigger | ErrorTrigger | LatencyTrigger | QueryTrigger
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


def rule_of(trigger: AnyTrigger) -> str:
    """Changes with whatever it says: what was measured, told and done by another rule is not by this one."""
    return hashlib.sha256(trigger.model_dump_json().encode()).hexdigest()


def counted_by(triggers: Iterable[AnyTrigger]) -> list[Counted]:
    """What the gateway has to count by itself for these."""
    return [trigger.counted for trigger in triggers if isinstance(trigger, AnswersTrigger)]


def words(trigger: TriggerPart) -> str:
    """`errors: rollback when errors above 5, window 30s`, for people who compare plans."""
    values = trigger.model_dump(mode="json", exclude_defaults=True, exclude={"key", "do", "when", "dry_run"})
    when = getattr(trigger, "when", "")
    rest = ", ".join(f"{name} {_word(value)}" for name, value in values.items())
    dry = " (dry run)" if trigger.dry_run else ""
    return f"{trigger.key}: {trigger.do}{dry} by {when}" + (f" {rest}" if rest else "")


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
