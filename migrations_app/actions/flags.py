"""Set the weight of one flag, and roll it back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound, Stale
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.models import Flag
from migrations_app.roles import Permission

from .change import Change, Move, newest_generation, shift


def set_weight(
    *,
    key: str,
    weight: int,
    actor: Actor,
    reason: str = "",
    seen: int | None = None,
    request_key: UUID | None = None,
    past_no_return: bool = False,
) -> Change:
    """Send `weight` per cent (0-100) of a flag's traffic to its service.

    A higher weight than now needs the gate of the flag's week open; a lower one does not. Raises NotPermitted,
    NotFound, Invalid (also for a point of no return without `past_no_return`), Stale, GateClosed.
    """
    if not MONOLITH_WEIGHT <= weight <= SERVICE_WEIGHT:
        raise Invalid(f"The weight is {weight}; it must be from 0 to 100 per cent.", "weight")
    if weight == MONOLITH_WEIGHT:
        return roll_back_flag(key=key, actor=actor, reason=reason, request_key=request_key)
    actor.require(Permission.ENABLE, "move traffic to the new side")
    kind = AuditKind.FLAG_ENABLED if weight == SERVICE_WEIGHT else AuditKind.FLAG_WEIGHT_SET

    def find() -> Move:
        return replace(_move(key, kind, weight), past_no_return=past_no_return)

    asked_at = newest_generation()
    return shift(find, actor=actor, reason=reason, seen=seen, request_key=request_key, asked_at=asked_at)


def roll_back_flag(
    *,
    key: str,
    actor: Actor,
    reason: str = "",
    told: Mapping[str, Any] | None = None,
    measured_at: int | None = None,
    request_key: UUID | None = None,
) -> Change:
    """Move one service back to the monolith. No gate, never stale, safe to repeat. Raises NotPermitted, NotFound.

    Where it is no person who asks: `told` is what was measured, which the audit event has beside the weight, and
    `measured_at` the flag's generation at which it was. A flag that was moved since raises Stale: what was measured
    tells nothing of the traffic that it has now.
    """
    actor.require(Permission.ROLL_BACK, "roll back")

    def find() -> Move:
        move = _move(key, AuditKind.FLAG_ROLLED_BACK, MONOLITH_WEIGHT, told or {})
        (flag,) = move.flags
        if measured_at is not None and flag.is_on and flag.generation != measured_at:
            raise Stale(f"{key} was moved since it was measured. Nothing was done.")
        return move

    return shift(find, actor=actor, reason=reason, request_key=request_key)


def roll_back_flags(*, keys: Collection[str], actor: Actor, reason: str = "") -> Change:
    """Move several services back to the monolith, all of them or, where one is not in the plan, none.

    Gives what came of the last that changed. Raises what `roll_back_flag` does.
    """
    with transaction.atomic():
        changes = [roll_back_flag(key=key, actor=actor, reason=reason) for key in keys]
    return next((change for change in reversed(changes) if change.changed), changes[-1])


def _move(key: str, kind: AuditKind, weight: int, told: Mapping[str, Any] = MappingProxyType({})) -> Move:
    flag = Flag.objects.select_related("service", "week").filter(key=key).first()
    if flag is None:
        raise NotFound(f"The plan has no flag {key}. List them with: manage.py flag list")
    return Move(kind, key, flag.service.title, flag.week, (flag,), weight, part_of_week=True, told=told)
