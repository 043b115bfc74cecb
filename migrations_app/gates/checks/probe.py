"""What a probe is: a function of its parameters and of where it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from migrations_app.gates.seen import Finding
from migrations_app.models import Plan


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a probe is asked: for which week of which plan, when, and how many seconds it has for all it does."""

    plan: Plan
    week: int
    target: str  # of the week (gates.target)
    now: datetime
    within: float


Probe = Callable[[Mapping[str, Any], Scene], Finding]
