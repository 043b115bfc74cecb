"""The gate, purely: what was seen of a week goes in, a verdict with every reason comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import ValidationError

from migrations_app.choices import CheckState, Decision, Health, WeekStatus
from migrations_app.durations import in_words
from migrations_app.gates.seen import (
    Finding,
    InstantCheck,
    SeenFreeze,
    SeenPrerequisite,
    SeenService,
    SeenWeek,
    Snapshot,
)
from migrations_app.roles import Permission, who_may

EXPIRES_SOON = timedelta(minutes=30)  # before a sign-off or an approval ends, at most; a quarter of its time if shorter


class LineKind(StrEnum):
    """What a line of the gate rests on."""

    MANUAL = "manual"  # a person's sign-off
    AUTOMATIC = "automatic"  # a check of the plan file
    HEALTH = "health"  # always: what receives traffic must be healthy
    ORDER = "order"  # a week that comes before
    APPROVAL = "approval"  # enough people other than the one who asked
    FREEZE = "freeze"  # nothing is enabled now
    SOAK = "soak"  # all is on and has been stable for long enough; only before a week is done


# How a gate is told, on pages and in a shell: a title, and the lines under it.
GROUPS: dict[str, tuple[LineKind, ...]] = {
    "Order and freezes": (LineKind.SOAK, LineKind.ORDER, LineKind.FREEZE),
    "Checked automatically": (LineKind.AUTOMATIC, LineKind.HEALTH),
    "Signed off by people": (LineKind.MANUAL,),
    "Approved by others": (LineKind.APPROVAL,),
}


class Line(NamedTuple):
    """One condition of a gate. `value` against `limit` says why it is held or not.

    When it is not held: `act` says what to do, `who` who can, `command` how in a shell, `since` since when it is so.
    `until` is when a held line ends by itself, or when a blocking one does. `warning` is a sentence about a held line
    that will soon not be. `overridden`: not held, but somebody has broken the glass for it.
    """

    key: str
    title: str
    kind: LineKind
    held: bool
    value: str
    limit: str
    act: str = ""
    who: str = ""
    command: str = ""
    prerequisite: int | None = None  # its id, for lines that are prerequisites
    since: datetime | None = None
    checked_at: datetime | None = None
    until: datetime | None = None
    warning: str = ""
    overridden: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in self._asdict().items()
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate of one week, or of some flags of it, at one moment. `override` tells of the glass that is broken."""

    week: int
    lines: tuple[Line, ...]
    override: str = ""

    @property
    def open(self) -> bool:
        return not self.blocking

    @property
    def blocking(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if not line.held and not line.overridden)

    @property
    def overridden(self) -> tuple[Line, ...]:
        """The lines that do not hold and block nothing, because somebody has overridden them."""
        return tuple(line for line in self.lines if line.overridden)

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
        return {
            "week": self.week,
            "open": self.open,
            "progress": self.progress,
            "override": self.override,
            "lines": [line.as_json() for line in self.lines],
        }


def judge(snapshot: Snapshot, instant: Mapping[str, InstantCheck]) -> Verdict:
    """The verdict on starting the week, or some flags of it.

    `instant` are the checks that need nothing but the snapshot; what another check last found is in the snapshot.
    """
    lines = [
        *(_prerequisite(seen, snapshot, instant) for seen in snapshot.prerequisites),
        *(_order(week, snapshot.now) for week in snapshot.after),
        *_approvals(snapshot),
        *(_freeze(freeze) for freeze in snapshot.freezes),
        *(_health(service) for service in snapshot.services),
    ]
    return _with_override(Verdict(snapshot.week, tuple(lines)), snapshot)


def judge_done(snapshot: Snapshot, instant: Mapping[str, InstantCheck]) -> Verdict:
    """The verdict on calling the week done. `snapshot.prerequisites` are its done-criteria. Nothing overrides it."""
    lines = [_soak(snapshot), *(_prerequisite(seen, snapshot, instant) for seen in snapshot.prerequisites)]
    return Verdict(snapshot.week, (*lines, *(_health(service) for service in snapshot.services)))


