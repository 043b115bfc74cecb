"""The lines of a gate as pages show them: grouped, each with a word and a shape for its state and the way to act."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.urls import reverse

from migrations_app.choices import Phase
from migrations_app.durations import in_words
from migrations_app.gates.target import digest_of
from migrations_app.gates.verdict import GROUPS, Line, LineKind, Verdict
from migrations_app.models import Evidence, Prerequisite, SignOff, Week

# Title of a group -> the kinds of its lines. What has to come first stands first.
REHEARSED = "rollback_rehearsed"  # the check that a rehearsal of the rollback answers


@dataclass(frozen=True, slots=True)
class LineView:
    """One line. `word` and `icon` say its state, `text` what was measured; `id` is unique on a page and stable."""

    line: Line
    id: str
    word: str
    icon: str
    text: str
    now: datetime
    row: Prerequisite | None = None
    sign_off: SignOff | None = None

    @property
    def manual(self) -> bool:
        return self.line.kind == LineKind.MANUAL

    @property
    def checked(self) -> bool:
        """An automatic check of the plan, which "Check now" runs."""
        return self.line.kind == LineKind.AUTOMATIC

    @property
    def rehearses(self) -> bool:
        return self.row is not None and self.row.check_name == REHEARSED

    @property
    def limit(self) -> str:
        """What the text is measured against; "" where the word says it all."""
        return "" if self.line.kind in {LineKind.MANUAL, LineKind.HEALTH, LineKind.FREEZE} else self.line.limit

    @property
    def timed(self) -> bool:
        """Whether it is told since when it is so."""
        return self.line.kind in {LineKind.MANUAL, LineKind.APPROVAL, LineKind.FREEZE} or not self.line.held

    @property
    def left(self) -> str:
        """How long until it changes by itself, in words; "" when it does not."""
        if self.line.until is None or self.line.until <= self.now:
            return ""
        verb = "expires" if self.line.kind in {LineKind.MANUAL, LineKind.APPROVAL} else "over"
        return f"{verb} in {in_words(self.line.until - self.now)}"

    @property
    def times(self) -> bool:
        line = self.line
        return bool((line.since and self.timed) or line.checked_at or self.left)

    @property
    def file(self) -> Evidence | None:
        """What came with the sign-off."""
        return getattr(self.sign_off, "evidence", None)

    @property
    def way(self) -> tuple[str, str]:
        """Address and words of the page where it is acted on; ("", "") when that is here."""
        if self.line.kind == LineKind.ORDER:
            number = self.line.key.removeprefix("after-")
            return reverse("week", args=[number]), f"Open week {number}"
        if self.line.kind == LineKind.FREEZE:
            return reverse("freezes"), "Open the freezes"
        if self.line.kind == LineKind.HEALTH and not self.line.held:
            return reverse("service", args=[self.line.key.removeprefix("health-")]), "Open the service"
        return "", ""


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    lines: tuple[LineView, ...]

    @property
    def slug(self) -> str:
        return self.title.lower().replace(" ", "-")

    @property
    def approvals(self) -> bool:
        return self.lines[0].line.kind == LineKind.APPROVAL

    @property
    def progress(self) -> str:
        return f"{sum(item.line.held for item in self.lines)}/{len(self.lines)}"


@dataclass(frozen=True, slots=True)
class GateView:
    verdict: Verdict
    groups: tuple[Group, ...]

    @property
    def lines(self) -> tuple[LineView, ...]:
        return tuple(item for group in self.groups for item in group.lines)

    @property
    def words(self) -> str:
        """The states of its lines, short: what a line offers to do is another in another state."""
        return digest_of([(item.id, item.word) for item in self.lines])[:8]

    @property
    def rehearses(self) -> bool:
        """One of its lines asks for a rehearsal of the rollback, and offers it."""
        return any(item.rehearses for item in self.lines)


def anchor_of(line: Line, phase: Phase = Phase.START) -> str:
    """What identifies a line on the page of its week."""
    if line.prerequisite is not None:
        return str(line.prerequisite)
    return line.key if phase == Phase.START else f"done-{line.key}"


def gate_view(
    verdict: Verdict,
    phase: Phase,
    *,
    rows: Mapping[int, Prerequisite],
    sign_offs: Mapping[int, SignOff],
    now: datetime,
) -> GateView:
    """`rows` and `sign_offs` (the live ones) are by the prerequisite's id."""
    views = [_view(line, phase, rows, sign_offs, now) for line in verdict.lines]
    groups = (Group(title, tuple(view for view in views if view.line.kind in kinds)) for title, kinds in GROUPS.items())
    return GateView(verdict, tuple(group for group in groups if group.lines))


