"""Rollouts: a flag goes to the new side in steps. Each step up goes through the gate, as every change does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from migrations_app.actor import SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, RolloutState
from migrations_app.errors import Invalid, NotFound, Stale
from migrations_app.models import AuditEvent, Flag, Rollout
from migrations_app.planfile.rollout import RolloutPart
from migrations_app.roles import Permission

from .change import (
    Change,
    Move,
    event_of_click,
    grow_version,
    lock_plan,
    newest_generation,
    no_change,
    refuse_spent,
    refuse_stale,
    shift,
)
from .flags import roll_back_flag
from .refusals import clipped
from .spent_approvals import use_approval_of_week

_STEP = "move traffic to the new side in steps"
_BECAUSE = 300  # characters, of Rollout.paused_because


@dataclass(frozen=True, slots=True)
class Step:
    """One step as a rollout keeps it: per cent, seconds, requests."""

    weight: int
    hold: float
    requests: int


def steps_of(rollout: Rollout) -> tuple[Step, ...]:
    return tuple(Step(**step) for step in rollout.steps)


def under_way(key: str) -> Rollout | None:
    """The rollout of a flag that is running or paused."""
    rows = Rollout.objects.select_related("flag__service", "flag__week__plan")
    return rows.filter(flag__key=key, ended_at__isnull=True).first()


@dataclass(frozen=True, slots=True)
class Beginning:
    """A rollout that may begin: its steps, and the index of the first one above the flag's weight."""

    flag: Flag
    part: RolloutPart
    steps: tuple[Step, ...]
    position: int

    def row(self, event: AuditEvent, actor: Actor, reason: str, *, whole_week: bool = False) -> Rollout:
        return Rollout(
            flag=self.flag,
            steps=[asdict(step) for step in self.steps],
            error_rate=self.part.error_rate,
            p95=self.part.p95,
            on_failure=self.part.on_failure,
            position=self.position,
            weight=self.steps[self.position].weight,
            generation=event.generation or 0,  # a move has one
            since=event.at,
            account=actor.account,
            started_by=actor.name,
            started_at=event.at,
            reason=reason,
            whole_week=whole_week,
        )


def beginning_of(flag: Flag) -> Beginning:
    """`flag` comes with its service. Its position is one past the last step when it is all on."""
    part = RolloutPart.model_validate_json(json.dumps(flag.service.rollout))
    steps = tuple(Step(step.weight, step.hold.total_seconds(), step.requests) for step in part.effective)
    return Beginning(
        flag, part, steps, next((at for at, step in enumerate(steps) if step.weight > flag.weight), len(steps))
    )


def start_rollout(
    *,
    key: str,
    actor: Actor,
    reason: str = "",
    seen: int | None = None,
    request_key: UUID | None = None,
    past_no_return: bool = False,
) -> Change:
    """Take the first step of the plan that is above the flag's weight, and go on by itself from there.

    Raises NotPermitted, NotFound, Invalid (it is all on already, a rollout is under way, or a point of no return
    without `past_no_return`), Stale, GateClosed.
    """
    actor.require(Permission.ENABLE, _STEP)

    def find() -> Move:
        flag = _flag(key)
        earlier = event_of_click(request_key)
        if (row := under_way(key)) and not (earlier and row.generation == earlier.generation):
            raise Invalid(f"{flag.service.title} is at {row.place} of a rollout already.")
        begin = beginning_of(flag)
        position = row.position if row else begin.position
        if position == len(begin.steps):
            raise Invalid(f"{flag.service.title} is all on the new side already.")
        weight = begin.steps[position].weight

        def carry(event: AuditEvent) -> None:
            Rollout.objects.bulk_create([begin.row(event, actor, reason)])

        move = _move(flag, AuditKind.ROLLOUT_STARTED, weight, _told(position, begin.steps), carry)
        return replace(move, past_no_return=past_no_return)

    asked_at = newest_generation()
    return shift(find, actor=actor, reason=reason, seen=seen, request_key=request_key, asked_at=asked_at)


