"""The automatic checks that a plan may name, and the parameters each takes. No Django in here.

Lengths of time are written as `30s`, `15m`, `48h` or `3d`. Those called `for` and `window` are waited for, so a plan's
time scale shortens them; those called `max_age`, `within` and `under` are real time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from migrations_app.durations import PATTERN, parse_duration

Length = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{PATTERN.replace('?P<count>', '').replace('?P<unit>', '')}$"}),
]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Path = Annotated[str, Field(pattern=r"^/[^\s?#]{0,199}$")]
Keys = tuple[str, ...]


class CheckParameters(BaseModel):
    """The base of every check's parameters: unknown keys are refused, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """From what a plan's row holds. Raises pydantic.ValidationError."""
        return cls.model_validate_json(json.dumps(stored))


class FlagsOn(CheckParameters):
    """Holds while every flag of the named weeks is fully on (100 %). Exactly one of the two keys is given."""

    weeks: Annotated[tuple[int, ...], Field(min_length=1, description="Numbers of the weeks whose flags count.")] = ()
    all: Annotated[bool, Field(description="Every flag of the plan counts.")] = False

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if bool(self.weeks) == self.all:
            raise ValueError("name either 'weeks: [numbers]' or 'all: true'")
        return self


class ServicesHealthy(CheckParameters):
    """Holds while the services have been healthy for a time without a break."""

    services: Annotated[Keys, Field(description="Keys of services; the week's own when none is named.")] = ()
    lasting: Annotated[Length, Field(alias="for", description="How long, without a break.")] = timedelta(0)


class WeekStable(CheckParameters):
    """Holds while a week is fully on and has been for a time: no rollback, no unhealthy spell, few errors."""

    week: Annotated[int, Field(ge=1, description="Number of the week.")]
    lasting: Annotated[Length, Field(alias="for", description="How long, counted anew after each disturbance.")]
    error_rate: Annotated[float, Field(ge=0, le=100, description="Per cent of its requests, at most.")] = 0.1


class NoDegradation(CheckParameters):
    """Holds while the new side is no slower and no less reliable than the monolith was.

    The new side's requests of the last `window` against the monolith's of the last `window` in which it served the
    same services.
    """

    services: Annotated[Keys, Field(description="Keys of services.")] = ()
    weeks: Annotated[tuple[int, ...], Field(description="Numbers of weeks, for all their services.")] = ()
    window: Length = timedelta(minutes=15)
    slower_by: Annotated[float, Field(ge=0, le=1000, description="Per cent by which p95 may be above.")] = 20.0
    error_rate: Annotated[float, Field(ge=0, le=100, description="Per cent points by which errors may be above.")] = 0.1
    min_requests: Annotated[int, Field(ge=1, description="On each side; fewer tell nothing.")] = 100
    without_traffic: Annotated[
        Literal["unknown", "held"], Field(description="What too few requests count as. Only held opens the gate.")
    ] = "unknown"

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.services and not self.weeks:
            raise ValueError("name 'services: [keys]' or 'weeks: [numbers]'")
        return self


class BackupFresh(CheckParameters):
    """Holds while the newest matching file in BACKUP_DIR is a readable pg_dump archive and not too old."""

    file: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.*?-]{0,99}$",
            description="A file name with * and ?, within BACKUP_DIR, such as tracseq_main-*.dump.",
        ),
    ]
    max_age: Length = timedelta(hours=24)
    tables: Annotated[tuple[Identifier, ...], Field(description="Tables whose data the archive must hold.")] = ()


class MigratedTable(CheckParameters):
    """One table that must be the same on both sides, in the named columns."""

    name: Identifier
    renamed: Annotated[Identifier | None, Field(description="Its name in the new database, if another.")] = None
    key: Annotated[Identifier, Field(description="The column that identifies a row.")] = "id"
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1, description="Columns that are compared.")]


class DataMigrated(CheckParameters):
    """Holds while every row of the old database is in the new one, equal in the named columns.

    `from` and `to` name databases: CHECK_DATABASE_<NAME> of the environment has the address of each.
    """

    old: Annotated[Name, Field(alias="from")]
    new: Annotated[Name, Field(alias="to")]
    tables: Annotated[tuple[MigratedTable, ...], Field(min_length=1)]


class JwtCompatible(CheckParameters):
    """Holds while each side accepts the other's tokens, and both refuse expired and forged ones.

    CHECK_ACCOUNT_<NAME> of the environment has the account that signs in, as `user:password`; CHECK_SECRET_<NAME> the
    secret with which the expired token is signed.
    """

    service: Annotated[str, Field(description="Key of the new side's service; the old side is the monolith.")]
    account: Name
    secret: Name
    sign_in: Annotated[Path, Field(description="Path at the monolith; the service's has its strip taken off.")] = (
        "/api/auth/login"
    )
    verify: Annotated[Path, Field(description="Path at the monolith that answers 200 to a good token.")] = (
        "/api/auth/me"
    )


class JsonValue(CheckParameters):
    """A value in a JSON answer: `path` is its keys and list indexes, joined by dots."""

    path: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+){0,9}$")]
    equals: str | int | float | bool | None


class EndpointAnswers(CheckParameters):
    """Holds while an address answers with a status and, if asked for, with a value in its JSON."""

    target: Annotated[str, Field(description="`gateway`, `monolith`, or the key of a service.")]
    path: Path
    status: Annotated[int, Field(ge=100, le=599)] = 200
    json_value: Annotated[JsonValue | None, Field(alias="json")] = None


class RollbackRehearsed(CheckParameters):
    """Holds while the week's rollback has been rehearsed lately, quickly enough, with the routes that it has now."""

    within: Length = timedelta(days=7)
    under: Annotated[Length, Field(description="What the gateway may take to confirm.")] = timedelta(seconds=2)


CHECK_PARAMETERS: dict[str, type[CheckParameters]] = {
    "backup_fresh": BackupFresh,
    "data_migrated": DataMigrated,
    "endpoint_answers": EndpointAnswers,
    "flags_on": FlagsOn,
    "jwt_compatible": JwtCompatible,
    "no_degradation": NoDegradation,
    "rollback_rehearsed": RollbackRehearsed,
    "services_healthy": ServicesHealthy,
    "week_stable": WeekStable,
}
