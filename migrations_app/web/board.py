"""The whole plan as pages show it, read in a fixed number of queries however many weeks and services there are.

It is read as columns; what a page does not look at is never made of them: neither models nor verdicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from migrations_app.choices import Health, Phase, WeekStatus
from migrations_app.durations import in_words
from migrations_app.gates.load import Gates, load_gates
from migrations_app.gates.rows import FlagRow
from migrations_app.gates.verdict import Line, LineKind, Verdict
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.models import Flag, Gateway, Plan, Service, Week
from migrations_app.models.gateways import verified_at
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.last_minute import LastMinute, last_minute, last_minute_of

from .downtime import Downtime
from .gate import anchor_of
from .gate import state_of as state_of_line
from .gateway_state import FlagState, GatewayState, flag_state, state_of, words_of
from .status_words import TROUBLE_SHARE
from .steps import StepNow, generations_of

_ICONS = {Health.HEALTHY: "check", Health.UNHEALTHY: "cross", Health.UNKNOWN: "unknown"}
# Columns of a FlagRow as `from_db` wants them: as the fields stand in the models. What is missing is loaded when asked.
SERVICE_FIELDS = [
    "id",
    "plan_id",
    "key",
    "title",
    "area",
    "owner",
    "host",
    "port",
    "health_path",
    "strip",
    "new_side_only",
]
FLAG_FIELDS = ["id", "plan_id", "key", "service_id", "week_id", "weight", "generation", "changed_at"]


class Traffic(NamedTuple):
    """Requests of the last minute that each side answered. `over`: of the old one's, those in the new one's place."""

    old: int = 0
    new: int = 0
    over: int = 0

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

    def __add__(self, other: Traffic) -> Traffic:  # type: ignore[override]  # not one behind the other
        return Traffic(self.old + other.old, self.new + other.new, self.over + other.over)

    @property
    def meant_for_new(self) -> int:
        return self.new + self.over

    @property
    def fails_over(self) -> bool:
        """So many of what is meant for the new side that it is no single slip."""
        return self.over > TROUBLE_SHARE * self.meant_for_new


class HealthCell(NamedTuple):
    """What the last poll of one target said. `milliseconds` is that of the answer, None without one."""

    state: Health
    error: str = ""
    milliseconds: float | None = None

    @property
    def icon(self) -> str:
        return _ICONS[self.state]


@dataclass(frozen=True)
class ServiceRow:
    """One service with its flag."""

    row: FlagRow
    week: Week
    around: Around
    step: StepNow | None  # of the rollout that is under way

    @cached_property
    def traffic(self) -> Traffic:
        old, new = self.around.lately.sides(self.row.service)
        # A request may have failed over and not be over yet.
        return Traffic(old.requests + new.failovers, max(0, new.requests - new.failovers), new.failovers)

    @property
    def health(self) -> HealthCell:
        return self.around.health(self.row.service)

    @cached_property
    def service(self) -> Service:
        """How it is polled, which no page of the plan shows, is loaded when it is asked for."""
        row = self.row
        values = row.service_id, self.week.plan_id, row.service, row.title, row.area, row.owner, row.host, row.port
        return Service.from_db(None, SERVICE_FIELDS, (*values, row.health_path, row.strip, row.new_side_only))

    @cached_property
    def flag(self) -> Flag:
        """With its service."""
        row = self.row
        values = row.id, self.week.plan_id, row.key, row.service_id, self.week.pk
        found = Flag.from_db(None, FLAG_FIELDS, (*values, row.weight, row.generation, row.changed_at))
        found.service = self.service
        return found

    @property
    def prefixes(self) -> list[str]:
        return self.row.prefixes

    @cached_property
    def gateway(self) -> FlagState:
        return flag_state(self.flag, self.around.gateways, self.around.now)

    @property
    def pinned(self) -> bool:
        """A gateway holds it on the old side: to enable it would be refused."""
        return any(row.pin_of(self.row.key) for row in self.around.gateways)

    @property
    def by_gateway(self) -> list[tuple[Gateway, FlagState]]:
        """What each gateway says of it."""
        gateways, now = self.around.gateways, self.around.now
        return [(gateway, flag_state(self.flag, [gateway], now)) for gateway in gateways]

    @property
    def passed_point(self) -> str:
        """What keeps the old side from serving it again, once it is on; "" for nothing."""
        return self.row.point_of_no_return if self.row.weight > MONOLITH_WEIGHT else ""

    @property
    def alarming(self) -> bool:
        """It carries traffic and is not healthy."""
        return self.row.weight > MONOLITH_WEIGHT and self.health.state == Health.UNHEALTHY

    @property
    def fails_over(self) -> bool:
        """The monolith answers in its place, whatever its health page says."""
        return self.row.weight > MONOLITH_WEIGHT and self.traffic.fails_over


@dataclass(frozen=True)
class WeekRow:
    """One week with everything that its row or its page says. Weights are per cent."""

    week: Week
    services: tuple[ServiceRow, ...]
    gates: Gates
    soak: timedelta  # how long it really takes: a plan's time scale shortens it
    current: bool = False

    @property
    def now(self) -> datetime:
        return self.gates.now

    @cached_property
    def verdict(self) -> Verdict:
        """On starting all of it."""
        return self.gates.verdict(self.week.number)

    @cached_property
    def done_verdict(self) -> Verdict:
        """On calling it done."""
        return self.gates.done_verdict(self.week.number)

    def verdict_on(self, service: ServiceRow) -> Verdict:
        """On moving the flag of one of its services alone, as a click on that is judged."""
        return self.gates.verdict(self.week.number, {service.row.key})

    @cached_property
    def on(self) -> int:
        return sum(one.row.weight == SERVICE_WEIGHT for one in self.services)

    @cached_property
    def any_on(self) -> bool:
        return any(one.row.weight > MONOLITH_WEIGHT for one in self.services)

    @cached_property
    def steps(self) -> list[StepNow]:
        """Of the rollouts of the week that are under way."""
        return [one.step for one in self.services if one.step]

    @property
    def steps_words(self) -> str:
        """Those in a few words: `Step 2 of 5, 5 %`, `3 services in steps, 1 paused`."""
        if len(self.steps) == 1:
            return self.steps[0].place + (", paused" if self.steps[0].paused else "")
        paused = sum(step.paused for step in self.steps)
        return f"{len(self.steps)} services in steps" + (f", {paused} paused" if paused else "")

    @property
    def steps_icon(self) -> str:
        return "warn" if any(step.paused for step in self.steps) else "half"

    @property
    def running_steps(self) -> bool:
        return any(not step.paused for step in self.steps)

    @property
    def paused_steps(self) -> bool:
        return any(step.paused for step in self.steps)

    @property
    def steps_to_start(self) -> bool:
        """A service of it is neither all on nor in a rollout."""
        return any(one.step is None and one.row.weight < SERVICE_WEIGHT for one in self.services)

    @cached_property
    def pinned(self) -> list[ServiceRow]:
        """Services of it that a gateway holds on the old side: to enable all of it would be refused."""
        return [one for one in self.services if one.row.weight < SERVICE_WEIGHT and one.pinned]

    @cached_property
    def downtime(self) -> Downtime:
        return Downtime.of(self.week, self.now)

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

    @cached_property
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

    @cached_property
    def traffic(self) -> Traffic:
        return sum((one.traffic for one in self.services), Traffic())

    @property
    def weight(self) -> int:
        """The mean weight that is asked for; what a share is until there is traffic to count."""
        return round(sum(one.row.weight for one in self.services) / len(self.services)) if self.services else 0

    @property
    def soak_words(self) -> str:
        return words_of(self.week.soak) if self.week.soak else "none"

    @property
    def scaled_soak_words(self) -> str:
        """How long the soak takes here; "" when the plan's time runs as it does everywhere."""
        return in_words(self.soak) if self.soak != self.week.soak else ""

    @cached_property
    def token(self) -> str:
        """Differs when something has changed that the page of the week does not refresh by itself."""
        gate = ".".join(f"{anchor_of(line)}-{state_of_line(line)[0]}" for line in self.verdict.lines)
        weights = "-".join(f"{one.row.weight}{'p' if one.pinned else ''}" for one in self.services)
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


