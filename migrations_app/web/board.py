"""The whole plan as pages show it, read in a fixed number of queries however many weeks and services there are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime

from django.utils import timezone

from migrations_app.choices import Health, WeekStatus
from migrations_app.gates.load import current_health, verdicts
from migrations_app.gates.verdict import LineKind, Verdict
from migrations_app.gateways.base import Side
from migrations_app.models import Flag, Gateway, HealthState, Plan, Service, Week
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.traffic import recent

from .gateway_state import FlagState, GatewayState, flag_state, state_of, words_of


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of the last minute to each side."""

    old: int = 0
    new: int = 0

    @property
    def total(self) -> int:
        return self.old + self.new

    @property
    def share(self) -> int | None:
        """Per cent on the new side; never rounded to all or nothing. None without traffic."""
        if not self.total:
            return None
        exact = 100 * self.new / self.total
        return round(exact) if exact in {0, 100} else min(99, max(1, round(exact)))

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.old + other.old, self.new + other.new)


@dataclass(frozen=True, slots=True)
class HealthCell:
    """What the last poll of one target said. `milliseconds` is that of the answer, None without one."""

    state: Health
    error: str = ""
    milliseconds: float | None = None

    @property
    def icon(self) -> str:
        return {Health.HEALTHY: "check", Health.UNHEALTHY: "cross"}.get(self.state, "unknown")


@dataclass(frozen=True, slots=True)
class ServiceRow:
    service: Service
    flag: Flag
    prefixes: tuple[str, ...]
    health: HealthCell
    gateway: FlagState
    traffic: Traffic

    @property
    def alarming(self) -> bool:
        """It carries traffic and is not healthy."""
        return self.flag.is_on and self.health.state == Health.UNHEALTHY


@dataclass(frozen=True, slots=True)
class WeekRow:
    """One week with everything that its row or its page says. Weights are per cent."""

    week: Week
    verdict: Verdict
    services: tuple[ServiceRow, ...]
    now: datetime
    current: bool = False

    @property
    def on(self) -> int:
        return sum(row.flag.is_fully_on for row in self.services)

    @property
    def any_on(self) -> bool:
        return any(row.flag.is_on for row in self.services)

    @property
    def all_on(self) -> bool:
        return bool(self.services) and self.on == len(self.services)

    @property
    def soaks_until(self) -> datetime | None:
        """When the soak ends, counted from the last move; None unless all is on."""
        moves = [row.flag.changed_at for row in self.services if row.flag.changed_at]
        return max(moves) + self.week.soak if self.all_on and moves else None

    @property
    def soaking(self) -> bool:
        return self.soaks_until is not None and self.soaks_until > self.now

    @property
    def status(self) -> tuple[str, str]:
        """A word and its icon."""
        if self.all_on:
            return ("On, soaking", "clock") if self.soaking else ("On", "check")
        if self.any_on:
            return f"{self.on} of {len(self.services)} on", "half"
        if self.week.status == WeekStatus.ROLLED_BACK:
            return "Rolled back", "back"
        return ("Ready", "open") if self.verdict.open and self.services else ("Planned", "ring")

    @property
    def traffic(self) -> Traffic:
        return sum((row.traffic for row in self.services), Traffic())

    @property
    def weight(self) -> int:
        """The mean weight that is asked for; what a share is until there is traffic to count."""
        return round(sum(row.flag.weight for row in self.services) / len(self.services)) if self.services else 0

    @property
    def soak_words(self) -> str:
        return words_of(self.week.soak) if self.week.soak else "none"

    @property
    def token(self) -> str:
        """Differs when something has changed that the page of the week does not refresh by itself."""
        gate = "".join("01"[line.held] for line in self.verdict.lines)
        weights = "-".join(str(row.flag.weight) for row in self.services)
        return f"{self.week.version}.{gate}.{weights}"

    @property
    def next_step(self) -> str:
        """The one thing to do next, as a sentence without its full stop."""
        if self.soaking:
            return "Watch it until the soak is over"
        if self.all_on:
            return "Nothing to do"
        blocking = self.verdict.blocking
        if not blocking:
            return "Enable it" if self.services else "Carry out what “done when” says"
        first, others = blocking[0], len(blocking) - 1
        verb = "Sign off" if first.kind == LineKind.MANUAL else "Wait for"
        return f"{verb}: {first.title}" + (f", and {others} more" if others else "")


@dataclass(frozen=True, slots=True)
class Board:
    plan: Plan
    weeks: tuple[WeekRow, ...]
    monolith: HealthCell
    gateway: GatewayState
    now: datetime

    @property
    def traffic(self) -> Traffic:
        return sum((row.traffic for row in self.weeks), Traffic())

    @property
    def current(self) -> WeekRow | None:
        return next((row for row in self.weeks if row.current), None)

    @property
    def version(self) -> str:
        """Differs when something has changed that a page does not refresh by itself."""
        parts = [self.plan.generation, self.plan.revision, *(row.week.version for row in self.weeks)]
        return "-".join(str(part) for part in parts) + f"-{self.current.week.number if self.current else 0}"

    def week(self, number: int) -> WeekRow | None:
        return next((row for row in self.weeks if row.week.number == number), None)

    def service(self, key: str) -> tuple[WeekRow, ServiceRow] | None:
        found = ((week, row) for week in self.weeks for row in week.services if row.service.key == key)
        return next(found, None)


def load_board() -> Board | None:
    """The board as it is now, None while no plan is loaded."""
    plan = Plan.objects.first()
    if plan is None:
        return None
    now = timezone.now()
    gateways = list(Gateway.objects.all())
    counted = recent(now)
    health = _health(now)
    services: dict[int, list[ServiceRow]] = defaultdict(list)
    for flag in Flag.objects.select_related("service").prefetch_related("service__routes"):
        sides = counted.get(flag.service.key, {})
        services[flag.week_id].append(
            ServiceRow(
                service=flag.service,
                flag=flag,
                prefixes=tuple(route.prefix for route in flag.service.routes.all()),
                health=health.get(flag.service.key, HealthCell(Health.UNKNOWN, "no poll yet")),
                gateway=flag_state(flag, gateways, now),
                traffic=Traffic(sides.get(Side.MONOLITH, 0), sides.get(Side.SERVICE, 0)),
            )
        )
    found = verdicts()
    weeks = [
        WeekRow(week, found.get(week.number, Verdict(week.number, ())), tuple(services[week.pk]), now)
        for week in Week.objects.all()
    ]
    current = _current(weeks)
    return Board(
        plan=plan,
        weeks=tuple(replace(row, current=index == current) for index, row in enumerate(weeks)),
        monolith=health.get(MONOLITH_TARGET, HealthCell(Health.UNKNOWN, "no poll yet")),
        gateway=state_of(plan, gateways, now),
        now=now,
    )


def _current(weeks: list[WeekRow]) -> int:
    """The index of the first week that is not fully on; while the one before it soaks, that one."""
    first = next((index for index, row in enumerate(weeks) if not row.all_on), len(weeks) - 1)
    return first - 1 if first > 0 and not weeks[first].any_on and weeks[first - 1].soaking else first


def _health(now: datetime) -> dict[str, HealthCell]:
    times = {row.target: row.milliseconds for row in HealthState.objects.all()}
    return {
        target: HealthCell(state, error, times.get(target) if state != Health.UNKNOWN else None)
        for target, (state, error) in current_health(now).items()
    }
