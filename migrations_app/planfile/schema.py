"""The plan document: what a plan file may say. Pydantic models, no Django.

Units: timeouts are seconds, weights are per cent of a flag's traffic on the new side, `soak` and `valid_for` are
lengths of time such as `48h`, dates are whole days in the plan's time zone and both ends count. Rules between values
are in `rules`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import zoneinfo
from datetime import date, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import models_json_schema

from migrations_app.durations import format_duration
from migrations_app.gates.parameters import CHECK_PARAMETERS, Length, Span, matches
from migrations_app.gateways.base import Counted, Sticky, counted_apart
from migrations_app.gateways.errors import InvalidTable
from migrations_app.gateways.tables import check_sticky
from migrations_app.planfile.downtime import DowntimePart
from migrations_app.planfile.health import HealthPart
from migrations_app.planfile.part import Part
from migrations_app.planfile.rollout import RolloutPart, StepPart
from migrations_app.planfile.triggers import (
    AnswersTrigger,
    ErrorTrigger,
    LatencyTrigger,
    QueryTrigger,
    Trigger,
    counted_by,
    keys_once,
)

RiskWord = Literal["low", "medium", "high"]
KindWord = Literal["manual", "automatic"]
AdapterWord = Literal["envoy", "memory"]
ApproverWord = Literal["approver"]  # the roles that may approve (roles.MATRIX)

_KEY = r"[a-z0-9]+(-[a-z0-9]+)*"
_CHECK = r"[a-z][a-z0-9_]*"
_FLAG = r"[A-Z][A-Z0-9_]*"
_KEYWORD = r"[A-Za-z0-9_-]+"
_SEGMENT = r"/[A-Za-z0-9_~-][A-Za-z0-9._~-]*"  # no empty, '.' or '..' segment: gateways normalise those away
_PATH = rf"({_SEGMENT})+"
_HOST = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_ADDRESS = rf"(?:http://)?(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})/?"
MAX_PATH = 200  # characters
MAX_GATEWAYS = 20  # of a plan; a pass has a thread for each


def split_address(address: str) -> tuple[str, int]:
    """`127.0.0.1:3000` -> host and port. IPv6 hosts come without their brackets. ValueError says what is wrong."""
    match = re.fullmatch(_ADDRESS, address)
    if match is None:
        if address.startswith("https://"):
            raise ValueError("https is not spoken to upstreams; give the plain address, such as 127.0.0.1:3000")
        raise ValueError(f"'{address}' is not an address; write host:port, such as 127.0.0.1:3000")
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is outside 1-65535")
    return match["host"].strip("[]"), port


def join_address(host: str, port: int) -> str:
    """Host and port -> `127.0.0.1:3000`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _clean(text: str, allowed: str) -> str:
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in allowed:
            if character == "\n":
                raise ValueError("must be on one line")
            raise ValueError(f"the control character {ord(character):#04x} does not belong in a plan")
    return text


def _parse_address(value: str) -> str:
    return join_address(*split_address(value))


def _parse_timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{value}' is not a time zone; write one such as UTC or Europe/Berlin") from None
    return value


def _parse_date(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"there is no day {value}") from None
    if isinstance(value, date):
        return value
    raise ValueError("expected a date such as 2026-11-23")


