"""`manage.py plan load FILE | diff FILE | export | schema`: the plan file and the plan of the database.

Exit status: 0 done, or equal; 1 different (diff only); 2 the file has problems, each on standard error as
`file:line: reason`, no plan is loaded, or the time scale makes no sense; 3 refused: a started or soaking week, traffic
on the new side, or no permission.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.conf import settings

from migrations_app.actions.hints import ask_to_reconcile
from migrations_app.errors import NotFound, PlanConflict
from migrations_app.management.base import ActionCommand, Exit, Options
from migrations_app.planfile.diff import Difference
from migrations_app.planfile.export import export_plan
from migrations_app.planfile.load import compare_with, current_plan, current_scale, load_plan, refuse_scale
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.problems import PlanFileError
from migrations_app.planfile.reader import read_plan
from migrations_app.planfile.schema import Plan, json_schema

DIFFERENT = 1


class Command(ActionCommand):
    help = "Load a plan file, compare one with the database, export the database's plan, print the JSON Schema."

    def add_verbs(self) -> None:
        file_verbs: tuple[tuple[str, Callable[[Options], None], str], ...] = (
            ("load", self.load, "make the database hold the plan of the file; safe to repeat"),
            ("diff", self.diff, "what loading the file would change; exit status 1 when anything"),
        )
        for name, run, about in file_verbs:
            parser = self.verb(name, run, about)
            parser.add_argument("file", metavar="FILE", help="a plan file (YAML)")
            parser.add_argument(
                "--time-scale",
                type=int,
                default=1,
                metavar="N",
                help="for demos: soaks and other waits take N times less time; 3600 makes hours seconds",
            )
        self.verb("export", self.export, "the database's plan as a plan file")
        self.verb("schema", self.schema, "the JSON Schema of plan files", asks_database=False)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            super().handle(*args, **options)
        except PlanFileError as error:
            for problem in error.problems:
                self.stderr.write(str(problem))
            if options["json"]:
                self.emit({"problems": [problem.as_json() for problem in error.problems]})
            sys.exit(Exit.USAGE)

    def load(self, options: Options) -> None:
        plan = read_plan(options["file"])
        try:
            scale = options["time_scale"]
            loaded = load_plan(plan, actor=self.actor(options), reason=options["reason"], time_scale=scale)
        except PlanConflict as refusal:
            self._tell_conflicts(refusal, options)
            sys.exit(Exit.REFUSED)
        if loaded.difference.routing:
            ask_to_reconcile(loaded.generation)
        numbers = {"revision": loaded.revision, "generation": loaded.generation, "time_scale": loaded.time_scale}
        if options["json"]:
            lines = list(loaded.difference.lines)
            self.emit({"plan": plan.plan.key, "changed": loaded.changed, **numbers, "difference": lines})
            return
        self._print(loaded.difference)
        done = "loaded" if loaded.changed else "already loaded, nothing changed"
        scaled = f", time scale {loaded.time_scale}" if loaded.time_scale != 1 else ""
        at = f"revision {loaded.revision}, generation {loaded.generation}{scaled}"
        self.stdout.write(f"plan {plan.plan.key} {done}: {at}")

    def diff(self, options: Options) -> None:
        plan = shift_ports(read_plan(options["file"]), settings.PORT_OFFSET, file=options["file"])
        refuse_scale(options["time_scale"])
        difference = compare_with(_current_or_none(), current_scale(), plan, options["time_scale"])
        if options["json"]:
            self.emit({"equal": not difference, "difference": list(difference.lines)})
        else:
            self._print(difference)
            if not difference:
                self.stdout.write("equal")
        if difference:
            sys.exit(DIFFERENT)

    def export(self, options: Options) -> None:
        if options["json"]:
            plan = shift_ports(current_plan(), -settings.PORT_OFFSET)
            self.emit({**plan.model_dump(mode="json"), "time_scale": current_scale()})
        else:
            self.stdout.write(export_plan(), ending="")

    def schema(self, _options: Options) -> None:
        self.stdout.write(json_schema(), ending="")

    def _print(self, difference: Difference) -> None:
        for line in difference.lines:
            self.stdout.write(line)

    def _tell_conflicts(self, refusal: PlanConflict, options: Options) -> None:
        if options["json"]:
            self.emit({"changed": False, "conflicts": refusal.conflicts})
            return
        self.stderr.write("Refused, nothing was loaded:")
        for conflict in refusal.conflicts:
            self.stderr.write(f"  - {conflict}")


def _current_or_none() -> Plan | None:
    try:
        return current_plan()
    except NotFound:
        return None
