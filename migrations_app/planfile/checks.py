"""The automatic checks that a plan may name, and the parameters each takes. No Django in here."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class CheckParameters(BaseModel):
    """The base of every check's parameters: unknown keys are refused, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FlagsOn(CheckParameters):
    """Holds while every flag of the named weeks is fully on (100 %). Exactly one of the two keys is given."""

    weeks: Annotated[tuple[int, ...], Field(min_length=1, description="Numbers of the weeks whose flags count.")] = ()
    all: Annotated[bool, Field(description="Every flag of the plan counts.")] = False

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if bool(self.weeks) == self.all:
            raise ValueError("name either 'weeks: [numbers]' or 'all: true'")
        return self


CHECK_PARAMETERS: dict[str, type[CheckParameters]] = {"flags_on": FlagsOn}
