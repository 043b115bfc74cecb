"""The whole plan as pages show it, read in a fixed number of queries however many weeks and services there are."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.utils import timezone

from migrations_app.choices import Health, WeekStatus
from migrations_app.durations import in_words
from migrations_app.gates.load import Read, states_at, verdicts
from migrations_app.gates.verdict import Line, LineKind, Verdict
from migrations_app.gateways.base import Side
from migrations_app.models import Flag, Gateway, HealthState, Plan, Route, Service, Week
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.traffic import recent

from .gate import anchor_of
from .gate import state_of as state_of_line
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
    soak: timedelta  # how long it really takes: a plan's time scale shortens it
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
    def startable(self) -> bool:
        """It moves no traffic and has not begun."""
        return not self.week.moves_traffic and self.week.status == WeekStatus.PLANNED

    @property
    def soaks_until(self) -> datetime | None:
        """When the soak ends; None while its clock stands still."""
        started = self.week.soak_started_at
        return started + self.soak if started and self.week.status == WeekStatus.SOAKING else None

    @property
    def soaking(self) -> bool:
        """All of it is on, and it has not been stable for long enough yet."""
        return self.week.status == WeekStatus.SOAKING and not self.soaked

    @property
    def soaked(self) -> bool:
        """The soak is over, and nobody has called it done."""
        return self.soaks_until is not None and self.soaks_until <= self.now

    @property
    def stopped(self) -> bool:
        """The soak clock stands still."""
        return self.week.status == WeekStatus.SOAKING and self.week.soak_started_at is None

    @property
    def done(self) -> bool:
        return self.week.status == WeekStatus.DONE

    @property
    def passed(self) -> bool:
        """It is behind its gate: all of it is on."""
        return self.week.status in {WeekStatus.SOAKING, WeekStatus.DONE}

    @property
    def soaked_share(self) -> int:
        """Per cent of the soak that is over."""
        if self.week.soak_started_at is None:
            return 100 if self.done else 0
        passed = self.now - self.week.soak_started_at
        return 100 if self.done or passed >= self.soak else max(0, int(100 * (passed / self.soak)))

    @property
    def soak_passed(self) -> str:
        """How far the soak is, in words."""
        started = self.week.soak_started_at
        return in_words(min(self.now - started, self.soak)) if started else in_words(timedelta(0))

    @property
    def soak_total(self) -> str:
        return in_words(self.soak)

    @property
    def soak_left(self) -> str:
        """How long the soak still takes, in words; "" unless its clock runs."""
        return in_words(self.soaks_until - self.now) if self.soaking and self.soaks_until else ""

    @property
    def status(self) -> tuple[str, str]:
        """A word and its icon."""
        if self.week.status == WeekStatus.IN_PROGRESS:
            return f"In progress, {self.on} of {len(self.services)} on", "half"
        if self.week.status == WeekStatus.SOAKING:
            if self.stopped:
                return "Soak stopped", "warn"
            return ("Soaked", "check") if self.soaked else ("Soaking", "clock")
        if self.week.status == WeekStatus.PLANNED and self.verdict.open:
            return "Ready", "open"
        return {
            WeekStatus.DONE: ("Done", "held"),
            WeekStatus.ROLLED_BACK: ("Rolled back", "back"),
        }.get(WeekStatus(self.week.status), ("Planned", "ring"))

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
    def scaled_soak_words(self) -> str:
        """How long the soak takes here; "" when the plan's time runs as it does everywhere."""
        return in_words(self.soak) if self.soak != self.week.soak else ""

    @property
    def token(self) -> str:
        """Differs when something has changed that the page of the week does not refresh by itself."""
        gate = ".".join(f"{anchor_of(line)}-{state_of_line(line)[0]}" for line in self.verdict.lines)
        weights = "-".join(str(row.flag.weight) for row in self.services)
        state = f"{self.week.version}.{weights}.{self.status[0]}.{gate}"
        return hashlib.sha256(state.encode()).hexdigest()[:16]

    @property
    def next_step(self) -> str:
        """The one thing to do next, as a sentence without its full stop."""
        if self.done:
            return "Nothing to do"
        if self.stopped:
            return f"Mend it: {self.week.soak_stopped_because or 'something is wrong'}"
        if self.week.status == WeekStatus.SOAKING:
            return "Call it done" if self.soaked else f"Watch it for another {self.soak_left}"
        blocking = sorted(self.verdict.blocking, key=lambda line: line.kind != LineKind.ORDER)
        if not blocking:
            return "Enable it" if self.week.moves_traffic else "Start it"
        first, others = blocking[0], len(blocking) - 1
        return _step(first) + (f", and {others} more" if others else "")