def _lists(value: Any) -> Any:
    """JSON has no tuples: parameters are equal however they came here. What they say is held to in `rules`."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(lambda text: _clean(text, ""))]
Prose = Annotated[str, Field(max_length=4000), AfterValidator(lambda text: _clean(text, "\n\t"))]
Key = Annotated[
    str,
    Field(max_length=64, json_schema_extra={"pattern": f"^{_KEY}$"}),
    matches(_KEY, "a key; write lower-case letters, digits and single hyphens, such as user-data"),
]
FlagKey = Annotated[
    str,
    Field(max_length=64, json_schema_extra={"pattern": f"^{_FLAG}$"}),
    matches(_FLAG, "a flag key; write it like an environment variable, such as USE_AUTH_SERVICE"),
]
CheckName = Annotated[
    str,
    Field(max_length=64, json_schema_extra={"pattern": f"^{_CHECK}$"}),
    matches(_CHECK, "the name of a check, such as flags_on"),
]
UrlPath = Annotated[
    str,
    Field(max_length=MAX_PATH, json_schema_extra={"pattern": f"^{_PATH}$"}),
    matches(_PATH, "a path; write one such as /api/auth, with no slash at the end"),
]
Strip = Annotated[
    str,
    Field(max_length=MAX_PATH, json_schema_extra={"pattern": f"^({_PATH})?$"}),
    matches(f"({_PATH})?", "a path to take off; write one such as /api, or '' to take off nothing"),
]
Keyword = Annotated[
    str,
    Field(max_length=64, json_schema_extra={"pattern": f"^{_KEYWORD}$"}),
    matches(_KEYWORD, "a name; write letters, digits, '-' and '_'"),
]
AddressText = Annotated[str, Field(max_length=262), AfterValidator(_parse_address)]
Day = Annotated[date, BeforeValidator(_parse_date)]
Soak = Annotated[Length, PlainSerializer(format_duration)]
Validity = Annotated[Span, PlainSerializer(format_duration)]
Parameters = Annotated[dict[str, Any], AfterValidator(_lists)]


class PlanHeader(Part):
    """What the plan is called, and what it is measured by."""

    key: Annotated[Key, Field(description="Names the plan for good; a database holds one plan.")]
    title: Line
    summary: Prose = ""
    timezone: Annotated[
        str, Field(max_length=64, description="An IANA time zone."), AfterValidator(_parse_timezone)
    ] = "UTC"
    targets: Annotated[tuple[Line, ...], Field(description="What the new system must reach, a sentence each.")] = ()
    roll_back_when: Annotated[tuple[Line, ...], Field(description="When to move back, a sentence each.")] = ()


class StickyPart(Part):
    """What tells users apart, so that each stays on one side of a split: one of the three."""

    header: Annotated[Keyword | None, Field(description="The value of this header.")] = None
    cookie: Annotated[Keyword | None, Field(description="The value of this cookie.")] = None
    claim: Annotated[Keyword | None, Field(description="A claim of the bearer token, such as sub.")] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(value is not None for value in (self.header, self.cookie, self.claim)) != 1:
            raise ValueError("give one of header, cookie and claim")
        try:
            check_sticky(Sticky(**self.row()))
        except InvalidTable as error:
            raise ValueError(str(error).removeprefix("sticky: ")) from None
        return self

    def row(self) -> dict[str, str]:
        """As gateways.base.Sticky takes it."""
        values = {"header": self.header, "cookie": self.cookie, "jwt_claim": self.claim}
        return {name: value for name, value in values.items() if value}


class GatewayPart(Part):
    """The gateway, or the gateways, that all routes of the plan run on: each runs all of them."""

    key: Key
    adapter: Annotated[AdapterWord, Field(description="envoy: the real proxy; memory: in this process, for tests.")]
    sticky: Annotated[StickyPart | None, Field(description="Unless told, each request is split at random.")] = None
    instances: Annotated[
        tuple[Key, ...],
        Field(
            json_schema_extra={"maxItems": MAX_GATEWAYS},
            description="All gateways by their keys, that of `key` among them; that one alone unless told.",
        ),
    ] = ()

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if twice := next((key for key in self.instances if self.instances.count(key) > 1), ""):
            raise ValueError(f"instances names {twice} twice")
        if len(self.instances) > MAX_GATEWAYS:
            raise ValueError(f"instances names {len(self.instances)} gateways; {MAX_GATEWAYS} are the most")
        if self.key not in self.keys:
            raise ValueError(f"instances must name {self.key}, the gateway's key, too")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all gateways."""
        return self.instances or (self.key,)


class MonolithPart(Part):
    """The old side. Everything that no route matches goes here too."""

    title: Line = "Monolith"
    address: Annotated[AddressText, Field(description="host:port or http://host:port.")]
    health_path: UrlPath = "/health"
    health: Annotated[HealthPart, Field(description="How it is polled.", json_schema_extra={"default": {}})] = (
        HealthPart()
    )


