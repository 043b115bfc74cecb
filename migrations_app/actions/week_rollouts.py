"""The rollouts of a whole week: all of its services go to the new side in their steps, under the gate of the week."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid5

from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.choices import AuditKind, RolloutState
from migrations_app.errors import ActionError, Invalid, NotFound, Partly, Stale
from migrations_app.models import AuditEvent, Flag, Rollout, Week
from migrations_app.roles import Permission

from .change import Change, Move, event_of_click, lock_plan, newest_generation, refuse_spent, refuse_stale, shift
from .rollouts import Beginning, beginning_of, pause_rollout, resume_rollout
from .spent_approvals import use_approval_of_week
from .weeks import find_week, roll_back_week


def start_week_rollout(
    *,
    number: int,
    actor: Actor,
    reason: str = "",
    seen: int | None = None,
    request_key: UUID | None = None,
    past_no_return: bool = False,
) -> Change:
    """Start the rollout of each service of the week that is neither all on nor in one, through the gate of the week.

    Services whose first step is to the same weight move in one transaction, at one generation, with one audit event.
    Where first steps differ the lowest goes first, each weight a change of its own: what a later one is refused for is
    told as Partly, and the earlier ones go on. A rollback of any service of the week stops those that are left, and the
    same click that comes again begins them. Each service then takes its own steps, and each step is judged as the week
    is: by the approval of the whole week, with all of its services healthy.

    Raises NotPermitted, NotFound, Stale, Busy, Pinned, GateClosed, Partly, and Invalid: nothing is there to start, a
    high risk without a reason, or a point of no return without `past_no_return`.
    """
    actor.require(Permission.ENABLE, "move traffic to the new side in steps")
    week, earlier = find_week(number), _earlier(number, request_key)
    asked_at = newest_generation() if earlier is None else (earlier.generation or 0) - 1
    weights = sorted({_first(one) for one in _startable(week, asked_at)})
    if earlier and not weights:
        return Change(f"Week {number}", earlier.generation or 0, changed=False, event=earlier)
    if not weights:
        raise Invalid(f"Nothing of week {number} is there to start: what is not all on is in a rollout already.")
    begun = earlier is not None
    changes: list[Change] = []
    for weight in weights:
        key = uuid5(request_key, str(weight)) if begun and request_key else request_key
        click: dict[str, Any] = {"actor": actor, "reason": reason, "request_key": key}
        find = partial(_find, number, weight, asked_at, past_no_return=past_no_return, **click)
        try:
            # The first change makes the page stale by itself.
            changes.append(shift(find, seen=None if begun else seen, asked_at=asked_at, **click))
        except ActionError as refusal:
            if not begun:
                raise
            why = str(refusal).replace("Nothing was done", "Nothing more was done")
            raise Partly(f"Some of week {number} is under way; the rest is not. {why}") from refusal
        begun = True
    return Change(f"Week {number}", changes[-1].generation, any(one.changed for one in changes), changes[-1].event)


def pause_week_rollout(
    *, number: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Every service of the week stays at the weight that it has. Raises NotPermitted, NotFound, Stale."""
    actor.require(Permission.ROLL_BACK, "pause a rollout")
    pause = partial(pause_rollout, actor=actor, reason=reason)
    return _each(number, RolloutState.RUNNING, pause, seen, request_key)


def resume_week_rollout(
    *, number: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Every paused rollout of the week goes on from the step that it is at. Raises NotPermitted, NotFound, Stale."""
    actor.require(Permission.ENABLE, "move traffic to the new side in steps")
    resume = partial(resume_rollout, actor=actor, reason=reason)
    return _each(number, RolloutState.PAUSED, resume, seen, request_key)


def abort_week_rollout(*, number: int, actor: Actor, reason: str = "", request_key: UUID | None = None) -> Change:
    """Roll the whole week back, which ends its rollouts. Raises NotPermitted, NotFound."""
    _under_way(find_week(number))
    return roll_back_week(number=number, actor=actor, reason=reason, request_key=request_key)


def _find(
    number: int,
    weight: int,
    asked_at: int,
    *,
    actor: Actor,
    reason: str,
    request_key: UUID | None,
    past_no_return: bool,
) -> Move:
    """The move of those that begin at `weight`; of those that this very click has begun, when it comes again."""
    week = find_week(number)
    chosen = [one for one in _startable(week, asked_at) if _first(one) == weight]
    flags = tuple(one.flag for one in chosen)
    if not chosen:
        earlier = _earlier(number, request_key)
        rows = Rollout.objects.filter(flag__week=week, generation=(earlier and earlier.generation) or 0)
        flags = tuple(row.flag for row in rows.select_related("flag__service"))
        if not flags:
            raise Stale(f"The rollouts of week {number} have changed meanwhile. Nothing was done; look again.")

    def carry(event: AuditEvent) -> None:
        Rollout.objects.bulk_create([one.row(event, actor, reason, whole_week=True) for one in chosen])
        use_approval_of_week(week, {flag.key: weight for flag in flags}, event.at)

    steps = {one.flag.key: [step.weight for step in one.steps] for one in chosen}
    return Move(
        AuditKind.ROLLOUT_STARTED,
        f"week {number}",
        f"Week {number}",
        week,
        flags,
        weight,
        told={"rollout": {"week": number, "steps": steps}},
        carry=carry,
        past_no_return=past_no_return,
    )


def _startable(week: Week, asked_at: int) -> list[Beginning]:
    """What nobody has moved since it was asked for, this very click neither."""
    under_way = Rollout.objects.filter(ended_at__isnull=True).values("flag")
    flags = (
        Flag.objects.filter(week=week, generation__lte=asked_at)
        .exclude(pk__in=under_way)
        .select_related("service", "week")
    )
    found = [beginning_of(flag) for flag in flags]
    return [one for one in found if one.position < len(one.steps)]


def _first(one: Beginning) -> int:
    return one.steps[one.position].weight


def _earlier(number: int, request_key: UUID | None) -> AuditEvent | None:
    """The event of the same click, when it has begun rollouts of this week that are still where it brought them."""
    event = event_of_click(request_key)
    if event is None or (event.kind, event.subject) != (AuditKind.ROLLOUT_STARTED, f"week {number}"):
        return None
    return event if Rollout.objects.filter(generation=event.generation or 0, ended_at__isnull=True).exists() else None


def _under_way(week: Week) -> list[Rollout]:
    rows = Rollout.objects.filter(flag__week=week, ended_at__isnull=True).select_related("flag")
    found = list(rows.order_by("flag__service__position", "flag__key"))
    if not found:
        raise NotFound(f"No rollout of week {week.number} is under way. Nothing was done.")
    return found


def _each(
    number: int, state: RolloutState, act: Callable[..., Change], seen: int | None, request_key: UUID | None
) -> Change:
    """Do it to each rollout of the week in this state, or to none. An audit event each; the first one has the key."""
    title = f"Week {number}"
    with transaction.atomic():
        plan = lock_plan()
        week, earlier = find_week(number), event_of_click(request_key)
        rows = [row for row in _under_way(week) if row.state == state]
        if not rows:
            return Change(title, plan.generation, changed=False, event=earlier)
        refuse_spent(earlier)
        refuse_stale(week, seen)
        keys = [request_key, *(None for _ in rows[1:])]
        changes = [act(key=row.flag.key, request_key=key) for row, key in zip(rows, keys, strict=True)]
        return Change(title, plan.generation, changed=True, event=changes[0].event)
