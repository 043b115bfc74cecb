"""What the support team needs to know of one product area, in words that a caller understands. No Django in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from migrations_app.choices import Health, WeekStatus
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT

FEWEST = 10  # requests in the last minute; of fewer, failures are told by the health of the sides alone
WHOLE = 10_000  # hundredths of a per cent
TROUBLE_SHARE = 0.02  # of the requests that failed: a caller in fifty has noticed


class Standing(StrEnum):
    """How well an area works for the people who use it, worst last."""

    WORKING = "working"
    UNKNOWN = "unknown"
    TROUBLE = "trouble"
    DOWN = "down"


# A word, and its icon in static/icons.svg.
STANDING_WORDS = {
    Standing.WORKING: ("Working", "check"),
    Standing.UNKNOWN: ("Not known", "unknown"),
    Standing.TROUBLE: ("In trouble", "warn"),
    Standing.DOWN: ("Not working", "cross"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one service. `runs` is the weight, 0-100 %, that the gateway itself tells, None if it does not.

    `requests` and `errors` are of the last minute, both sides together.
    """

    area: str
    owner: str
    runs: int | None
    asked: int
    new: Health
    old: Health
    new_side_only: bool
    requests: int
    errors: int
    changed_at: datetime | None
    week: WeekStatus
    planned_start: date
    planned_end: date
    today: date
    pinned: bool = False  # it is held on the old side until somebody decides otherwise
    down_for: str = ""  # in words, since it began to move
    failing_over: bool = False  # the gateway lets the old system answer in the place of the new one
    maintenance: tuple[tuple[datetime, datetime], ...] = ()  # of the sides that serve it: from and until, next first


@dataclass(frozen=True, slots=True)
class Area:
    """One product area as the status page tells it. `changed` goes before `changed_at`."""

    area: str
    standing: Standing
    serves: str
    well: str
    say: str
    changed: str
    changed_at: datetime | None
    coming: str
    maintenance: str

    @property
    def word(self) -> str:
        return STANDING_WORDS[self.standing][0]

    @property
    def icon(self) -> str:
        return STANDING_WORDS[self.standing][1]


def area_of(facts: Facts) -> Area:
    standing, well = _how_well(facts)
    if facts.down_for:
        well += f" Since it began to move it did not work for {facts.down_for} in all."
    return Area(
        area=facts.area,
        standing=standing,
        serves=_who_serves(facts),
        well=well,
        say=_what_to_say(facts, standing),
        changed=_last_change(facts),
        changed_at=facts.changed_at,
        coming=_what_comes(facts),
        maintenance=_maintenance(facts),
    )


def _who_serves(facts: Facts) -> str:
    if facts.runs is None:
        return "It cannot be told just now which system serves it"
    if facts.failing_over:
        return "The old system, in the place of the new one"
    if facts.runs == SERVICE_WEIGHT:
        return "The new system"
    if facts.runs > MONOLITH_WEIGHT:
        return f"The new system for {facts.runs} % of requests, the old system for the others"
    return "Nobody yet: the old system never had it" if facts.new_side_only else "The old system"


def _sides(facts: Facts) -> dict[str, Health]:
    """The sides that serve it now, as they are called, with their health."""
    weight = facts.asked if facts.runs is None else facts.runs
    found = {}
    if weight > MONOLITH_WEIGHT:
        found["new"] = facts.new
    if weight < SERVICE_WEIGHT and not facts.new_side_only:
        found["old"] = facts.old
    return found


def _how_well(facts: Facts) -> tuple[Standing, str]:
    sides = _sides(facts)
    if facts.failing_over and facts.old == Health.HEALTHY:
        # What callers met is in the requests: of those that the old system answered none counts as failed.
        return _of_requests(facts) or (
            Standing.WORKING,
            "The new system does not answer; the old one does in its place.",
        )
    ill = [side for side, health in sides.items() if health == Health.UNHEALTHY]
    if ill and len(ill) == len(sides):
        told = f"The {ill[0]} system fails its checks." if len(ill) == 1 else "Both systems fail their checks."
        return Standing.DOWN, told
    if ill:
        return Standing.TROUBLE, f"The {ill[0]} system fails its checks; whom it serves has trouble."
    if trouble := _of_requests(facts):
        return trouble
    if facts.runs is None or Health.UNKNOWN in sides.values():
        return Standing.UNKNOWN, "Nobody has checked it in the last seconds; it may work all the same."
    return Standing.WORKING, _well(facts, in_use=bool(sides))


