"""`flags_on`: every flag of the named weeks, or of all weeks, is fully on the new side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from migrations_app.choices import CheckState
from migrations_app.gates.parameters import FlagsOn
from migrations_app.gates.seen import Finding, Snapshot


def flags_on(parameters: Mapping[str, Any], snapshot: Snapshot) -> Finding:
    """`weeks: [1, 2]`, or `all: true` for every week of the plan."""
    asked = FlagsOn.of(parameters)
    weeks = snapshot.weights.keys() if asked.all else asked.weeks
    weights = {key: weight for week in weeks for key, weight in snapshot.weights.get(week, {}).items()}
    off = sorted(key for key, weight in weights.items() if weight < 100)
    value = f"{len(weights) - len(off)} of {len(weights)} flags fully on"
    act = f"Enable {', '.join(off)}." if off else ""
    state = CheckState.HELD if weights and not off else CheckState.NOT_HELD
    return Finding(state, value, f"{len(weights)} of {len(weights)}", act)
