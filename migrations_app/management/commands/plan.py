"""`manage.py plan load FILE | diff FILE | export | schema`: the plan file and the plan of the database."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from migrations_app.actions.hints import ask_to_reconcile
from migrations_app.actor import Actor
from migrations_app.errors import ActionError, NotFound, PlanConflict
from migrations_app.planfile.diff import Difference, compare
from migrations_app.planfile.export import export_plan
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.problems import PlanFileError
from migrations_app.planfile.reader import read_plan
from migrations_app.planfile.schema import Plan, json_schema

OK = 0
DIFFERENT = 1
PROBLEMS = 2
REFUSED = 3
HELP = """exit status: 0 done, or equal; 1 different (diff only); 2 the file has problems, each on standard error as
file:line: reason; 3 refused: a started week, traffic on the new side, no permission, or no plan loaded"""


class Command(BaseCommand):
    help = "Load a plan file, compare one with the database, export the database's plan, or print the JSON Schema."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = HELP
        verbs = parser.add_subparsers(dest="verb", required=True)
        load = verbs.add_parser("load", help="make the database hold the plan of a file; repeatable", epilog=HELP)
        load.add_argument("file")
        load.add_argument("--actor", default="", help="who loads it; the account of this shell unless told")
        load.add_argument("--reason", default="", help="why, for the audit log")
        diff = verbs.add_parser("diff", help="what loading the file would change; changes nothing", epilog=HELP)
        diff.add_argument("file")
        verbs.add_parser("export", help="print the database's plan as YAML")
        verbs.add_parser("schema", help="print the JSON Schema of plan files")
        for verb in (load, diff):
            verb.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            status = getattr(self, f"_{options['verb']}")(options)
        except PlanFileError as error:
            for problem in error.problems:
                self.stderr.write(str(problem), self.style.NOTICE)
            if options.get("json"):
                self._print_json(problems=[problem.as_json() for problem in error.problems])
            status = PROBLEMS
        except PlanConflict as error:
            self.stderr.write("Nothing was loaded:")
            for conflict in error.conflicts:
                self.stderr.write(f"  {conflict}")
            if options.get("json"):
                self._print_json(conflicts=error.conflicts)
            status = REFUSED
        except ActionError as error:
            self.stderr.write(str(error))
            if options.get("json"):
                self._print_json(error=str(error))
            status = REFUSED
        if status:
            raise SystemExit(status)

    def _load(self, options: dict[str, Any]) -> int:
        plan = read_plan(options["file"])
        loaded = load_plan(plan, actor=Actor.at_shell(options["actor"]), reason=options["reason"])
        if loaded.difference.routing:
            ask_to_reconcile(loaded.generation)
        if options["json"]:
            self._print_json(
                plan=plan.plan.key,
                changed=loaded.changed,
                revision=loaded.revision,
                generation=loaded.generation,
                difference=list(loaded.difference.lines),
            )
            return OK
        self._print_lines(loaded.difference)
        done = "loaded" if loaded.changed else "already loaded, nothing changed"
        self.stdout.write(f"plan {plan.plan.key} {done}: revision {loaded.revision}, generation {loaded.generation}")
        return OK

    def _diff(self, options: dict[str, Any]) -> int:
        plan = shift_ports(read_plan(options["file"]), settings.PORT_OFFSET, file=options["file"])
        difference = compare(_current_or_none(), plan)
        if options["json"]:
            self._print_json(equal=not difference, difference=list(difference.lines))
        else:
            self._print_lines(difference)
            if not difference:
                self.stdout.write("equal")
        return DIFFERENT if difference else OK

    def _export(self, _options: dict[str, Any]) -> int:
        self.stdout.write(export_plan(), ending="")
        return OK

    def _schema(self, _options: dict[str, Any]) -> int:
        self.stdout.write(json_schema(), ending="")
        return OK

    def _print_lines(self, difference: Difference) -> None:
        for line in difference.lines:
            self.stdout.write(line)

    def _print_json(self, **values: Any) -> None:
        self.stdout.write(json.dumps(values, ensure_ascii=False))


def _current_or_none() -> Plan | None:
    try:
        return current_plan()
    except NotFound:
        return None
