"""The automatic checks that a plan may name, and the parameters each takes. No Django in here.

Lengths of time are written as `30s`, `15m`, `48h` or `3d`. Those called `for` and `window` are waited for, so a plan's
time scale shortens them; those called `max_age`, `within` and `under` are real time.

A plan file writes the names that pydantic calls aliases: `for`, `from`, `to`, `json`. Parameters called `week`,
`weeks`, `service`, `services` and `target` name parts of the plan, and are held to it when it is read (planfile.rules).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from migrations_app.durations import PATTERN, parse_duration


def matches(pattern: str, meant: str) -> AfterValidator:
    """A text that fits the whole pattern; anything else `is not <meant>`."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            shown = value if value.isprintable() else ascii(value)[1:-1]
            raise ValueError(f"'{shown}' is not {meant}")
        return value

    return AfterValidator(check)


def _not_nothing(length: timedelta) -> timedelta:
    if not length:
        raise ValueError("must be longer than nothing")
    return length


def _scalar(value: object) -> object:
    if isinstance(value, list | tuple | dict):
        raise ValueError("expected a text, a number, true, false or null")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the number is too large")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("expected text that can be seen, on one line")
    if isinstance(value, str) and len(value) > 200:
        raise ValueError("is longer than 200 characters")
    return value


_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_NAME = r"[a-z][a-z0-9_]*"
_PATH = r"/[!\"$->@-~]*"  # visible ASCII, without ? and #
_FILE = r"[A-Za-z0-9_][A-Za-z0-9_.*?-]*"
_STEPS = r"[^.\s\x00-\x1f\x7f]+(\.[^.\s\x00-\x1f\x7f]+){0,9}"

Length = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{PATTERN.replace('?P<count>', '').replace('?P<unit>', '')}$"}),
]
Span = Annotated[Length, AfterValidator(_not_nothing)]
Identifier = Annotated[
    str,
    Field(max_length=63, json_schema_extra={"pattern": f"^{_IDENTIFIER}$"}),
    matches(_IDENTIFIER, "a name in a database; write letters, digits and underscores, such as users"),
]
Name = Annotated[
    str,
    Field(max_length=32, json_schema_extra={"pattern": f"^{_NAME}$"}),
    matches(_NAME, "a name; write lower-case letters, digits and underscores, such as main"),
]
Path = Annotated[
    str,
    Field(max_length=200, json_schema_extra={"pattern": f"^{_PATH}$"}),
    matches(_PATH, "a path; write one such as /api/auth/me, without ? and #"),
]
Place = Annotated[
    str,
    Field(max_length=200, json_schema_extra={"pattern": f"^{_STEPS}$"}),
    matches(_STEPS, "a place in JSON; write keys joined by dots, such as data.status"),
]
Keys = tuple[str, ...]


class CheckParameters(BaseModel):
    """The base of every check's parameters: unknown keys are refused, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """From what a plan's row holds. Raises pydantic.ValidationError."""
        return cls.model_validate_json(json.dumps(stored))


class FlagsOn(CheckParameters):
    """Holds while every flag of the named weeks is fully on (100 %). Exactly one of the two keys is given.

    Measures the weights that are wanted, and is never unknown.
    """

    weeks: Annotated[tuple[int, ...], Field(description="Numbers of the weeks whose flags count.")] = ()
    all: Annotated[bool, Field(description="Every flag of the plan counts.")] = False

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if bool(self.weeks) == self.all:
            raise ValueError("name either 'weeks: [numbers]' or 'all: true'")
        return self


class ServicesHealthy(CheckParameters):
    """Holds while the services have been healthy for a time without a break.

    Measures the health polls. Unknown while a service has not been polled lately and none is unhealthy.
    """

    services: Annotated[Keys, Field(description="Keys of services; the week's own when none is named.")] = ()
    lasting: Annotated[Length, Field(alias="for", description="How long, without a break.")] = timedelta(0)


class WeekStable(CheckParameters):
    """Holds while a week is fully on and has been for a time: no rollback, no unhealthy spell, few errors.

    Measures the time since the last move of its flags, start of its soak clock or unhealthy spell, and the errors of
    the new side over the last `for`. Unknown while one of its services has not been polled lately, and when no request
    was counted.
    """

    week: Annotated[int, Field(ge=1, description="Number of the week.")]
    lasting: Annotated[Length, Field(alias="for", description="How long, counted anew after each disturbance.")]
    error_rate: Annotated[float, Field(ge=0, le=100, description="Per cent of its requests, at most.")] = 0.1


class NoDegradation(CheckParameters):
    """Holds while the new side is no slower and no less reliable than the monolith was.

    Measures, service by service, p95 and error rate of the new side's requests of the last `window` against the
    monolith's of the last `window` in which it served the same service, and of longer where those are fewer than
    `min_requests`. Unknown with fewer on a side, unless `without_traffic` is held. A service that the monolith never
    had is held to its error rate alone.
    """

    services: Annotated[Keys, Field(description="Keys of services.")] = ()
    weeks: Annotated[tuple[int, ...], Field(description="Numbers of weeks, for all their services.")] = ()
    window: Annotated[Span, Field(description="How far back is looked, on each side.")] = timedelta(minutes=15)
    slower_by: Annotated[float, Field(ge=0, le=1000, description="Per cent by which p95 may be above.")] = 20.0
    slower_ms: Annotated[
        float, Field(ge=1, le=60_000, description="Milliseconds by which p95 may be above in any case.")
    ] = 1.0
    error_rate: Annotated[float, Field(ge=0, le=100, description="Per cent points by which errors may be above.")] = 0.1
    min_requests: Annotated[int, Field(ge=1, le=1_000_000, description="On each side; fewer tell nothing.")] = 100
    without_traffic: Annotated[
        Literal["unknown", "held"], Field(description="What too few requests count as. Only held opens the gate.")
    ] = "unknown"

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.services and not self.weeks:
            raise ValueError("name 'services: [keys]' or 'weeks: [numbers]'")
        return self


