"""The downtime of a week as pages tell it: the clock, beside what the plan allows, and when it was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Self

from migrations_app.durations import to_the_second
from migrations_app.gates.checks.downtime import words_of
from migrations_app.models import DowntimeClock, DowntimeSpan, Week

SHOWN = 20  # spans
LATE = timedelta(seconds=10)  # after the first move, the beginning of the clock is told


@dataclass(frozen=True, slots=True)
class Span:
    """One time in which a service was down. `title` is its name, or its key once it is gone."""

    title: str
    row: DowntimeSpan

    @property
    def length(self) -> str:
        return to_the_second(self.row.length)


@dataclass(frozen=True)
class Downtime:
    """`clock` is None before the first move, `under` without a target."""

    clock: DowntimeClock | None
    under: timedelta | None
    share: int
    started_at: datetime | None
    now: datetime

    @classmethod
    def of(cls, week: Week, now: datetime) -> Self:
        clock = getattr(week, "downtime_clock", None)
        return cls(clock, week.downtime_under, week.downtime_share, week.started_at, now)

    @property
    def any(self) -> bool:
        """There was some."""
        return bool(self.clock and self.clock.down)

    @property
    def over(self) -> bool:
        """More than the target."""
        return bool(self.clock and self.under is not None and self.clock.down >= self.under and self.clock.down)

    @property
    def down(self) -> str:
        return to_the_second(self.clock.down) if self.clock and self.clock.down else "none"

    @property
    def target(self) -> str:
        """`under 5 min`, `none`; "" without one."""
        return words_of(self.under) if self.under is not None else ""

    @property
    def planned(self) -> str:
        return to_the_second(self.clock.planned) if self.clock and self.clock.planned else ""

    @cached_property
    def not_known(self) -> str:
        length = self.clock.not_known_at(self.now) if self.clock else timedelta(0)
        return to_the_second(length) if length else ""

    @property
    def since(self) -> datetime | None:
        """When counting began, where that was later than the first move."""
        if self.clock is None or self.started_at is None or self.clock.since <= self.started_at + LATE:
            return None
        return self.clock.since

    @property
    def icon(self) -> str:
        return "cross" if self.over else "warn" if self.any else "check"

    @property
    def used(self) -> int | None:
        """Per cent of what is allowed; None where nothing is to be drawn."""
        if self.clock is None or not self.under:
            return None
        return min(100, -(-100 * self.clock.down // self.under)) if self.clock.down else 0

    @property
    def short(self) -> str:
        """`40 s of downtime`, for a line of a list."""
        return f"{self.down} of downtime"


def spans_of(downtime: Downtime, titles: dict[str, str]) -> list[Span]:
    """The newest, first. One query, none while there was no downtime."""
    clock = downtime.clock
    if clock is None or not (clock.down or clock.planned):
        return []
    rows = DowntimeSpan.objects.filter(week=clock.pk).order_by("-ends_at", "-pk")[:SHOWN]
    return [Span(titles.get(row.service, row.service), row) for row in rows]


def by_service(downtime: Downtime, titles: dict[str, str]) -> list[tuple[str, str]]:
    """What each service had alone, where several had some: title and length, the longest first."""
    seconds = downtime.clock.of_services if downtime.clock else {}
    if len(seconds) < 2:
        return []
    found = sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    return [(titles.get(key, key), to_the_second(timedelta(seconds=one))) for key, one in found]