def _of_requests(facts: Facts) -> tuple[Standing, str] | None:
    """What callers have noticed, None when nothing."""
    if facts.requests < FEWEST or facts.errors < TROUBLE_SHARE * facts.requests:
        return None
    return Standing.TROUBLE, f"{facts.errors:,} of {facts.requests:,} requests failed in the last minute."


def _well(facts: Facts, *, in_use: bool) -> str:
    if not in_use:
        return "It is not in use yet."
    return "All checks pass." if facts.requests else "All checks pass. Nobody used it in the last minute."


def _what_to_say(facts: Facts, standing: Standing) -> str:
    owner = facts.owner or "the owner"
    if standing == Standing.DOWN:
        return f"It does not work at the moment, and {owner} can see that. Please try again later."
    if standing == Standing.TROUBLE:
        return f"Some attempts fail at the moment, and {owner} can see that. Please try again."
    return f"Note the time and what was tried, and pass it on to {owner}."


def _last_change(facts: Facts) -> str:
    if facts.changed_at is None:
        return "Never moved"
    if facts.runs is not None and facts.runs != facts.asked:
        return "A move is under way since"
    if facts.asked == SERVICE_WEIGHT:
        return "Moved to the new system"
    if facts.asked > MONOLITH_WEIGHT:
        return f"Moved to the new system for {facts.asked} %"
    return "Moved back to the old system"


def _what_comes(facts: Facts) -> str:
    if facts.asked == SERVICE_WEIGHT:
        return "Nothing: it has moved" if facts.week == WeekStatus.DONE else "Nothing moves; it is being watched"
    if facts.pinned:
        return "It stays on the old system until further notice"
    when = _days(facts.planned_start, facts.planned_end)
    if facts.week == WeekStatus.ROLLED_BACK:
        return "It will be tried again; no new date is known"
    it = "The rest" if facts.asked > MONOLITH_WEIGHT else "It"
    if facts.planned_end < facts.today:
        return f"{it} was to move {when}, and has not yet"
    return f"{it} is planned to move {when}"


def _maintenance(facts: Facts) -> str:
    """Times are of the plan's zone, as those of the facts are. "" when none is announced."""
    if not facts.maintenance:
        return ""
    begin, end = facts.maintenance[0]
    until = f"{end:%H:%M}" if end.date() == begin.date() else f"{end.day} {end:%B} {end:%H:%M}"
    return f"{begin.day} {begin:%B} {begin:%H:%M} to {until}: it may not work then"


def _days(first: date, last: date) -> str:
    return f"on {first.day} {first:%B}" if first == last else f"between {first.day} {first:%B} and {last.day} {last:%B}"


def days_in_words(uptimes: Sequence[int | None], named: Sequence[str]) -> str:
    """What the bar of an area's days shows. Uptimes are hundredths of a per cent; `named` are the days."""
    known = [(uptime, day) for uptime, day in zip(uptimes, named, strict=True) if uptime is not None]
    if not known:
        return f"Of the last {len(uptimes)} days nothing is told: it was not in use, or not checked."
    checked = f"Checked on {len(known)} of the last {len(uptimes)} days"
    whole = sum(uptime == WHOLE for uptime, _ in known)
    if whole == len(known):
        return f"{checked}: everything worked."
    worst, day = min(reversed(known), key=lambda one: one[0])
    worked = f"everything worked on {whole}" if whole else "something failed on each"
    return f"{checked}: {worked}. The worst was {day}, with {worst // 100}.{worst % 100:02} %."
