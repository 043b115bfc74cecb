"""What a verdict rests on, as it was seen at one moment. Frozen values; no Django in here but the words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from migrations_app.choices import CheckState, Decision, WeekStatus


@dataclass(frozen=True, slots=True)
class SeenSignOff:
    """`vouches_for` is the target that it was given for; None when that does not matter (an old row)."""

    actor: str
    at: datetime
    note: str = ""
    expires_at: datetime | None = None
    vouches_for: str | None = None


@dataclass(frozen=True, slots=True)
class SeenResult:
    """What a check last found."""

    state: CheckState
    value: str
    limit: str
    act: str
    since: datetime
    checked_at: datetime


@dataclass(frozen=True, slots=True)
class SeenPrerequisite:
    """`result` is None for a check that has not run with these parameters, and for instant checks."""

    id: int
    key: str
    title: str
    help: str
    sign_off: SeenSignOff | None
    check: str  # name of the automatic check, or "" for a manual line
    parameters: Mapping[str, Any]
    result: SeenResult | None = None


class SeenService(NamedTuple):
    """A service that is to receive traffic. `state` is healthy, unhealthy or unknown.

    A tuple: they are made of all that a plan has for every verdict.
    """

    key: str
    title: str
    state: str
    error: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class SeenWeek:
    """The state of a week. `soak` is how long it really takes; `soak_started_at` is None while its clock stands."""

    number: int
    title: str
    status: WeekStatus = WeekStatus.PLANNED
    soak: timedelta = timedelta(0)
    soak_started_at: datetime | None = None
    soak_stopped_because: str = ""

    def soaks_until(self) -> datetime | None:
        """When the soak is over, None while its clock stands still."""
        return self.soak_started_at + self.soak if self.soak_started_at else None

    def soaked(self, now: datetime) -> bool:
        """Whether it has been all on and stable for long enough."""
        until = self.soaks_until()
        return self.status == WeekStatus.DONE or (until is not None and until <= now)


@dataclass(frozen=True, slots=True)
class SeenApproval:
    """`counts` is False once the person has lost the role."""

    actor: str
    decision: Decision
    at: datetime
    counts: bool = True


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request for approval that is neither closed nor spent. Once it is `used` it does not expire."""

    id: int
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    revision: int
    vouches_for: str
    approvals: tuple[SeenApproval, ...] = ()
    used: bool = False  # part of the way was taken


@dataclass(frozen=True, slots=True)
class SeenFreeze:
    """A freeze that is on now."""

    id: int
    title: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class SeenOverride:
    lines: frozenset[str]
    actor: str
    reason: str
    expires_at: datetime
    vouches_for: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a verdict rests on.

    `weights`: week number -> flag key -> weight, for the whole plan. `health`: every target of the plan, by key.
    `after`: the weeks that come before this one. `request`: the one for exactly the change that is asked about.
    """

    week: int
    now: datetime
    prerequisites: tuple[SeenPrerequisite, ...]
    services: tuple[SeenService, ...]
    weights: Mapping[int, Mapping[str, int]]
    health: Mapping[str, SeenService] = field(default_factory=dict)
    target: str = ""
    revision: int = 0
    time_scale: int = 1
    stale_after: timedelta = timedelta(seconds=60)  # a check that has not run for longer tells nothing
    own: SeenWeek | None = None
    after: tuple[SeenWeek, ...] = ()
    approvals_needed: int = 0
    approver_role: str = ""
    request: SeenRequest | None = None
    freezes: tuple[SeenFreeze, ...] = ()
    override: SeenOverride | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What an automatic check found. `value` beside `limit`; `act` says what to do when it does not hold."""

    state: CheckState
    value: str
    limit: str
    act: str = ""
    since: datetime | None = None


InstantCheck = Callable[[Mapping[str, Any], Snapshot], Finding]
