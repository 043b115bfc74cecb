"""`manage.py trigger list`."""

from __future__ import annotations

import json
from typing import Any

from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import Flag, TriggerState
from migrations_app.planfile.triggers import AnyTrigger, from_rows


class Command(ActionCommand):
    help = "The triggers of the plan: what moves a service back by itself, what each last measured, and when it fired."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "every trigger; one is watched while its flag is on")

    def list(self, options: Options) -> None:
        known = {(state.flag_id, state.key): state for state in TriggerState.objects.all()}
        rows = [
            _row(flag, trigger, known.get((flag.pk, trigger.key)))
            for flag in Flag.objects.select_related("service")
            for trigger in from_rows(json.dumps(flag.service.triggers))
        ]
        columns = ["flag", "key", "do", "watched", "state", "value", "limit", "fired_at"]
        self.table(options, rows, columns, "The plan has no triggers: nothing goes back by itself.")


def _row(flag: Flag, trigger: AnyTrigger, state: TriggerState | None) -> dict[str, Any]:
    current = state if state and flag.is_on and state.generation == flag.generation else None
    return {
        "flag": flag.key,
        "key": trigger.key,
        "when": trigger.when,
        "do": f"{trigger.do} (dry run)" if trigger.dry_run else trigger.do,
        "watched": flag.is_on,
        "state": current.state if current else None,
        "value": current.value if current else None,
        "limit": current.limit if current else None,
        "since": current.since if current else None,
        "fired_at": state.fired_at if state else None,
        "fired_value": state.fired_value if state else None,
    }