def step_to(
    *,
    key: str,
    position: int,
    actor: Actor,
    reason: str = "",
    at: int | None = None,
    judged: Rollout | None = None,
    stay: bool = False,
    seen: int | None = None,
    request_key: UUID | None = None,
) -> Change:
    """Go to a step (an index from 0) of the rollout that is under way; up through the gate, down without one.

    `at`: only from this step; when another was taken meanwhile, Stale. `judged`: only while it is as it was found then,
    and runs. `stay`: it is paused there. Raises NotPermitted, NotFound, Invalid, Stale, GateClosed.
    """
    asked_at = newest_generation()
    down = position < _under_way(key).position
    actor.require(Permission.ROLL_BACK if down else Permission.ENABLE, _STEP)

    def find() -> Move:
        row = _under_way(key)
        _refuse_moved(row, at)
        _refuse_changed(row, judged)
        if position > row.position:
            actor.require(Permission.ENABLE, _STEP)
        steps = steps_of(row)
        if not 0 <= position < len(steps):
            raise Invalid(f"The rollout has the steps 1 to {len(steps)}, not {position + 1}.")
        values: dict[str, Any] = {"position": position, "weight": steps[position].weight}
        if stay:
            values |= {"state": RolloutState.PAUSED, "paused_because": clipped(f"{actor.name} went back", _BECAUSE)}

        def carry(event: AuditEvent) -> None:
            Rollout.objects.filter(pk=row.pk).update(generation=event.generation, since=event.at, **values)
            if row.whole_week and position > row.position:
                use_approval_of_week(row.flag.week, {key: steps[position].weight}, event.at)

        told = _told(position, steps, paused=stay)
        move = _move(row.flag, AuditKind.ROLLOUT_STEPPED, steps[position].weight, told, carry)
        # What was started with its week goes on as the week may: by its approval, with all of its services healthy.
        return replace(move, part_of_week=not row.whole_week)

    return shift(find, actor=actor, reason=reason, seen=seen, request_key=request_key, asked_at=asked_at)


def step_back(
    *,
    key: str,
    actor: Actor,
    reason: str = "",
    at: int | None = None,
    seen: int | None = None,
    request_key: UUID | None = None,
) -> Change:
    """One step down, and stay there. Raises NotPermitted, NotFound, Stale, and Invalid at the first step."""
    row = _under_way(key)
    if row.position == 0:
        raise Invalid(f"{row.flag.service.title} is at the first step. Roll it back instead.")
    at = row.position if at is None else at
    return step_to(
        key=key, position=at - 1, actor=actor, reason=reason, at=at, stay=True, seen=seen, request_key=request_key
    )


def pause_rollout(
    *,
    key: str,
    actor: Actor,
    because: str = "",
    reason: str = "",
    at: int | None = None,
    measured_at: int | None = None,
    judged: Rollout | None = None,
    seen: int | None = None,
    request_key: UUID | None = None,
) -> Change:
    """Stay at the weight that it has. Whoever may roll back may pause. Paused already: nothing changes.

    `at`: only at this step. `measured_at`: only at this generation of the flag, at which what is the reason for it was
    measured; another step of the rollout, and another rollout, are other traffic. `judged`: as for `step_to`. Raises
    NotPermitted, NotFound, Stale.
    """
    actor.require(Permission.ROLL_BACK, "pause a rollout")
    because = because or f"{actor.name} paused it"
    with transaction.atomic():
        plan = lock_plan()
        row = _under_way(key)
        _refuse_changed(row, judged)
        if measured_at is not None and row.flag.generation != measured_at:
            raise Stale(f"{key} was moved since it was measured. Nothing was done.")
        earlier, title = event_of_click(request_key), row.flag.service.title
        if row.state == RolloutState.PAUSED:
            return no_change(plan, earlier, AuditKind.ROLLOUT_PAUSED, key, title)
        actor.require_still(Permission.ROLL_BACK, "pause a rollout")
        _refuse_moved(row, at)
        refuse_spent(earlier)
        refuse_stale(row.flag.week, seen)
        told: dict[str, Any] = {"actor": actor, "reason": reason or because, "request_key": request_key}
        event = _state_event(row, AuditKind.ROLLOUT_PAUSED, RolloutState.PAUSED, **told)
        Rollout.objects.filter(pk=row.pk).update(state=RolloutState.PAUSED, paused_because=clipped(because, _BECAUSE))
        return Change(title, plan.generation, changed=True, event=event)


