"""The rows of the overview: what is known of one target, put in words. No requests in here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple

from django.urls import reverse
from django.utils.safestring import SafeString

from migrations_app.choices import Health
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.observe.history import Summary, summaries
from migrations_app.observe.moves import Change, Move, changes_since, moves_since
from migrations_app.observe.uptime import HOURS, in_per_cent
from migrations_app.templatetags.switchyard import icon

from .past import MOVES
from .sparkline import Mark, sparkline

MOST_MOVES = 500  # events, of all rows together
MOST_CHANGES = 12  # of one row, the newest; more of them could not be told apart
TOLD = 2  # of them beside the drawing, which tells all
SHAPES = {Health.HEALTHY: "check", Health.UNHEALTHY: "cross", Health.UNKNOWN: "unknown"}
MOVE_WORDS = {kind.value: words for kind, words in MOVES.items()}
HEALTH_MARKS = {Health.HEALTHY: "well", Health.UNHEALTHY: "ill", Health.UNKNOWN: "unknown"}


class Target(NamedTuple):
    """One line of the plan: a service with its flag and week, or the monolith, which has neither.

    Weights are per cent; `runs` is what all gateways that were seen lately run by their own word, None when they
    differ or none was. `requests` and `failed` are of the last minute, both sides together.
    """

    key: str
    title: str
    state: Health
    week: tuple[int, str] | None = None
    words: str = ""  # what is searched, besides the title
    flag: str = ""
    new_side_only: bool = False
    asked: int = MONOLITH_WEIGHT
    runs: int | None = None
    requests: int = 0
    failed: int = 0
    serves: str = ""  # of the monolith, in words
    seen_by: str = ""  # where not every gateway was seen lately: "by 2 of 3 gateways"
    failing_over: bool = False  # the gateway lets the monolith answer in its place
    planned_until: datetime | None = None  # the end of the planned maintenance that it is in

    @property
    def carries(self) -> bool:
        """Requests go to it, or, when nobody knows, should."""
        return self.week is None or (self.asked if self.runs is None else self.runs) > MONOLITH_WEIGHT


@dataclass(frozen=True, slots=True)
class Told:
    """One change as a row tells it. `shape` is that of its mark."""

    shape: str
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A target as it is shown. Everything is in words already, but moments. `link` leads to its page, if it has one."""

    target: Target
    link: str
    summed_at: datetime | None
    icon: SafeString
    state: str
    since: datetime | None
    why: str
    uptime_24h: str
    uptime_90d: str
    line: SafeString
    line_words: str
    told: tuple[Told, ...]
    more: int
    serves: str
    asked: str
    failed: str
    failed_of: str
    last_error: str
    last_error_at: datetime | None


