"""The `downtime` of a week in a plan file: how much of it may not work for those who call it. No Django."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainSerializer

from migrations_app.durations import format_duration
from migrations_app.gates.parameters import Length
from migrations_app.planfile.part import Part


class DowntimePart(Part):
    """The target that its downtime clock stands beside. Real time: a time scale does not shorten it."""

    under: Annotated[
        Length, PlainSerializer(format_duration), Field(description="Less than this, such as 5m; 0s: none at all.")
    ]
    share: Annotated[
        int, Field(ge=1, le=100, description="A service is down while so many per cent of its requests fail.")
    ] = 50

    def words(self) -> str:
        """`under 5m, from 50 % failed on`, for people who compare plans."""
        return f"{f'under {format_duration(self.under)}' if self.under else 'none'}, from {self.share} % failed on"