def resume_rollout(
    *, key: str, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Go on from the step that it is at, which begins anew. Running already: nothing changes.

    Raises NotPermitted, NotFound, Stale.
    """
    actor.require(Permission.ENABLE, _STEP)
    with transaction.atomic():
        plan = lock_plan()
        row = _under_way(key)
        earlier, title = event_of_click(request_key), row.flag.service.title
        if row.state == RolloutState.RUNNING:
            return no_change(plan, earlier, AuditKind.ROLLOUT_RESUMED, key, title)
        actor.require_still(Permission.ENABLE, _STEP)
        refuse_spent(earlier)
        refuse_stale(row.flag.week, seen)
        event = _state_event(
            row, AuditKind.ROLLOUT_RESUMED, RolloutState.RUNNING, actor=actor, reason=reason, request_key=request_key
        )
        Rollout.objects.filter(pk=row.pk).update(state=RolloutState.RUNNING, paused_because="", since=event.at)
        return Change(title, plan.generation, changed=True, event=event)


def abort_rollout(*, key: str, actor: Actor, reason: str = "", request_key: UUID | None = None) -> Change:
    """Move all traffic back to the monolith, which ends the rollout. Raises NotPermitted, NotFound."""
    _under_way(key)
    return roll_back_flag(key=key, actor=actor, reason=reason, request_key=request_key)


def finish_rollout(*, judged: Rollout) -> Change:
    """Every step was taken and has held: the rollout is over, its flag stays where it is.

    Only while it is as it was `judged`. Raises NotFound, Stale.
    """
    with transaction.atomic():
        plan = lock_plan()
        row = _under_way(judged.flag.key)
        _refuse_changed(row, judged)
        event = _state_event(row, AuditKind.ROLLOUT_FINISHED, RolloutState.FINISHED, actor=SYSTEM)
        Rollout.objects.filter(pk=row.pk).update(state=RolloutState.FINISHED, ended_at=event.at)
        return Change(row.flag.service.title, plan.generation, changed=True, event=event)


def holds_for(rollout: Rollout) -> timedelta:
    """How long the step that it is at really takes."""
    seconds = steps_of(rollout)[rollout.position].hold
    return rollout.flag.week.plan.scaled(timedelta(seconds=seconds))


def _flag(key: str) -> Flag:
    flag = Flag.objects.select_related("service", "week").filter(key=key).first()
    if flag is None:
        raise NotFound(f"The plan has no flag {key}. List them with: manage.py flag list")
    return flag


def _under_way(key: str) -> Rollout:
    row = under_way(key)
    if row is None:
        raise NotFound(f"No rollout of {_flag(key).service.title} is under way. Nothing was done.")
    return row


def _told(position: int, steps: Sequence[Step], *, paused: bool = False) -> dict[str, Any]:
    """What the audit log keeps of a step, beside the weights."""
    told: dict[str, Any] = {"step": position + 1, "steps": [step.weight for step in steps]}
    return {"rollout": told | ({"state": RolloutState.PAUSED.value} if paused else {})}


def _refuse_moved(row: Rollout, at: int | None) -> None:
    if at is not None and row.position != at:
        raise Stale(f"The rollout is at {row.place} now. Nothing was done; look again.")


def _refuse_changed(row: Rollout, judged: Rollout | None) -> None:
    """A hold that has passed is not that of another rollout, another step, or one that was paused since."""
    if judged is None:
        return
    as_judged = judged.pk, judged.generation, judged.since, RolloutState.RUNNING
    if (row.pk, row.generation, row.since, row.state) != as_judged:
        raise Stale(f"The rollout of {row.flag.key} was changed since it was judged. Nothing was done.")


def _move(
    flag: Flag, kind: AuditKind, weight: int, told: Mapping[str, Any], carry: Callable[[AuditEvent], None]
) -> Move:
    title, week = flag.service.title, flag.week
    return Move(kind, flag.key, title, week, (flag,), weight, part_of_week=True, told=told, carry=carry)


def _state_event(
    row: Rollout,
    kind: AuditKind,
    state: RolloutState,
    *,
    actor: Actor,
    reason: str = "",
    request_key: UUID | None = None,
) -> AuditEvent:
    event: AuditEvent = record(
        kind,
        actor=actor,
        subject=row.flag.key,
        week_number=row.flag.week.number,
        reason=reason,
        before={"state": row.state},
        after={"state": state.value, "step": row.position + 1, "weight": row.weight},
        request_key=request_key,
    )
    grow_version(row.flag.week)
    return event
