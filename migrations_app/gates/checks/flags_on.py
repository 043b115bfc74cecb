"""`flags_on`: every flag of the named weeks, or of all weeks, is fully on the new side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from migrations_app.gates.verdict import Finding, Snapshot


def flags_on(parameters: Mapping[str, Any], snapshot: Snapshot) -> Finding:
    """Parameters: `weeks: [1, 2]`, or `all: true` for every week of the plan."""
    weeks = snapshot.weights.keys() if parameters.get("all") else parameters.get("weeks", [])
    weights = {key: weight for week in weeks for key, weight in snapshot.weights.get(week, {}).items()}
    off = sorted(key for key, weight in weights.items() if weight < 100)
    value = f"{len(weights) - len(off)} of {len(weights)} flags fully on"
    act = f"Enable {', '.join(off)}." if off else ""
    return Finding(bool(weights) and not off, value, f"{len(weights)} of {len(weights)}", act)