def rows_of(week: Week) -> tuple[dict[int, Prerequisite], dict[int, SignOff]]:
    """The week's prerequisites of both phases and their live sign-offs, by prerequisite id; two queries."""
    live = SignOff.objects.filter(prerequisite__week=week, withdrawn_at__isnull=True)
    # A file's content may be megabytes; only its name is shown.
    signed = live.select_related("evidence").defer("evidence__content")
    return {row.pk: row for row in week.prerequisites.all()}, {row.prerequisite_id: row for row in signed}


def state_of(line: Line) -> tuple[str, str, str]:
    """Word, icon and what was measured, without saying one thing twice."""
    if line.overridden:
        return "Overridden", "warn", line.value
    return _STATES[line.kind](line)


def first_of(lines: Iterable[Line], kind: LineKind) -> Line | None:
    return next((line for line in lines if line.kind == kind), None)


def key_in_words(key: str) -> str:
    """A line that is no prerequisite, by its key alone."""
    for start, words in (("after-", "week {} has soaked"), ("health-", "{} is healthy"), ("freeze-", "freeze {}")):
        if key.startswith(start):
            return words.format(key.removeprefix(start))
    return key


def _view(
    line: Line, phase: Phase, rows: Mapping[int, Prerequisite], sign_offs: Mapping[int, SignOff], now: datetime
) -> LineView:
    word, icon, text = state_of(line)
    number = line.prerequisite
    row = rows.get(number) if number is not None else None
    signed = sign_offs.get(number) if number is not None else None
    return LineView(line, anchor_of(line, phase), word, icon, text, now, row, signed)


def _manual(line: Line) -> tuple[str, str, str]:
    if line.held:
        icon = "clock" if line.warning else "held"
        return "Signed off", icon, line.value.removeprefix("signed off ")
    for word in ("Expired", "Void"):
        if line.value.startswith(word.lower()):
            return word, "clock" if word == "Expired" else "cross", line.value[len(word) :].removeprefix(":").strip()
    return "Not signed off", "ring", ""


def _automatic(line: Line) -> tuple[str, str, str]:
    if line.held:
        return "Held", "held", line.value
    unknown = line.value.startswith("cannot tell: ")
    return ("Unknown", "unknown", line.value[13:]) if unknown else ("Not held", "cross", line.value)


def _health(line: Line) -> tuple[str, str, str]:
    state, _, error = line.value.partition(": ")
    icon = "held" if line.held else "unknown" if state == "unknown" else "cross"
    return state.capitalize(), icon, error


def _order(line: Line) -> tuple[str, str, str]:
    if line.held:
        return "Held", "held", line.value
    return "Not yet", "clock" if line.until else "ring", line.value


def _approval(line: Line) -> tuple[str, str, str]:
    if line.held:
        return "Approved", "clock" if line.warning else "held", line.value
    for start, word, icon in (
        ("not asked", "Not asked for", "ring"),
        ("void", "Void", "cross"),
        ("exp", "Expired", "clock"),
    ):
        if line.value.startswith(start):
            return word, icon, line.value.removeprefix(word.lower()).removeprefix(":").strip()
    return "Waiting", "clock", line.value


def _freeze(line: Line) -> tuple[str, str, str]:
    return "Frozen", "freeze", ""


_STATES = {
    LineKind.MANUAL: _manual,
    LineKind.AUTOMATIC: _automatic,
    LineKind.HEALTH: _health,
    LineKind.ORDER: _order,
    LineKind.SOAK: _order,
    LineKind.APPROVAL: _approval,
    LineKind.FREEZE: _freeze,
}
