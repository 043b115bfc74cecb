"""`manage.py week list|show N|enable N|rollback N|done N|rehearse N|override N|override-end N`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from django.db import OperationalError
from django.utils import timezone

from migrations_app.actions.dependents import still_on_after, weeks_in_words
from migrations_app.actions.overrides import end_override, override_gate
from migrations_app.actions.rehearsals import rehearse_rollback
from migrations_app.actions.weeks import enable_week, find_week, finish_week, roll_back_week
from migrations_app.choices import AuditKind, Phase, WeekStatus
from migrations_app.durations import in_words
from migrations_app.errors import Invalid
from migrations_app.gates.load import done_verdicts, verdicts
from migrations_app.gates.rows import current_health
from migrations_app.gates.verdict import Verdict
from migrations_app.management.base import ActionCommand, Options, past_no_return
from migrations_app.management.gates import lines_of, moment
from migrations_app.models import Flag, Gateway, Week

ALL_BLOCKING = "all-blocking"


class Command(ActionCommand):
    help = "List and show the weeks of the plan; enable, roll back, rehearse and finish them; override their gates."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "all weeks, in order, with how far each has got")
        self._verb_on_week("show", self.show, "one week: its gate line by line, its soak, what it needs to be done")
        parser = self._verb_on_week(
            "enable", self.enable, "move the week's services to the new side, if its gate is open"
        )
        past_no_return(parser)
        parser = self._verb_on_week(
            "rollback", self.rollback, "move the week's services back to the monolith; never refused by a gate"
        )
        parser.add_argument(
            "--with-later", action="store_true", help="and those of the weeks that rest on it, at the same moment"
        )
        self._verb_on_week("done", self.done, "call the week done, once it has soaked and its criteria hold")
        self._verb_on_week("rehearse", self.rehearse, "go the way of a rollback without moving any traffic")
        parser = self._verb_on_week(
            "override", self.override, "let lines of the week's closed gate block nothing for some minutes"
        )
        parser.add_argument(
            "--line",
            action="append",
            required=True,
            dest="lines",
            metavar="KEY",
            help=f"key of a line, as 'week show N' tells it; repeatable; {ALL_BLOCKING} for all that block now",
        )
        parser.add_argument("--minutes", type=int, required=True, help="after which it ends by itself")
        self._verb_on_week("override-end", self.override_end, "end the override of a week's gate at once")

    def _verb_on_week(self, name: str, run: Callable[[Options], None], about: str) -> ArgumentParser:
        parser = self.verb(name, run, about)
        parser.add_argument("number", type=int, metavar="N", help="number of the week")
        return parser

    def list(self, options: Options) -> None:
        gates = verdicts()
        flags, gateways = _flags(), list(Gateway.objects.all())
        rows = [
            # A week may have neither prerequisites nor services, and then nothing blocks it.
            _row(week, gates.get(week.number, Verdict(week.number, ())), flags.get(week.number, []), gateways)
            for week in Week.objects.select_related("plan")
        ]
        self.table(
            options,
            rows,
            ["number", "title", "risk", "status", "planned_start", "planned_end", "gate", "on", "soak"],
            "No plan is loaded. Load one with: manage.py plan load plans/tracseq-phase2.yaml",
        )

    def show(self, options: Options) -> None:
        week = find_week(options["number"])
        now = timezone.now()
        start = verdicts(weeks=[week.number], now=now)[week.number]
        done = done_verdicts(weeks=[week.number], now=now)[week.number]
        flags = _flags().get(week.number, [])
        if options["json"]:
            self.emit(_as_json(week, start, done, flags))
            return
        for line in _told(week, start, done, flags, now):
            self.say(line)

    def enable(self, options: Options) -> None:
        change = enable_week(
            number=options["number"],
            actor=self.actor(options),
            reason=options["reason"],
            past_no_return=options["past_no_return"],
        )
        moves = change.event is None or change.event.kind != AuditKind.WEEK_STARTED
        self.finish(options, change, f"Week {options['number']} is enabled", moves_traffic=moves)

    def rollback(self, options: Options) -> None:
        number, with_later = options["number"], options["with_later"]
        change = roll_back_week(
            number=number, actor=self.actor(options), reason=options["reason"], with_later=with_later
        )
        what = f"Week {number}{' with what rests on it' if with_later else ''} is rolled back"
        self.finish(options, change, what, beside=lambda: {"still_on": self._still_on(number, options)})

    def _still_on(self, number: int, options: Options) -> Sequence[int] | None:
        """Numbers of the weeks that rest on it, and says so; None when the database cannot tell any more."""
        try:
            later = still_on_after(number)
        except OperationalError:
            return None
        if later and not options["json"]:
            self.stderr.write(
                f"{weeks_in_words(later).capitalize()} {'rests' if len(later) == 1 else 'rest'} on it and"
                f" {'is' if len(later) == 1 else 'are'} still on. Back too with: manage.py week rollback {number}"
                " --with-later"
            )
        return later

    def done(self, options: Options) -> None:
        change = finish_week(number=options["number"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"Week {options['number']} is done", moves_traffic=False)

    def rehearse(self, options: Options) -> None:
        change = rehearse_rollback(number=options["number"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"The rollback of week {options['number']} is rehearsed, no traffic was moved")

    def override(self, options: Options) -> None:
        number, minutes = options["number"], options["minutes"]
        lines = _lines(number, options["lines"])
        change = override_gate(
            number=number, lines=lines, minutes=minutes, actor=self.actor(options), reason=options["reason"]
        )
        what = f"The gate of week {number} is overridden for {minutes} min: {', '.join(sorted(lines))}"
        self.finish(options, change, what, moves_traffic=False)

    def override_end(self, options: Options) -> None:
        change = end_override(number=options["number"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"The gate of week {options['number']} is not overridden", moves_traffic=False)


def _lines(number: int, asked: Collection[str]) -> set[str]:
    """The keys that are asked for, with ALL_BLOCKING as the lines that do not hold now, overridden ones included."""
    if ALL_BLOCKING not in asked:
        return set(asked)
    verdict = verdicts(weeks=[find_week(number).number])[number]
    closed = {line.key for line in verdict.lines if not line.held}
    if not closed:
        raise Invalid(f"Nothing blocks week {number} now: its gate is open.")
    return (set(asked) | closed) - {ALL_BLOCKING}


def _flags() -> dict[int, list[Flag]]:
    found: dict[int, list[Flag]] = {}
    for flag in Flag.objects.select_related("service", "week"):
        found.setdefault(flag.week.number, []).append(flag)
    return found


def _row(week: Week, verdict: Verdict, flags: list[Flag], gateways: list[Gateway]) -> dict[str, Any]:
    needed, now = week.plan.scaled(week.soak), timezone.now()
    until = week.soak_started_at + needed if week.soak_started_at else None
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
        "override": verdict.override,
        "on": f"{sum(flag.is_on for flag in flags)}/{len(flags)}",
        "flags": {flag.key: flag.weight for flag in flags},
        "applied": all(gateway.runs(flag) for gateway in gateways for flag in flags),
        "soak": _soak(week, now),
        "soak_seconds": needed.total_seconds(),
        "soak_started_at": week.soak_started_at,
        "soak_until": until,
        "soak_stopped_because": week.soak_stopped_because,
        "done_at": week.done_at,
        "done_by": week.done_by,
    }


def _soak(week: Week, now: datetime) -> str:
    """How far the soak has got, and what is left of it."""
    needed = week.plan.scaled(week.soak)
    if week.status == WeekStatus.DONE:
        return "over"
    if week.status != WeekStatus.SOAKING:
        return in_words(needed) if needed else "none"
    if week.soak_started_at is None:
        return f"stands: {week.soak_stopped_because}"
    lasted = now - week.soak_started_at
    return "over" if lasted >= needed else f"{in_words(lasted)} of {in_words(needed)}, {in_words(needed - lasted)} left"


def _as_json(week: Week, start: Verdict, done: Verdict, flags: list[Flag]) -> dict[str, Any]:
    health = current_health()
    services = [
        {"service": flag.service.key, "health": health.get(flag.service.key, ("unknown", ""))[0]} for flag in flags
    ]
    return _row(week, start, flags, list(Gateway.objects.all())) | {
        "impact": week.impact,
        "time_scale": week.plan.time_scale,
        "after": [before.number for before in week.after.order_by("number")],
        "done_when": [row.title for row in week.prerequisites.filter(phase=Phase.DONE)],
        "verdict": start.as_json(),
        "done_verdict": done.as_json(),
        "services": services,
    }


def _told(week: Week, start: Verdict, done: Verdict, flags: list[Flag], now: datetime) -> list[str]:
    told = [str(week), f"{week.get_risk_display()} risk, {week.get_status_display().lower()}"]
    if week.plan.time_scale > 1:
        told.append(f"On this plan whatever has to be waited for takes {week.plan.time_scale} times less time.")
    blocking = f" ({len(start.blocking)} in the way)" if start.blocking else ""
    told.append(f"Gate: {'open' if start.open else 'closed'}{blocking}, {start.progress} prerequisites")
    if start.override:
        told.append(f"  {start.override}")
    told += lines_of(start, now)
    told.append(f"Soak: {_soak(week, now)}")
    if week.done_at:
        told.append(f"Done: by {week.done_by}, {moment(week.done_at, now)}")
    else:
        told.append(f"Done: {'it can be called done' if done.open else 'not yet'}")
        told += lines_of(done, now)
    told.append("Flags:" if flags else "Flags: none, it moves no traffic")
    told += [f"  {flag.key}: {flag.weight} %" for flag in flags]
    return told
