"""Roll everything back at once: one transaction, one generation, one audit event."""

from __future__ import annotations

from uuid import UUID

from migrations_app.actor import Actor
from migrations_app.choices import AuditKind
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models import Flag, Week
from migrations_app.roles import Permission

from .change import Change, Move, shift


def roll_back_everything(*, actor: Actor, reason: str = "", request_key: UUID | None = None) -> Change:
    """Move every service of every week back to the monolith. No gate, never stale, safe to repeat.

    Raises NotPermitted, NotFound (no plan is loaded), Busy.
    """
    actor.require(Permission.ROLL_BACK, "roll back")
    return shift(_move, actor=actor, reason=reason, request_key=request_key)


def _move() -> Move:
    flags, weeks = tuple(Flag.objects.all()), tuple(Week.objects.all())
    kind = AuditKind.EVERYTHING_ROLLED_BACK
    return Move(kind, "everything", "Everything", None, flags, MONOLITH_WEIGHT, others=weeks)
