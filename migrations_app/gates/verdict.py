"""The gate, purely: what was seen of a week goes in, a verdict with every reason comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class LineKind(StrEnum):
    """What a line of the gate rests on."""

    MANUAL = "manual"  # a person's sign-off
    AUTOMATIC = "automatic"  # a check of the plan file
    HEALTH = "health"  # always: what receives traffic must be healthy


@dataclass(frozen=True, slots=True)
class Line:
    """One condition of a gate. `value` against `limit` says why it is held or not; `act` says what to do when not."""

    key: str
    title: str
    kind: LineKind
    held: bool
    value: str
    limit: str
    act: str
    prerequisite: int | None = None  # its id, for lines that are prerequisites


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate of one week, or of one flag of it, at one moment."""

    week: int
    lines: tuple[Line, ...]

    @property
    def open(self) -> bool:
        return all(line.held for line in self.lines)

    @property
    def blocking(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if not line.held)

    @property
    def prerequisites(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.prerequisite is not None)

    @property
    def progress(self) -> str:
        """Held prerequisites of all, as "4/6"."""
        return f"{sum(line.held for line in self.prerequisites)}/{len(self.prerequisites)}"

    def sentence(self) -> str:
        if self.open:
            return f"The gate of week {self.week} is open."
        reasons = "; ".join(f"{line.title}: {line.value}" for line in self.blocking)
        return f"The gate of week {self.week} is closed. {reasons}."

    def as_json(self) -> dict[str, Any]:
        lines = [asdict(line) for line in self.lines]
        return {"week": self.week, "open": self.open, "progress": self.progress, "lines": lines}


@dataclass(frozen=True, slots=True)
class SeenSignOff:
    actor: str
    at: datetime
    note: str


@dataclass(frozen=True, slots=True)
class SeenPrerequisite:
    id: int
    key: str
    title: str
    help: str
    sign_off: SeenSignOff | None
    check: str  # name of the automatic check, or "" for a manual line
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SeenService:
    """A service that is to receive traffic. `state` is healthy, unhealthy or unknown."""

    key: str
    title: str
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a verdict rests on. `weights`: week number -> flag key -> weight, for the whole plan."""

    week: int
    prerequisites: tuple[SeenPrerequisite, ...]
    services: tuple[SeenService, ...]
    weights: Mapping[int, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What an automatic check found."""

    held: bool
    value: str
    limit: str
    act: str


Check = Callable[[Mapping[str, Any], Snapshot], Finding]


def judge(snapshot: Snapshot, checks: Mapping[str, Check]) -> Verdict:
    """The verdict. A check that this version does not know counts as not held."""
    lines = [_prerequisite(seen, snapshot, checks) for seen in snapshot.prerequisites]
    lines += [_health(service) for service in snapshot.services]
    return Verdict(snapshot.week, tuple(lines))


def _prerequisite(seen: SeenPrerequisite, snapshot: Snapshot, checks: Mapping[str, Check]) -> Line:
    if not seen.check:
        held = seen.sign_off is not None
        value = f"signed off by {seen.sign_off.actor}" if seen.sign_off else "not signed off"
        act = f"Tick it on the week's page, or: manage.py prerequisite tick {seen.id}"
        return Line(seen.key, seen.title, LineKind.MANUAL, held, value, "a person's sign-off", act, seen.id)
    if check := checks.get(seen.check):
        found = check(seen.parameters, snapshot)
    else:
        found = Finding(False, "cannot tell", f"check {seen.check!r}", "Update Switchyard: it lacks this check.")
    return Line(seen.key, seen.title, LineKind.AUTOMATIC, found.held, found.value, found.limit, found.act, seen.id)


def _health(service: SeenService) -> Line:
    held = service.state == "healthy"
    value = service.state if held or not service.error else f"{service.state}: {service.error}"
    act = f"Look at the log of {service.title}, mend it, and wait for the next poll."
    return Line(f"health-{service.key}", f"{service.title} healthy", LineKind.HEALTH, held, value, "healthy", act)
