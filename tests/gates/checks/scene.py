"""Where the tests of probes ask."""

from __future__ import annotations

from datetime import datetime

from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.target import targets
from migrations_app.models import Plan


def scene(week: int, now: datetime) -> Scene:
    return Scene(Plan.objects.get(), week, targets([week])[week], now, within=5.0)
