"""`manage.py prerequisite list|tick ID|untick ID|check ID`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from migrations_app.actions.checks import check_now
from migrations_app.actions.evidence import MOST_BYTES, UploadedEvidence
from migrations_app.actions.prerequisites import tick, untick
from migrations_app.choices import CheckState, Phase
from migrations_app.errors import Invalid
from migrations_app.gates.load import done_verdicts, verdicts
from migrations_app.gates.verdict import Line
from migrations_app.management.base import ActionCommand, Exit, Options
from migrations_app.models import CheckResult, Prerequisite


class Command(ActionCommand):
    help = "List the prerequisites of the weeks; tick and untick the manual ones, check the automatic ones."

    def add_verbs(self) -> None:
        about = "what must hold before each week starts, and before it is done"
        parser = self.verb("list", self.list, about)
        parser.add_argument("--week", type=int, metavar="N", help="of this week only")
        parser.add_argument("--phase", choices=Phase.values, help="of this phase only")
        parser = self.verb("tick", self.tick, "sign a prerequisite off; the note is --reason")
        parser.add_argument("id", type=int, metavar="ID")
        parser.add_argument("--link", default="", metavar="URL", help="where to see it: http or https")
        parser.add_argument("--file", default="", metavar="PATH", help="evidence: a picture, a PDF or a text, to 5 MB")
        parser = self.verb("untick", self.untick, "withdraw a sign-off")
        parser.add_argument("id", type=int, metavar="ID")
        about = f"run an automatic check now: leaves with 0 when it holds, {Exit.REFUSED:d} when not or not known"
        parser = self.verb("check", self.check_line, about)
        parser.add_argument("id", type=int, metavar="ID")

    def list(self, options: Options) -> None:
        lines = _lines()
        prerequisites = Prerequisite.objects.select_related("week").order_by("week__number", "-phase", "position")
        if options["week"] is not None:
            prerequisites = prerequisites.filter(week__number=options["week"])
        if options["phase"]:
            prerequisites = prerequisites.filter(phase=options["phase"])
        # A plan that is loaded at this moment may have lines that the verdicts did not see yet.
        rows = [_row(row, lines[row.pk]) for row in prerequisites if row.pk in lines]
        columns = ["id", "week", "phase", "held", "kind", "title", "value", "limit", "expires", "checked"]
        self.table(options, rows, columns, "There are no prerequisites.")

    def tick(self, options: Options) -> None:
        change = tick(
            prerequisite_id=options["id"],
            actor=self.actor(options),
            note=options["reason"],
            link=options["link"],
            evidence=_read(options["file"]) if options["file"] else None,
        )
        self.finish(options, change, f"Prerequisite {options['id']} is ticked", moves_traffic=False)

    def untick(self, options: Options) -> None:
        change = untick(prerequisite_id=options["id"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"Prerequisite {options['id']} is open again", moves_traffic=False)

    def check_line(self, options: Options) -> None:
        result = check_now(prerequisite_id=options["id"], actor=self.actor(options))
        held = result.state == CheckState.HELD
        if options["json"]:
            self.emit(_result(result))
        else:
            says = CheckState(result.state).label.lower()
            self.say(f"Prerequisite {options['id']} is {says}: {result.value} (limit: {result.limit}).")
            if result.act and not held:
                self.say(result.act)
        if not held:
            sys.exit(Exit.REFUSED)


def _lines() -> dict[int | None, Line]:
    """Prerequisite -> its line, as it is judged now."""
    found = [*verdicts().values(), *done_verdicts().values()]
    return {line.prerequisite: line for verdict in found for line in verdict.prerequisites}


def _row(row: Prerequisite, line: Line) -> dict[str, Any]:
    return {
        "id": row.pk,
        "week": row.week.number,
        "key": row.key,
        "title": row.title,
        "kind": row.kind,
        "phase": row.phase,
        "held": line.held,
        "value": line.value,
        "limit": line.limit,
        "act": line.act,
        "who": line.who,
        "since": line.since,
        "expires": line.until,
        "checked": line.checked_at,
    }


def _result(result: CheckResult) -> dict[str, Any]:
    return {
        "id": result.prerequisite_id,
        "held": result.state == CheckState.HELD,
        "state": result.state,
        "value": result.value,
        "limit": result.limit,
        "act": result.act,
        "since": result.since,
        "checked": result.checked_at,
        "milliseconds": round(result.milliseconds, 1),
    }


def _read(path: str) -> UploadedEvidence:
    """What is too large is not read to its end: one byte more than is taken says enough. Raises Invalid."""
    try:
        with Path(path).open("rb") as opened:
            return UploadedEvidence(Path(path).name, opened.read(MOST_BYTES + 1))
    except OSError as error:
        raise Invalid(f"Evidence: {path}: {error.strerror or error}.") from error
