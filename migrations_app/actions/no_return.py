"""Points of no return: what turns on past one is told before, and whoever does it says that they know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from migrations_app.errors import Invalid
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models import Flag


def passed_by(flags: Iterable[Flag], weight: int, *, past_no_return: bool) -> dict[str, Any]:
    """What the audit event of moving these flags to `weight` has of it: service key -> what is lost; {} for none.

    A flag passes its point when it leaves the old side, not when more of its traffic follows. Raises Invalid unless
    `past_no_return` says that this is known. Called with the plan locked.
    """
    passed = [
        flag
        for flag in flags
        if flag.service.point_of_no_return and flag.weight == MONOLITH_WEIGHT and weight > MONOLITH_WEIGHT
    ]
    if not passed:
        return {}
    if not past_no_return:
        told = " ".join(sentence(flag.service.title, flag.service.point_of_no_return) for flag in passed)
        raise Invalid(f"{told} Say that you know it: tick the box, or --past-no-return.")
    return {"past_no_return": {flag.service.key: flag.service.point_of_no_return for flag in passed}}


def sentence(title: str, point: str) -> str:
    """`Point of no return: once Auth service is on, users have set new passwords.`"""
    return f"Point of no return: once {title} is on, {point.rstrip('. ')}."