def _with_override(verdict: Verdict, snapshot: Snapshot) -> Verdict:
    override = snapshot.override
    if override is None or override.expires_at <= snapshot.now or override.vouches_for != snapshot.target:
        return verdict
    lines = tuple(
        line._replace(overridden=True) if not line.held and line.key in override.lines else line
        for line in verdict.lines
    )
    left = in_words(override.expires_at - snapshot.now)
    return Verdict(verdict.week, lines, f"Overridden by {override.actor} for another {left}: {override.reason}")


def _prerequisite(seen: SeenPrerequisite, snapshot: Snapshot, instant: Mapping[str, InstantCheck]) -> Line:
    if not seen.check:
        return _manual(seen, snapshot)
    if check := instant.get(seen.check):
        found, checked_at = _instant(check, seen, snapshot)
    else:
        found, checked_at = _last_result(seen, snapshot)
    held = found.state == CheckState.HELD
    return Line(
        seen.key,
        seen.title,
        LineKind.AUTOMATIC,
        held,
        found.value if held or found.state == CheckState.NOT_HELD else f"cannot tell: {found.value}",
        found.limit,
        "" if held else found.act,
        "" if held else who_may(Permission.CHECK),
        f"manage.py prerequisite check {seen.id}",
        seen.id,
        since=found.since,
        checked_at=checked_at,
    )


def _instant(check: InstantCheck, seen: SeenPrerequisite, snapshot: Snapshot) -> tuple[Finding, datetime | None]:
    try:
        return check(seen.parameters, snapshot), snapshot.now
    except ValidationError as error:
        # A row that an older version wrote, or that was written by hand.
        told = f"its parameters make no sense: {error.errors()[0]['msg']}"
        return Finding(CheckState.UNKNOWN, told, "parameters of this check", "Load the plan anew."), snapshot.now


def _last_result(seen: SeenPrerequisite, snapshot: Snapshot) -> tuple[Finding, datetime | None]:
    result = seen.result
    if result is None:
        return Finding(CheckState.UNKNOWN, "not checked yet", "a first check", "Check it now."), None
    if snapshot.now - result.checked_at > snapshot.stale_after:
        age = in_words(snapshot.now - result.checked_at)
        act = "Check it now. Does a worker run?"
        return Finding(CheckState.UNKNOWN, f"the last check was {age} ago", result.limit, act), result.checked_at
    return Finding(result.state, result.value, result.limit, result.act, result.since), result.checked_at


def _manual(seen: SeenPrerequisite, snapshot: Snapshot) -> Line:
    held, value, until, warning = False, "not signed off", None, ""
    since: datetime | None = None
    if seen.sign_off is not None:
        signed = seen.sign_off
        held, value, since = True, f"signed off by {signed.actor}", signed.at
        until = signed.expires_at
        if signed.vouches_for not in (None, snapshot.target):
            held, value = False, f"void: the week's flags, routes or upstreams have changed since {signed.actor} signed"
        elif until is not None and until <= snapshot.now:
            held, since = False, until
            value = f"expired {in_words(snapshot.now - until)} ago, signed off by {signed.actor}"
        elif until is not None and until - snapshot.now <= min(EXPIRES_SOON, (until - signed.at) / 4):
            warning = f"Expires in {in_words(until - snapshot.now)}: sign it off anew in time."
    return Line(
        seen.key,
        seen.title,
        LineKind.MANUAL,
        held,
        value,
        "a person's sign-off",
        "" if held else "Sign it off with a note of what you saw.",
        "" if held else who_may(Permission.TICK),
        f"manage.py prerequisite tick {seen.id}",
        seen.id,
        since=since,
        until=until if held else None,
        warning=warning,
    )


def _order(week: SeenWeek, now: datetime) -> Line:
    held = week.soaked(now)
    act = "" if held else f"Bring week {week.number} to the end of its soak."
    value, until = _standing(week, now)
    return Line(
        f"after-{week.number}",
        f"Week {week.number} has soaked",
        LineKind.ORDER,
        held,
        value,
        f"all on and stable for {in_words(week.soak)}" if week.soak else "all on",
        act,
        "" if held else who_may(Permission.ENABLE),
        f"manage.py week show {week.number}",
        since=week.soak_started_at,
        until=None if held else until,
    )


