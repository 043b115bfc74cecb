"""Enable and roll back a whole week."""

from __future__ import annotations

from uuid import UUID

from migrations_app.actor import Actor
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.models import Flag, Week
from migrations_app.roles import Permission

from .change import Change, Move, shift


def enable_week(
    *, number: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Move all services of a week fully to the new side, if its gate is open.

    Raises NotPermitted, NotFound, Invalid (a week that moves no traffic), Stale, or GateClosed.
    """
    actor.require(Permission.ENABLE, "enable weeks")
    return shift(
        lambda: _move(number, AuditKind.WEEK_ENABLED, SERVICE_WEIGHT),
        actor=actor,
        reason=reason,
        seen=seen,
        request_key=request_key,
    )


def roll_back_week(*, number: int, actor: Actor, reason: str = "", request_key: UUID | None = None) -> Change:
    """Move all services of a week back to the monolith, at one generation. No gate, never stale, safe to repeat.

    Raises NotPermitted, NotFound.
    """
    actor.require(Permission.ROLL_BACK, "roll back")
    return shift(
        lambda: _move(number, AuditKind.WEEK_ROLLED_BACK, MONOLITH_WEIGHT),
        actor=actor,
        reason=reason,
        request_key=request_key,
    )


def _move(number: int, kind: AuditKind, weight: int) -> Move:
    week = Week.objects.filter(number=number).first()
    if week is None:
        raise NotFound(f"The plan has no week {number}. List the weeks with: manage.py week list")
    flags = tuple(Flag.objects.filter(week=week).select_related("service"))
    if not flags and weight > MONOLITH_WEIGHT:
        raise Invalid(f"Week {number} moves no traffic, so there is nothing to enable.")
    return Move(kind, f"week {number}", f"Week {number}", week, flags, weight, part_of_week=False)