class BackupFresh(CheckParameters):
    """Holds while the newest matching file in BACKUP_DIR is a readable pg_dump archive and not too old.

    Measures the file's age, what `pg_restore --list` finds in it, and whether it is whole. Unknown when BACKUP_DIR
    cannot be read, there is no pg_restore or an older one than the pg_dump, or the file cannot be read through in time.
    """

    file: Annotated[
        str,
        Field(
            max_length=100,
            json_schema_extra={"pattern": f"^{_FILE}$"},
            description="A file name with * and ?, within BACKUP_DIR, such as tracseq_main-*.dump.",
        ),
        matches(_FILE, "a file name; write one such as tracseq_main-*.dump, without a folder"),
    ]
    max_age: Annotated[Span, Field(description="How old it may be.")] = timedelta(hours=24)
    tables: Annotated[tuple[Identifier, ...], Field(description="Tables whose data the archive must hold.")] = ()


class MigratedTable(CheckParameters):
    """One table that must be the same on both sides, in the named columns."""

    name: Identifier
    renamed: Annotated[Identifier | None, Field(description="Its name in the new database, if another.")] = None
    key: Annotated[Identifier, Field(description="The column that identifies a row.")] = "id"
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1, description="Columns that are compared.")]


class DataMigrated(CheckParameters):
    """Holds while every row of the old database is in the new one, equal in the named columns.

    Measures row counts and checksums of all rows. `from` and `to` name databases: CHECK_DATABASE_<NAME> of the
    environment has the address of each. Unknown when one of them is not set, does not answer in time, or lacks a table
    or column, and when the old one has no rows.
    """

    old: Annotated[Name, Field(alias="from", description="Name of the old database.")]
    new: Annotated[Name, Field(alias="to", description="Name of the new database.")]
    tables: Annotated[tuple[MigratedTable, ...], Field(min_length=1, description="What is compared.")]

    @model_validator(mode="after")
    def _two_databases(self) -> Self:
        if self.old == self.new:
            raise ValueError("'from' and 'to' name the same database")
        return self


class JwtCompatible(CheckParameters):
    """Holds while each side accepts the other's tokens, and both refuse expired and forged ones.

    Measures the answers of both sides to such tokens. CHECK_ACCOUNT_<NAME> of the environment has the account that
    signs in, as `user:password`; CHECK_SECRET_<NAME> the secret with which the expired token is signed. Unknown when
    one of them is not set, a side does not answer or answers with an error of the server, or signs otherwise than with
    HS256.
    """

    service: Annotated[str, Field(description="Key of the new side's service; the old side is the monolith.")]
    account: Annotated[Name, Field(description="Name of the account.")]
    secret: Annotated[Name, Field(description="Name of the secret.")]
    sign_in: Annotated[Path, Field(description="Path at the monolith; the service's has its strip taken off.")] = (
        "/api/auth/login"
    )
    verify: Annotated[Path, Field(description="Path at the monolith that answers 200 to a good token.")] = (
        "/api/auth/me"
    )


class JsonValue(CheckParameters):
    """A value in a JSON answer: `path` is its keys and list indexes, joined by dots."""

    path: Place
    equals: Annotated[
        Any,
        AfterValidator(_scalar),
        WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
    ]


class EndpointAnswers(CheckParameters):
    """Holds while an address answers with a status and, if asked for, with a value in its JSON.

    Measures one GET, past the gateway unless that is the target. Unknown when there is no answer in time.
    """

    target: Annotated[str, Field(description="`gateway`, `monolith`, or the key of a service.")]
    path: Annotated[Path, Field(description="Path at the target.")]
    status: Annotated[int, Field(ge=100, le=599, description="Status of the answer.")] = 200
    json_value: Annotated[JsonValue | None, Field(alias="json", description="`{path: data.status, equals: ok}`.")] = (
        None
    )


class RollbackRehearsed(CheckParameters):
    """Holds while the week's rollback has been rehearsed lately, quickly enough, with the routes that it has now.

    Measures the last rehearsal, and is never unknown.
    """

    within: Annotated[Span, Field(description="How long ago it may be.")] = timedelta(days=7)
    under: Annotated[Span, Field(description="What the gateway may take to confirm.")] = timedelta(seconds=2)


class Downtime(CheckParameters):
    """Holds while a week's services were down for less time than its target, counted by its downtime clock.

    Measures the clock, from the week's first move on; planned maintenance is not in it. Unknown while what is not known
    would decide, unless `not_known` is held, and when no request was counted.
    """

    week: Annotated[int | None, Field(ge=1, description="Number of the week; the line's own unless told.")] = None
    under: Annotated[
        Length | None, Field(description="Less than this, 0s: none; the week's own target unless told.")
    ] = None
    not_known: Annotated[
        Literal["unknown", "held"],
        Field(description="What time counts as of which nobody can tell: unknown, or no downtime (held)."),
    ] = "unknown"


CHECK_PARAMETERS: dict[str, type[CheckParameters]] = {
    "backup_fresh": BackupFresh,
    "data_migrated": DataMigrated,
    "downtime": Downtime,
    "endpoint_answers": EndpointAnswers,
    "flags_on": FlagsOn,
    "jwt_compatible": JwtCompatible,
    "no_degradation": NoDegradation,
    "rollback_rehearsed": RollbackRehearsed,
    "services_healthy": ServicesHealthy,
    "week_stable": WeekStable,
}