def _standing(week: SeenWeek, now: datetime) -> tuple[str, datetime | None]:
    """How far a week is on its way, and when its soak is over."""
    if week.status == WeekStatus.DONE:
        return "done", None
    if week.status != WeekStatus.SOAKING:
        return WeekStatus(week.status).label.lower(), None
    if week.soak_started_at is None:
        return f"soaking, the clock stands: {week.soak_stopped_because or 'something is wrong'}", None
    until = week.soak_started_at + week.soak
    if until <= now:
        return "soaked", None
    return f"soaking, {in_words(now - week.soak_started_at)} of {in_words(week.soak)}", until


def _soak(snapshot: Snapshot) -> Line:
    week = snapshot.own or SeenWeek(snapshot.week, "")
    value, until = _standing(week, snapshot.now)
    held = week.soaked(snapshot.now)
    return Line(
        "soak",
        "It has soaked",
        LineKind.SOAK,
        held,
        value,
        f"all on and stable for {in_words(week.soak)}" if week.soak else "all on",
        "" if held else "Wait for it; a rollback or an unhealthy service starts the clock anew.",
        since=week.soak_started_at,
        until=None if held else until,
    )


def _approvals(snapshot: Snapshot) -> Iterator[Line]:
    needed, role = snapshot.approvals_needed, snapshot.approver_role
    if not needed:
        return
    limit = f"{needed} by {role}s, not by who asks"
    request, now = snapshot.request, snapshot.now
    command = f"manage.py approval request {snapshot.week}"
    line = Line("approval", "Approved", LineKind.APPROVAL, False, "not asked for", limit, command=command)
    if request is None:
        yield line._replace(act="Ask for approval.", who=who_may(Permission.ENABLE))
        return
    line = line._replace(since=request.asked_at)
    void = ""
    if request.revision != snapshot.revision:
        void = f"void: asked for plan revision {request.revision}, the plan is at {snapshot.revision}"
    elif request.vouches_for != snapshot.target:
        void = "void: the week's flags, routes or upstreams have changed since it was asked for"
    elif not request.used and request.expires_at <= now:
        void = f"expired {in_words(now - request.expires_at)} ago"
    if void:
        yield line._replace(value=void, act="Ask for approval anew.", who=who_may(Permission.ENABLE))
        return
    given = [one for one in request.approvals if one.decision == Decision.GIVEN and one.counts]
    names = sorted({one.actor for one in given if one.actor != request.asked_by})
    held = len(names) >= needed
    value = f"{len(names)} of {needed}" + (f": {', '.join(names)}" if names else f", asked for by {request.asked_by}")
    soon = min(EXPIRES_SOON, (request.expires_at - request.asked_at) / 4)
    warning = ""
    if held and not request.used and request.expires_at - now <= soon:
        warning = f"Expires in {in_words(request.expires_at - now)}."
    yield line._replace(
        held=held,
        value=value,
        act="" if held else "Approve it, or decline it with a reason.",
        who="" if held else who_may(Permission.APPROVE),
        command=f"manage.py approval give {request.id}",
        until=None if request.used else request.expires_at,
        warning=warning,
    )


def _freeze(freeze: SeenFreeze) -> Line:
    return Line(
        f"freeze-{freeze.id}",
        f"No freeze: {freeze.title}",
        LineKind.FREEZE,
        False,
        "frozen",
        "no freeze",
        "Wait for its end, or have it lifted. Rolling back works.",
        who_may(Permission.FREEZE),
        f"manage.py freeze lift {freeze.id}",
        since=freeze.since,
        until=freeze.until,
    )


def _health(service: SeenService) -> Line:
    held = service.state == Health.HEALTHY
    value = service.state if held or not service.error else f"{service.state}: {service.error}"
    act = "" if held else f"Look at the log of {service.title}, mend it, and wait for the next poll."
    key, title = f"health-{service.key}", f"{service.title} healthy"
    who = "" if held else "whoever runs it"
    return Line(key, title, LineKind.HEALTH, held, str(value), "healthy", act, who, since=service.since)
