"""How an enable is asked for: what it will do, in numbers, and how much it takes to say yes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.urls import reverse

from migrations_app.choices import Risk
from migrations_app.gateways.base import MONOLITH_WEIGHT

from .board import ServiceRow, WeekRow


@dataclass(frozen=True)
class Enabling:
    """One Enable button: of a whole week, or of one service of it. `key` is unique on a page."""

    key: str
    name: str
    action: str
    week: WeekRow
    services: tuple[ServiceRow, ...]
    whole: bool  # the whole week: then every service of it must be healthy, also those that are on

    @classmethod
    def of_week(cls, row: WeekRow) -> Enabling:
        services = tuple(service for service in row.services if not service.flag.is_fully_on)
        action = reverse("week-enable", args=[row.week.number])
        return cls(f"week-{row.week.number}", f"week {row.week.number}", action, row, services, whole=True)

    @classmethod
    def of_service(cls, row: WeekRow, service: ServiceRow) -> Enabling:
        action = reverse("flag-enable", args=[service.row.key])
        return cls(service.row.service, service.row.title, action, row, (service,), whole=False)

    @property
    def asks(self) -> bool:
        """A dialog before it happens."""
        return self.needs_reason or bool(self.points)

    @property
    def needs_reason(self) -> bool:
        return self.week.week.risk == Risk.HIGH

    @property
    def points(self) -> list[ServiceRow]:
        """The services that pass a point of no return by it."""
        return [one for one in self.services if one.row.point_of_no_return and one.row.weight == MONOLITH_WEIGHT]

    @cached_property
    def open(self) -> bool:
        """Whether the gate lets this through, as far as this page knows; the server decides on the click."""
        return (self.week.verdict if self.whole else self.week.verdict_on(self.services[0])).open

    @property
    def starts(self) -> bool:
        """It moves no traffic: it only begins."""
        return self.whole and not self.week.week.moves_traffic

    @property
    def verb(self) -> str:
        return "Start" if self.starts else "Enable"

    @property
    def requests(self) -> int:
        """Requests of the last minute that the old side served and that will move."""
        return sum(service.traffic.old - service.traffic.over for service in self.services)

    @property
    def areas(self) -> str:
        names = [service.service.area or service.service.title for service in self.services]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "Nothing"