class ServicePart(Part):
    """One service of the new side: its flag, its path prefixes and where it listens."""

    key: Key
    title: Line
    area: Annotated[Line, Field(description="What it does, in the support team's words, such as Sign-in.")]
    owner: Line
    flag: FlagKey
    routes: Annotated[tuple[UrlPath, ...], Field(min_length=1, description="Path prefixes that the flag moves.")]
    strip: Annotated[Strip, Field(description="Taken off the front of the path on the new side only.")] = "/api"
    upstream: Annotated[AddressText, Field(description="host:port or http://host:port.")]
    health_path: UrlPath = "/health"
    health: Annotated[HealthPart, Field(description="How it is polled.", json_schema_extra={"default": {}})] = (
        HealthPart()
    )
    timeout: Annotated[float, Field(ge=0.1, le=3600, description="Seconds for a whole request, retries included.")] = (
        15.0
    )
    failover: Annotated[
        bool, Field(description="The gateway lets the monolith answer what it does not; false once that cannot.")
    ] = True
    point_of_no_return: Annotated[
        Line | None,
        Field(description="Why the old side cannot serve it again once it is on; then nothing fails over to it."),
    ] = None
    writes_from: Annotated[
        int, Field(ge=1, le=100, description="Per cent: writes stay on the old side while fewer requests move.")
    ] = 1
    rollout: Annotated[
        RolloutPart, Field(description="In which steps its traffic moves.", json_schema_extra={"default": {}})
    ] = RolloutPart()
    triggers: Annotated[
        tuple[Trigger, ...],
        Field(max_length=20, description="What moves it back by itself."),
        AfterValidator(keys_once),
    ] = ()
    new_side_only: Annotated[bool, Field(description="The monolith never had it.")] = False
    weight: Annotated[int, Field(ge=0, le=100, description="Per cent on the new side at the first load.")] = 0

    @property
    def fails_over(self) -> bool:
        """Whether the monolith may answer in its place: it has what that takes, and the plan does not forbid it."""
        return self.failover and not self.new_side_only and self.point_of_no_return is None


def done_key(position: int) -> str:
    """What the line at this place of `done_when` (from 0) is called when it has no key."""
    return f"done-{position + 1}"


class Planned(Part):
    """The planned first and last day of a week; both count."""

    start: Day
    end: Day


class PrerequisitePart(Part):
    """One checklist line: ticked by a person, or held by an automatic check."""

    key: Annotated[Key, Field(description="Unique within its week; sign-offs hang on it.")]
    title: Line
    kind: KindWord
    check: Annotated[CheckName | None, Field(description="The automatic check.")] = None
    parameters: Annotated[Parameters, Field(description="The check's parameters.")] = Field(default_factory=dict)
    valid_for: Annotated[
        Validity | None, Field(description="How long a sign-off lasts, such as 4h; for good unless told. Manual only.")
    ] = None
    help: Annotated[Prose, Field(description="How to bring it about, and what counts as evidence.")] = ""


class DonePart(Part):
    """One line of what a week is done when. A plain sentence in the file is the `title` of one with nothing else."""

    key: Annotated[Key | None, Field(description="Unique within its week; done-1, ... by its place unless told.")] = (
        None
    )
    title: Line
    check: Annotated[CheckName | None, Field(description="The automatic check; a person ticks it without one.")] = None
    parameters: Annotated[Parameters, Field(description="The check's parameters.")] = Field(default_factory=dict)
    help: Annotated[Prose, Field(description="How to bring it about, and what counts as evidence.")] = ""

    @property
    def is_sentence(self) -> bool:
        """Whether a plain sentence says all of it."""
        return self == DonePart(title=self.title)


_LINE = TypeAdapter(Line, config=ConfigDict(strict=True, str_strip_whitespace=True))


def _sentence(value: Any, read: ValidatorFunctionWrapHandler) -> DonePart:
    if isinstance(value, dict | DonePart):
        part: DonePart = read(value)
        return part
    return DonePart(title=_LINE.validate_python(value))


class ApprovalsPart(Part):
    """How many people of which role must approve a week, never the one who asks; and how long an approval lasts."""

    count: Annotated[int, Field(ge=0, le=9, description="How many people must approve; 0 for none.")] = 1
    role: Annotated[ApproverWord, Field(description="The role whose approvals count.")] = "approver"
    valid_for: Annotated[Validity, Field(description="How long a request, and what is given to it, lasts.")] = (
        timedelta(hours=24)
    )