@dataclass(frozen=True)
class Around:
    """What pages of a part of the plan show of the whole."""

    plan: Plan
    gates: Gates
    gateways: list[Gateway]
    lately: LastMinute

    @property
    def now(self) -> datetime:
        return self.gates.now

    def health(self, target: str) -> HealthCell:
        found = self.gates.health.get(target)
        if found is None:
            return HealthCell(Health.UNKNOWN, "no poll yet")
        return HealthCell(found.state, found.error, found.milliseconds)

    @property
    def monolith(self) -> HealthCell:
        return self.health(MONOLITH_TARGET)

    @cached_property
    def gateway(self) -> GatewayState:
        return state_of(self.plan, self.gateways, self.now)


@dataclass(frozen=True)
class Board(Around):
    weeks: tuple[WeekRow, ...]

    @cached_property
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


def load_board(gateways: list[Gateway] | None = None) -> Board | None:
    """The board as it is now, None while no plan is loaded. `gateways`: when they were read already, with the plan."""
    around = _around(gateways)
    if around is None:
        return None
    rows = _rows(around)
    current = _current(rows)
    weeks = tuple(replace(row, current=index == current) for index, row in enumerate(rows))
    return Board(around.plan, around.gates, around.gateways, around.lately, weeks)


def load_service(key: str, gateways: list[Gateway] | None = None) -> tuple[Around, WeekRow, ServiceRow] | None:
    """One service in its week, None without it. As `load_board`; the rest of the plan is not read."""
    around = _around(gateways, service=key)
    if around is None:
        return None
    found = ((row, one) for row in _rows(around) for one in row.services if one.row.service == key)
    return next(((around, *pair) for pair in found), None)


def _around(gateways: list[Gateway] | None, service: str | None = None) -> Around | None:
    if gateways is None:
        gateways = list(Gateway.objects.select_related("plan").defer("plan__document"))
    plan = gateways[0].plan if gateways else Plan.objects.defer("document").first()
    if plan is None:
        return None
    gates = load_gates(Phase.START, Phase.DONE, plan=plan, service=service)
    lately = last_minute(gates.now) if service is None else last_minute_of(service, gates.now)
    return Around(plan, gates, gateways, lately)


def _rows(around: Around) -> list[WeekRow]:
    """The weeks whose gates were asked for."""
    plan, gates = around.plan, around.gates
    weeks = [(gates.weeks[number], gates.flags.get(number, ())) for number in gates.asked]
    asked = generations_of([row for _, flags in weeks for row in flags])
    confirmed = verified_at(asked) if asked else {}

    def service(week: Week, row: FlagRow) -> ServiceRow:
        step = StepNow.of(row, confirmed, plan, gates.now) if row.rollout else None
        return ServiceRow(row, week, around, step)

    return [
        WeekRow(week, tuple(service(week, row) for row in flags), gates, plan.scaled(week.soak))
        for week, flags in weeks
    ]


def _current(weeks: Sequence[WeekRow]) -> int:
    """The index of the first week that is neither done nor soaked."""
    return next((index for index, row in enumerate(weeks) if not row.done and not row.soaked), len(weeks) - 1)
