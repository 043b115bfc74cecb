"""`manage.py week list|show N|enable N|rollback N`."""

from __future__ import annotations

from typing import Any

from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import Phase
from migrations_app.errors import NotFound
from migrations_app.gates.load import current_health, verdicts
from migrations_app.gates.verdict import Verdict
from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import Flag, Gateway, Week


class Command(ActionCommand):
    help = "List, show, enable and roll back the weeks of the plan."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "all weeks, in order")
        for name, run, about in (
            ("show", self.show, "one week with its gate, services and flags"),
            ("enable", self.enable, "move the week's services to the new side, if its gate is open"),
            ("rollback", self.rollback, "move the week's services back to the monolith; never refused by a gate"),
        ):
            self.verb(name, run, about).add_argument("number", type=int, metavar="N", help="number of the week")

    def list(self, options: Options) -> None:
        gates = verdicts()
        flags = _flags()
        rows = [
            # A week may have neither prerequisites nor services, and then nothing blocks it.
            _row(week, gates.get(week.number, Verdict(week.number, ())), flags.get(week.number, []))
            for week in Week.objects.all()
        ]
        self.table(
            options,
            rows,
            ["number", "title", "risk", "status", "planned_start", "planned_end", "gate", "on"],
            "No plan is loaded. Load one with: manage.py plan load plans/tracseq-phase2.yaml",
        )

    def show(self, options: Options) -> None:
        week = Week.objects.filter(number=options["number"]).first()
        if week is None:
            raise NotFound(f"The plan has no week {options['number']}. List the weeks with: manage.py week list")
        verdict = verdicts(weeks=[week.number])[week.number]
        flags = _flags().get(week.number, [])
        if options["json"]:
            health = current_health()
            services = [
                {"service": flag.service.key, "health": health.get(flag.service.key, ("unknown", ""))[0]}
                for flag in flags
            ]
            self.emit(
                _row(week, verdict, flags)
                | {
                    "impact": week.impact,
                    "done_when": [row.title for row in week.prerequisites.filter(phase=Phase.DONE)],
                    "verdict": verdict.as_json(),
                    "services": services,
                }
            )
            return
        self.stdout.write(f"{week}\n{week.get_risk_display()} risk, {week.get_status_display().lower()}")
        self.stdout.write(f"Gate: {'open' if verdict.open else 'closed'}, {verdict.progress} prerequisites")
        for line in verdict.lines:
            self.stdout.write(f"  [{'x' if line.held else ' '}] {line.title}: {line.value}")
        for flag in flags:
            self.stdout.write(f"  {flag.key}: {flag.weight} %")

    def enable(self, options: Options) -> None:
        change = enable_week(number=options["number"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"Week {options['number']} is enabled")

    def rollback(self, options: Options) -> None:
        change = roll_back_week(number=options["number"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"Week {options['number']} is rolled back")


def _flags() -> dict[int, list[Flag]]:
    found: dict[int, list[Flag]] = {}
    for flag in Flag.objects.select_related("service", "week"):
        found.setdefault(flag.week.number, []).append(flag)
    return found


def _row(week: Week, verdict: Verdict, flags: list[Flag]) -> dict[str, Any]:
    gateways = list(Gateway.objects.all())
    return {
        "number": week.number,
        "title": week.title,
        "risk": week.risk,
        "status": week.status,
        "planned_start": week.planned_start,
        "planned_end": week.planned_end,
        "gate": f"{'open' if verdict.open else 'closed'} {verdict.progress}",
        "gate_open": verdict.open,
        "progress": verdict.progress,
        "on": f"{sum(flag.is_on for flag in flags)}/{len(flags)}",
        "flags": {flag.key: flag.weight for flag in flags},
        "applied": all(gateway.runs(flag) for gateway in gateways for flag in flags),
    }