def rows_of(targets: Sequence[Target], zone: tzinfo, now: datetime) -> list[Row]:
    """Three queries for all of them."""
    since = now - timedelta(hours=HOURS)
    moves = moves_since(since, {target.flag for target in targets}, MOST_MOVES)
    keys = [target.key for target in targets]
    changes = changes_since(keys, since, MOST_CHANGES)
    known = summaries(now, keys, days=False)
    frame = _Frame(zone, since, {state: icon(shape) for state, shape in SHAPES.items()})
    return [
        _row(target, known.get(target.key), (moves.get(target.flag, ()), changes.get(target.key, ())), frame)
        for target in targets
    ]


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the rows of a page have in common. `shapes` are the icons of the states."""

    zone: tzinfo
    since: datetime
    shapes: Mapping[Health, SafeString]


def _row(
    target: Target, summary: Summary | None, lately: tuple[Sequence[Move], Sequence[Change]], frame: _Frame
) -> Row:
    moves, changes = lately
    told = sorted(_told(moves, [one for one in changes if one.at >= frame.since]), key=lambda one: one.at, reverse=True)
    line, words = _line(target, summary, told[:MOST_CHANGES], frame.zone)
    error, error_at = _last_error(target, summary, changes)
    return Row(
        target=target,
        link=_page_of(target.key) if target.week else "",
        summed_at=summary.refreshed_at if summary else None,
        icon=frame.shapes[target.state],
        state=target.state.label,
        since=summary.since if summary and target.state != Health.UNKNOWN else None,
        why=_why_unknown(target, summary),
        uptime_24h=in_per_cent(summary.uptime_24h if summary else None),
        uptime_90d=in_per_cent(summary.uptime_90d if summary else None),
        line=line,
        line_words=words,
        told=tuple(told[:TOLD]),
        more=max(0, len(told) - TOLD),
        serves=target.serves or _serves(target),
        asked=f"asked {target.asked} %" if target.week and target.asked != target.runs else "",
        failed=_failed(target),
        failed_of=f"of {target.requests:,}" if target.requests else "",
        last_error=error,
        last_error_at=error_at,
    )


@lru_cache(maxsize=2000)  # to look for it among all addresses takes as long as the rest of a row
def _page_of(service: str) -> str:
    return reverse("service", args=[service])


def _why_unknown(target: Target, summary: Summary | None) -> str:
    if target.state != Health.UNKNOWN:
        return ""
    if summary is None or summary.polled_at is None:
        return "no poll yet"
    return summary.error or "not polled lately"


def _told(moves: Collection[Move], changes: Collection[Change]) -> Iterator[Told]:
    for move in moves:
        shape = "up" if move.after > move.before else "back"
        yield Told(shape, move.at, f"{MOVE_WORDS[move.kind]}, {move.before} % to {move.after} %, by {move.actor}")
    for change in changes:
        why = f": {change.reason}" if change.reason and change.state != Health.HEALTHY else ""
        was = f", was {change.was.label.lower()}"
        yield Told(HEALTH_MARKS[change.state], change.at, f"{change.state.label}{why or was}")


def _line(target: Target, summary: Summary | None, told: Sequence[Told], zone: tzinfo) -> tuple[SafeString, str]:
    """The drawing, "" while there is nothing to draw, and what stands under it."""
    if summary is None or summary.refreshed_at is None:
        polled = summary is not None and summary.polled_at is not None
        return SafeString(""), "Not summed up yet: the first minute is not over." if polled else "Not polled yet."
    values = [value for value in summary.sparkline if value is not None]
    words = f"{_ms(values[-1])} last, {_ms(max(values))} at most" if values else "No answer in 48 hours."
    texts = [f"{_when(one.at, zone)} {one.text}" for one in told]
    label = f"{target.title}, mean response time by the hour, 48 hours: {words}"
    if told:
        label += f"; {len(told)} change{'s' if len(told) > 1 else ''}, newest first: {'; '.join(texts)}"
    hour = summary.refreshed_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    begun = hour - timedelta(hours=HOURS - 1)
    marks = [Mark(one.at, one.shape, one.text) for one in told]
    return sparkline(summary.sparkline, begun, marks, label, texts), words


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def _when(at: datetime, zone: tzinfo) -> str:
    local = at.astimezone(zone)
    return f"{local.day} {local:%b %H:%M}"


def _serves(target: Target) -> str:
    if target.runs is None:
        return "Not known"
    side = _side(target)
    return f"{side}, {target.seen_by}" if target.seen_by else side


def _side(target: Target) -> str:
    if target.failing_over:
        return f"Old side, in its place ({target.runs} %)"
    if target.runs == MONOLITH_WEIGHT:
        return "Nobody yet" if target.new_side_only else "Old side"
    return f"New side, {target.runs} %"


def _failed(target: Target) -> str:
    """The share of the requests of the last minute that failed; never rounded to nothing."""
    if not target.requests:
        return "–"  # noqa: RUF001
    share = 100 * target.failed / target.requests
    if 0 < share < 0.1:
        return "< 0.1 %"
    return f"{share:.1f} %" if share % 1 else f"{share:.0f} %"


def _last_error(target: Target, summary: Summary | None, changes: Sequence[Change]) -> tuple[str, datetime | None]:
    """That of the last poll, or what last made it unhealthy.

    The state and the poll are read one after the other: what came in between is told when the page asks again.
    """
    if summary and summary.state == target.state != Health.UNKNOWN and summary.error:
        return summary.error, summary.polled_at
    ill = [change for change in changes if change.state == Health.UNHEALTHY]
    return (ill[0].reason or "no reason was told", ill[0].at) if ill else ("", None)
