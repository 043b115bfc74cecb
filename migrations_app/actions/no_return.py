"""Points of no return: what turns on past one is told before, and whoever does it says that they know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from migrations_app.errors import Invalid
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models import Flag


def passed_by(flags: Iterable[Flag], weight: int) -> list[Flag]:
    """Those that pass their point by being moved to `weight`: by leaving the old side, not by more that follows."""
    off = [flag for flag in flags if flag.weight == MONOLITH_WEIGHT and weight > MONOLITH_WEIGHT]
    return [flag for flag in off if flag.service.point_of_no_return]


def insist(passed: Sequence[Flag], *, past_no_return: bool) -> None:
    """Called once the gate is open: what is in the way is told first. Raises Invalid."""
    if passed and not past_no_return:
        told = " ".join(sentence(flag.service.title, flag.service.point_of_no_return) for flag in passed)
        raise Invalid(f"{told} Say that you know it: tick the box, or --past-no-return.")


def told_of(passed: Sequence[Flag]) -> dict[str, Any]:
    """What the audit event has beside the weights: service key -> what is lost; {} for none."""
    points = {flag.service.key: flag.service.point_of_no_return for flag in passed}
    return {"past_no_return": points} if points else {}


def sentence(title: str, point: str) -> str:
    """`Point of no return: once Auth service is on, users have set new passwords.`"""
    return f"Point of no return: once {title} is on, {point.rstrip('. ')}."