def _step(line: Line) -> str:
    """What the line waits for, in a few words."""
    if line.kind == LineKind.ORDER:
        return f"Wait for week {line.key.removeprefix('after-')} to soak"
    if line.kind == LineKind.APPROVAL:
        return "Get it approved"
    if line.kind == LineKind.FREEZE:
        return f"Wait for the end of the freeze: {line.title.removeprefix('No freeze: ')}"
    return f"Sign off: {line.title}" if line.kind == LineKind.MANUAL else f"Wait for: {line.title}"


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

    @property
    def freezes(self) -> tuple[Line, ...]:
        """The freezes that are on: every gate has them."""
        lines = self.weeks[0].verdict.lines if self.weeks else ()
        return tuple(line for line in lines if line.kind == LineKind.FREEZE)

    def week(self, number: int) -> WeekRow | None:
        return next((row for row in self.weeks if row.week.number == number), None)

    def service(self, key: str) -> tuple[WeekRow, ServiceRow] | None:
        found = ((week, row) for week in self.weeks for row in week.services if row.service.key == key)
        return next(found, None)


def load_board(gateways: list[Gateway] | None = None) -> Board | None:
    """The board as it is now, None while no plan is loaded. `gateways`: when they were read already, with the plan."""
    if gateways is None:
        gateways = list(Gateway.objects.select_related("plan").defer("plan__document"))
    plan = gateways[0].plan if gateways else Plan.objects.first()
    if plan is None:
        return None
    now = timezone.now()
    counted = recent(now)
    weeks = list(Week.objects.all())
    for week in weeks:
        week.plan = plan
    states = list(HealthState.objects.all())
    health = _health(states, now)
    prefixes = defaultdict(list)
    for service, prefix in Route.objects.values_list("service_id", "prefix"):
        prefixes[service].append(prefix)
    services: dict[int, list[ServiceRow]] = defaultdict(list)
    for flag in Flag.objects.select_related("service"):
        sides = counted.get(flag.service.key, {})
        services[flag.week_id].append(
            ServiceRow(
                service=flag.service,
                flag=flag,
                prefixes=tuple(prefixes[flag.service_id]),
                health=health.get(flag.service.key, HealthCell(Health.UNKNOWN, "no poll yet")),
                gateway=flag_state(flag, gateways, now),
                traffic=Traffic(sides.get(Side.MONOLITH, 0), sides.get(Side.SERVICE, 0)),
            )
        )
    found = verdicts(now=now, read=Read(weeks, states))
    rows = [
        WeekRow(
            week,
            found.get(week.number, Verdict(week.number, ())),
            tuple(services[week.pk]),
            now,
            plan.scaled(week.soak),
        )
        for week in weeks
    ]
    current = _current(rows)
    return Board(
        plan=plan,
        weeks=tuple(replace(row, current=index == current) for index, row in enumerate(rows)),
        monolith=health.get(MONOLITH_TARGET, HealthCell(Health.UNKNOWN, "no poll yet")),
        gateway=state_of(plan, gateways, now),
        now=now,
    )


def _current(weeks: list[WeekRow]) -> int:
    """The index of the first week that is neither done nor soaked."""
    return next((index for index, row in enumerate(weeks) if not row.done and not row.soaked), len(weeks) - 1)


def _health(rows: list[HealthState], now: datetime) -> dict[str, HealthCell]:
    times = {row.target: row.milliseconds for row in rows}
    return {
        target: HealthCell(state, error, times.get(target) if state != Health.UNKNOWN else None)
        for target, (state, error, _) in states_at(now, rows).items()
    }