class WeekPart(Part):
    """One stage of the plan. May last longer than a week, and may move no traffic."""

    number: Annotated[int, Field(ge=1, le=999)]
    title: Line
    risk: RiskWord
    impact: Line
    owner: Annotated[str, Field(max_length=200), AfterValidator(lambda text: _clean(text, ""))] = ""
    planned: Planned
    flags: tuple[FlagKey, ...] = ()
    moves_traffic: Annotated[bool, Field(description="false: the week has no flags on purpose.")] = True
    after: Annotated[
        tuple[int, ...],
        Field(description="Numbers of the weeks that come before it."),
        AfterValidator(lambda numbers: tuple(sorted(numbers))),
    ] = ()
    prerequisites: tuple[PrerequisitePart, ...] = ()
    approvals: Annotated[
        ApprovalsPart | None, Field(description="Unless told, one approver for a week of high risk, else none.")
    ] = None
    triggers: Annotated[
        tuple[Trigger, ...],
        Field(max_length=20, description="What moves all of it back by itself."),
        AfterValidator(keys_once),
    ] = ()
    soak: Annotated[Soak, Field(description="How long it must stay stable, such as 48h.")] = timedelta(0)
    downtime: Annotated[
        DowntimePart | None, Field(description="How much there may be; it is counted all the same without a target.")
    ] = None
    done_when: Annotated[
        tuple[Annotated[DonePart, WrapValidator(_sentence)], ...],
        Field(min_length=1, description="A sentence each, which a person ticks, or a group of keys with a check."),
    ]
    notes: Prose = ""

    @property
    def required_approvals(self) -> ApprovalsPart:
        """`approvals`, or what a week of this risk needs without them."""
        return self.approvals or ApprovalsPart(count=1 if self.risk == "high" else 0)

    @property
    def done_criteria(self) -> tuple[PrerequisitePart, ...]:
        """`done_when` as lines of a checklist, each with its key."""
        return tuple(
            PrerequisitePart(
                key=item.key or done_key(position),
                title=item.title,
                kind="automatic" if item.check else "manual",
                check=item.check,
                parameters=item.parameters,
                help=item.help,
            )
            for position, item in enumerate(self.done_when)
        )


class Plan(Part):
    """A whole plan file."""

    plan: PlanHeader
    gateway: GatewayPart
    monolith: MonolithPart
    services: tuple[ServicePart, ...] = ()
    weeks: Annotated[tuple[WeekPart, ...], Field(min_length=1)]

    def service_of_flag(self) -> dict[str, ServicePart]:
        """Flag key -> its service."""
        return {service.flag: service for service in self.services}

    def counted(self) -> dict[str, tuple[Counted, ...]]:
        """Service key -> what the gateway counts of it by itself: each of several routes, and what triggers name.

        A trigger of a week names a path of one of its services. Services of which nothing is are not in it.
        """
        found = {}
        weeks = {flag: week for week in self.weeks for flag in week.flags}
        for service in self.services:
            named = counted_by([*service.triggers, *(weeks[service.flag].triggers if service.flag in weeks else ())])
            routes = [Counted(prefix) for prefix in service.routes]
            own = [one for one in named if any(route.holds(Counted(one.path)) for route in routes)]
            if apart := counted_apart([*own, *(routes if len(routes) > 1 else ())]):
                found[service.key] = apart
        return found


def fingerprint(plan: Plan) -> str:
    """Twelve hexadecimal digits that change with anything the plan says (not with comments or layout)."""
    document = json.dumps(plan.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(document.encode()).hexdigest()[:12]


def json_schema() -> str:
    """The JSON Schema of plan files for editors, as text that ends with a line break."""
    schema = Plan.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Switchyard plan"
    parts = schema["$defs"]
    checks = models_json_schema([(model, "validation") for model in CHECK_PARAMETERS.values()])[1]["$defs"]
    models: list[type[BaseModel]] = [WeekPart, ApprovalsPart, StepPart]
    models += [AnswersTrigger, ErrorTrigger, LatencyTrigger, QueryTrigger]
    for model in (*models, *CHECK_PARAMETERS.values()):
        _tell_default_lengths(model, (parts | checks)[model.__name__]["properties"])
    for part in (parts["PrerequisitePart"], parts["DonePart"]):
        part["properties"]["check"].update({"anyOf": [{"enum": sorted(CHECK_PARAMETERS)}, {"type": "null"}]})
        part["allOf"] = [_takes(name, model) for name, model in CHECK_PARAMETERS.items()]
    line = {"type": "string", "minLength": 1, "maxLength": 200}
    parts["WeekPart"]["properties"]["done_when"]["items"] = {"anyOf": [line, {"$ref": "#/$defs/DonePart"}]}
    schema["$defs"] = dict(sorted((parts | checks).items()))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _tell_default_lengths(model: type[BaseModel], properties: dict[str, Any]) -> None:
    """As a plan file writes them; pydantic has ISO 8601."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, timedelta):
            properties[field.alias or name]["default"] = format_duration(field.default)


def _takes(check: str, model: type[BaseModel]) -> dict[str, Any]:
    """What a line with this check has as `parameters`."""
    required = ["parameters"] if any(field.is_required() for field in model.model_fields.values()) else []
    return {
        "if": {"properties": {"check": {"const": check}}, "required": ["check"]},
        "then": {"properties": {"parameters": {"$ref": f"#/$defs/{model.__name__}"}}, "required": required},
    }
