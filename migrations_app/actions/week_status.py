"""The status of a week, as the weights of its flags say it after each change."""

from __future__ import annotations

from datetime import datetime

from migrations_app.choices import WeekStatus
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.models import Flag, Week


def set_status(week: Week, at: datetime) -> None:
    """In progress while some of the week is on, soaking from `at` once all is, rolled back once nothing is."""
    weights = list(Flag.objects.filter(week=week).values_list("weight", flat=True))
    if all(weight == SERVICE_WEIGHT for weight in weights):
        week.status, week.soak_started_at = WeekStatus.SOAKING, at
    else:
        on = any(weight > MONOLITH_WEIGHT for weight in weights)
        week.status = WeekStatus.IN_PROGRESS if on else WeekStatus.ROLLED_BACK
        week.soak_started_at = None
    week.soak_stopped_because = ""
    week.done_at, week.done_by = None, ""
    week.started_at = week.started_at or at
    week.version += 1
    week.save(
        update_fields=[
            *("status", "started_at", "soak_started_at", "soak_stopped_because"),
            *("done_at", "done_by", "version"),
        ]
    )
