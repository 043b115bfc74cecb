"""`manage.py prerequisite list|tick ID|untick ID`."""

from __future__ import annotations

from migrations_app.actions.prerequisites import tick, untick
from migrations_app.gates.load import verdicts
from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import Prerequisite


class Command(ActionCommand):
    help = "List the prerequisites of the weeks; tick and untick the manual ones."

    def add_verbs(self) -> None:
        parser = self.verb("list", self.list, "all prerequisites, with who signed them off")
        parser.add_argument("--week", type=int, help="of this week only")
        parser = self.verb("tick", self.tick, "sign a prerequisite off; the note is --reason")
        parser.add_argument("id", type=int, metavar="ID")
        parser = self.verb("untick", self.untick, "withdraw a sign-off")
        parser.add_argument("id", type=int, metavar="ID")

    def list(self, options: Options) -> None:
        lines = {line.prerequisite: line for verdict in verdicts().values() for line in verdict.prerequisites}
        prerequisites = Prerequisite.objects.select_related("week").order_by("week__number", "position")
        if options["week"] is not None:
            prerequisites = prerequisites.filter(week__number=options["week"])
        rows = [
            {
                "id": row.pk,
                "week": row.week.number,
                "key": row.key,
                "title": row.title,
                "kind": row.kind,
                "held": lines[row.pk].held,
                "value": lines[row.pk].value,
            }
            for row in prerequisites
        ]
        columns = ["id", "week", "held", "kind", "title", "value"]
        self.table(options, rows, columns, "There are no prerequisites.")

    def tick(self, options: Options) -> None:
        change = tick(prerequisite_id=options["id"], actor=self.actor(options), note=options["reason"])
        self.finish(options, change, f"Prerequisite {options['id']} is ticked", moves_traffic=False)

    def untick(self, options: Options) -> None:
        change = untick(prerequisite_id=options["id"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"Prerequisite {options['id']} is open again", moves_traffic=False)
