"""`manage.py trigger list`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.utils import timezone

from migrations_app.choices import Breach
from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import Flag, TriggerState, Week
from migrations_app.models.triggers import not_looked_at
from migrations_app.planfile.triggers import AnyTrigger, from_rows


class Command(ActionCommand):
    help = "The triggers of the plan: what moves a service back by itself, what each last measured, and when it fired."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "every trigger; one is watched while its flag, or one of its week, is on")

    def list(self, options: Options) -> None:
        now = timezone.now()
        known = {(state.flag_id, state.week_id, state.key): state for state in TriggerState.objects.all()}
        flags = list(Flag.objects.select_related("service", "week"))
        rows = [
            _row(flag.key, [flag], trigger, known.get((flag.pk, None, trigger.key)), now)
            for flag in flags
            for trigger in from_rows(json.dumps(flag.service.triggers))
        ]
        rows += [
            _row(f"week {week.number}", own, trigger, known.get((None, week.pk, trigger.key)), now)
            for week in Week.objects.exclude(triggers=[])
            if (own := [flag for flag in flags if flag.week_id == week.pk])
            for trigger in from_rows(json.dumps(week.triggers))
        ]
        columns = ["of", "key", "do", "watched", "state", "value", "limit", "fired_at"]
        self.table(options, rows, columns, "The plan has no triggers: nothing goes back by itself.")


def _row(of: str, flags: list[Flag], trigger: AnyTrigger, state: TriggerState | None, now: datetime) -> dict[str, Any]:
    on = [flag.generation for flag in flags if flag.is_on]
    current = state if state and on and state.generation == max(on) else None
    silent = not_looked_at(current.judged_at, now) if current else ""
    return {
        "of": of,
        "key": trigger.key,
        "when": trigger.when,
        "do": f"{trigger.do} (dry run)" if trigger.dry_run else trigger.do,
        "watched": bool(on),
        "state": (Breach.NO_DATA if silent else current.state) if current else None,
        "value": silent or (current.value if current else None),
        "limit": current.limit if current else None,
        "since": current.since if current else None,
        "judged_at": current.judged_at if current else None,
        "fired_at": state.fired_at if state else None,
        "fired_value": state.fired_value if state else None,
    }
