"""`manage.py rollout list|show KEY|start KEY|pause KEY|resume KEY|jump KEY STEP|back KEY|abort KEY`.

Of a whole week: `rollout start|pause|resume|abort --week N`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.utils import timezone

from migrations_app.actions.advance import judge
from migrations_app.actions.change import Change
from migrations_app.actions.rollouts import (
    abort_rollout,
    pause_rollout,
    resume_rollout,
    start_rollout,
    step_back,
    step_to,
    under_way,
)
from migrations_app.actions.week_rollouts import (
    abort_week_rollout,
    pause_week_rollout,
    resume_week_rollout,
    start_week_rollout,
)
from migrations_app.errors import Invalid, NotFound
from migrations_app.management.base import ActionCommand, Options, past_no_return
from migrations_app.models import Rollout


class Command(ActionCommand):
    help = "Move a flag's traffic to the new side in the steps of the plan. It goes on by itself while all is well."

    def add_verbs(self) -> None:
        parser = self.verb("list", self.list, "the rollouts that are under way")
        parser.add_argument("--all", action="store_true", help="with those that have ended")
        for name, run, about in (
            ("start", self.start, "take the first step, through the gate"),
            ("pause", self.pause, "stay at the weight that it has"),
            ("resume", self.resume, "go on; the step that it is at begins anew"),
            ("abort", self.abort, "move all of its traffic back to the monolith"),
        ):
            parser = self.verb(name, run, about)
            parser.add_argument("key", nargs="?", default="", metavar="KEY", help="the flag, as USE_AUTH_SERVICE")
            parser.add_argument("--week", type=int, metavar="N", help="instead of KEY: all services of this week")
            if name == "start":
                past_no_return(parser)
        for name, run, about in (
            ("show", self.show, "what the step that it is at waits for"),
            ("back", self.back, "one step down, and stay there"),
        ):
            self.verb(name, run, about).add_argument("key", metavar="KEY", help="the flag, as USE_AUTH_SERVICE")
        parser = self.verb("jump", self.jump, "go to a step; up through the gate, down without one")
        parser.add_argument("key", metavar="KEY", help="the flag, as USE_AUTH_SERVICE")
        parser.add_argument("step", type=int, metavar="STEP", help="1 for the first")

    def list(self, options: Options) -> None:
        rows = Rollout.objects.select_related("flag__service").order_by("-started_at")
        if not options["all"]:
            rows = rows.filter(ended_at__isnull=True)
        columns = ["flag", "state", "step", "weight", "since", "started_by", "why"]
        self.table(options, [_row(row) for row in rows], columns, "No rollout is under way.")

    def show(self, options: Options) -> None:
        rollout = under_way(options["key"])
        if rollout is None:
            raise NotFound(f"No rollout of {options['key']} is under way.")
        lines = [
            {"line": line.title, "held": line.held, "value": line.value, "limit": line.limit}
            for line in judge(rollout, timezone.now()).lines
        ]
        if not options["json"]:
            because = f": {rollout.paused_because}" if rollout.paused_because else ""
            self.say(f"{rollout.flag.key} is at {rollout.place}, {rollout.state}{because}")
        self.table(options, lines, ["line", "held", "value", "limit"], "")

    def start(self, options: Options) -> None:
        known = {"past_no_return": options["past_no_return"]}
        change = self._act(options, partial(start_rollout, **known), partial(start_week_rollout, **known))
        self.finish(options, change, f"The rollout of {_what(options)} is under way")

    def pause(self, options: Options) -> None:
        change = self._act(options, pause_rollout, pause_week_rollout)
        self.finish(options, change, f"The rollout of {_what(options)} is paused", moves_traffic=False)

    def resume(self, options: Options) -> None:
        change = self._act(options, resume_rollout, resume_week_rollout)
        self.finish(options, change, f"The rollout of {_what(options)} goes on", moves_traffic=False)

    def jump(self, options: Options) -> None:
        key, step = options["key"], options["step"]
        change = step_to(key=key, position=step - 1, actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"{key} is at step {step}")

    def back(self, options: Options) -> None:
        change = step_back(key=options["key"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"{options['key']} is one step back, and stays there")

    def abort(self, options: Options) -> None:
        change, what = self._act(options, abort_rollout, abort_week_rollout), _what(options)
        self.finish(options, change, f"{what[:1].upper()}{what[1:]} is rolled back")

    def _act(self, options: Options, one: Callable[..., Change], whole: Callable[..., Change]) -> Change:
        """Raises Invalid unless there is either a flag or a week."""
        if bool(options["key"]) == (options["week"] is not None):
            raise Invalid("Name either a flag, as USE_AUTH_SERVICE, or --week N.")
        said = {"actor": self.actor(options), "reason": options["reason"]}
        if options["key"]:
            return one(key=options["key"], **said)
        return whole(number=options["week"], **said)


def _what(options: Options) -> str:
    return options["key"] or f"week {options['week']}"


def _row(rollout: Rollout) -> dict[str, Any]:
    return {
        "flag": rollout.flag.key,
        "state": rollout.state,
        "step": f"{rollout.position + 1} of {len(rollout.steps)}",
        "weight": rollout.weight,
        "since": rollout.since,
        "started_by": rollout.started_by,
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
        "why": rollout.ended_because or rollout.paused_because,
    }
