"""The frame of every change: lock, replay, guard, save, audit, hint. Traffic moves in `shift` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import OperationalError, transaction
from django.db.models import F
from django.utils import timezone
from psycopg.errors import LockNotAvailable

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Phase, Risk
from migrations_app.errors import Busy, GateClosed, Invalid, NotFound, Pinned, Stale
from migrations_app.gates.load import verdicts
from migrations_app.gates.verdict import Verdict
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models import AuditEvent, Flag, Gateway, Plan, ReasonAsked, Week
from migrations_app.models.audit import ROLLBACKS
from migrations_app.models.gateways import next_generation, still_on
from migrations_app.roles import Permission

from .fresh import refuse_old_checks, with_fresh_checks
from .hints import ask_to_reconcile
from .no_return import insist, passed_by, told_of
from .spent_approvals import end_approvals, spend_approval
from .week_status import set_status

NO_PLAN = "No plan is loaded. Load one with: manage.py plan load plans/tracseq-phase2.yaml"


@dataclass(frozen=True, slots=True)
class Change:
    """What an action did. `changed` is False when things already were so, or when the same click came again.

    `title` is what it did it to, in words; `generation` is the one that the gateway must reach for the result to be
    true; `event` is the audit event, if any.
    """

    title: str
    generation: int
    changed: bool
    event: AuditEvent | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """What is asked of the routing table: these flags to this weight (0-100 %).

    `week` is the one whose gate what goes up needs, and which the audit event names. What only goes down may have flags
    of `others` too, or of these alone; they stand in the order in which the event tells those that moved, `week` last.
    `told` is what the audit event has beside the weights. `carry` writes what belongs to the move, before the weights.
    `past_no_return`: whoever asks says that they know the points of no return that it passes.
    """

    kind: AuditKind
    subject: str
    title: str  # the subject in a person's words
    week: Week | None
    flags: tuple[Flag, ...]
    weight: int
    part_of_week: bool = False  # then only the services of these flags must be healthy
    others: tuple[Week, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    carry: Callable[[AuditEvent], None] | None = None
    past_no_return: bool = False

    def weeks(self, flags: Iterable[Flag]) -> list[Week]:
        """Those of some of its flags."""
        touched = {flag.week_id for flag in flags}
        return [week for week in (*self.others, self.week) if week is not None and week.pk in touched]

    def keys(self, week: Week) -> list[str]:
        """Of its flags of one week."""
        return [flag.key for flag in self.flags if flag.week_id == week.pk]


def shift(
    find: Callable[[], Move],
    *,
    actor: Actor,
    reason: str = "",
    seen: int | None = None,
    request_key: UUID | None = None,
    asked_at: int | None = None,
) -> Change:
    """Carry a move out in one transaction, at one new generation, with one audit event.

    Whatever goes up needs the gate of its week open, a page that is not stale and a click that is not spent; what only
    goes down, a rollback, needs none of them. Flags that already have the weight are left alone. `find` is called with
    the plan locked. Raises NotFound, Busy, Stale, NotPermitted, Invalid (a high risk without a reason, or a
    point of no return without `past_no_return`), Pinned, and GateClosed, which is an audit event too.

    `asked_at` is the `newest_generation` when it was asked for, of what may be meant to go up: no rollback is undone by
    it. When one of its flags was rolled back since, or any of a week that moves as a whole, it is Stale.
    """

    def attempt(fresh_since: datetime | None) -> Change:
        return _attempt(find, fresh_since, asked_at, actor=actor, reason=reason, seen=seen, request_key=request_key)

    return with_fresh_checks(attempt, refused=AuditKind.ENABLE_REFUSED, actor=actor, reason=reason)


def _attempt(
    find: Callable[[], Move],
    fresh_since: datetime | None,
    asked_at: int | None,
    *,
    actor: Actor,
    reason: str,
    seen: int | None,
    request_key: UUID | None,
) -> Change:
    with transaction.atomic():
        plan = lock_plan()
        move = find()
        earlier = event_of_click(request_key)
        gateways = list(Gateway.objects.filter(plan=plan))
        before = _weights(plan, move, gateways)
        flags = [flag for flag in move.flags if before[flag.key] != move.weight]
        if not flags:
            return no_change(plan, earlier, move.kind, move.subject, move.title)
        verdict, now = None, timezone.now()
        if rising := [flag.key for flag in flags if flag.weight < move.weight]:
            _refuse_rolled_back(move, flags, asked_at, plan)
            _refuse_pinned(rising, gateways)
            verdict = _passed(move, fresh_since, earlier, now, actor=actor, reason=reason, seen=seen)
        plan.generation = next_generation(plan, gateways)
        plan.save(update_fields=["generation"])
        # The event goes first: the database lets no weight rise that no open gate vouches for.
        event = record(
            move.kind,
            actor=actor,
            subject=move.subject,
            week_number=move.week.number if move.week else None,
            reason=reason,
            before={flag.key: before[flag.key] for flag in flags},
            after={flag.key: move.weight for flag in flags}
            | dict(move.told)
            | told_of(passed_by(flags, move.weight))
            | _several(move, flags),
            verdict=verdict,
            generation=plan.generation,
            # A rollback that is pressed again on an old page is meant again: it is a change of its own.
            request_key=None if earlier else request_key,
            # What the gate rests on may expire while the change is written: the change is of the moment it was judged.
            at=now if verdict else None,
        )
        if move.weight == MONOLITH_WEIGHT and actor.account is not None and not reason.strip():
            ReasonAsked.objects.create(event=event, account=actor.account)  # nobody who rolls back is held up for it
        if move.carry:
            move.carry(event)
        Flag.objects.filter(pk__in=[flag.pk for flag in flags]).update(
            weight=move.weight, generation=plan.generation, changed_at=event.at
        )
        for week in move.weeks(flags):
            if week.approvals_needed and verdict is not None:
                spend_approval(week, move.keys(week), move.weight, event.at)
            elif week.approvals_needed and move.weight == MONOLITH_WEIGHT:
                end_approvals(week, move.keys(week), event.at)
            set_status(week, event.at)
        transaction.on_commit(lambda: ask_to_reconcile(plan.generation))
        return Change(move.title, plan.generation, changed=True, event=event)


def _refuse_pinned(flags: list[str], gateways: list[Gateway]) -> None:
    """What a gateway holds on the old side would not go up anyway. Raises Pinned."""
    for gateway in gateways:
        for flag in flags:
            if pin := gateway.pin_of(flag):
                how = f"Nothing was done. Lift the pin first: manage.py pin lift {flag}"
                raise Pinned(f"{flag} is pinned to the old side {pin.words()}. {how}")


def _passed(
    move: Move,
    fresh_since: datetime | None,
    earlier: AuditEvent | None,
    now: datetime,
    *,
    actor: Actor,
    reason: str,
    seen: int | None,
) -> Verdict:
    """The verdict, at `now`, that lets the move through. Raises what `shift` does."""
    if move.week is None or move.others:
        raise RuntimeError("what goes up is of one week, and goes through its gate")
    number = move.week.number
    actor.require_still(Permission.ENABLE, "enable weeks")
    refuse_spent(earlier)
    refuse_stale(move.week, seen)
    flags = [flag.key for flag in move.flags] if move.part_of_week else None
    verdict = verdicts(weeks=[number], flags=flags, weight=move.weight, now=now)[number]
    refuse_old_checks(verdict, Phase.START, fresh_since)
    if not verdict.open:
        raise GateClosed(verdict, move.subject)
    require_reason(move.week, reason)
    insist(passed_by(move.flags, move.weight), past_no_return=move.past_no_return)
    return verdict


def lock_plan() -> Plan:
    """The plan, locked until the transaction ends: all that moves traffic, or that a gate rests on, queues here.

    Raises NotFound, and Busy when the queue does not move within the database's lock_timeout.
    """
    try:
        plan = Plan.objects.select_for_update().first()
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise Busy("Another change has held the plan for too long. Nothing was done; try again at once.") from error
        raise
    if plan is None:
        raise NotFound(NO_PLAN)
    return plan


def event_of_click(request_key: UUID | None) -> AuditEvent | None:
    """The event of the same click, when it was carried out before. Called with the plan locked."""
    return AuditEvent.objects.filter(request_key=request_key).first() if request_key else None


def no_change(plan: Plan, earlier: AuditEvent | None, kind: AuditKind, subject: str, title: str) -> Change:
    """Things are so already; `earlier` made them so when it is an event of the same kind on the same subject."""
    if earlier and (earlier.kind, earlier.subject) == (kind, subject):
        return Change(title, earlier.generation or plan.generation, changed=False, event=earlier)
    return Change(title, plan.generation, changed=False)


def refuse_spent(earlier: AuditEvent | None) -> None:
    """A click that was carried out before must not say again that it was, when that no longer holds. Raises Stale."""
    if earlier:
        raise Stale("This click was carried out before, and things have changed since. Nothing was done; look again.")


def refuse_stale(week: Week, seen: int | None) -> None:
    """`seen` is the week's version on the page that asks; None when there was no page. Raises Stale."""
    if seen is not None and seen != week.version:
        raise Stale(f"Week {week.number} has changed since this page was loaded. Nothing was done; look again.")


def _refuse_rolled_back(move: Move, flags: Iterable[Flag], asked_at: int | None, plan: Plan) -> None:
    """A rollback since `asked_at`, the generation at which a change upwards was asked for, wins. Raises Stale."""
    if asked_at is None or asked_at == plan.generation:
        return
    whole = None if move.part_of_week else move.week
    keys = list(Flag.objects.filter(week=whole).values_list("key", flat=True)) if whole else [one.key for one in flags]
    kinds = [kind.value for kind in ROLLBACKS]
    since = AuditEvent.objects.filter(generation__gt=asked_at, kind__in=kinds, after__has_any_keys=keys)
    if (by := since.order_by("-generation").values_list("actor", flat=True).first()) is not None:
        raise Stale(f"{by} has rolled this back while the change was waiting. Nothing was done; look again.")


def grow_version(week: Week) -> None:
    """Make older pages of the week recognisable. The row is locked through its plan."""
    Week.objects.filter(pk=week.pk).update(version=F("version") + 1)


def require_reason(week: Week, reason: str) -> None:
    """A high risk is not taken without a word on why; the shell is held to that as the page is. Raises Invalid."""
    if week.risk == Risk.HIGH and not reason.strip():
        raise Invalid(f"Say why now: week {week.number} is of high risk.", "reason")


def _weights(plan: Plan, move: Move, gateways: list[Gateway]) -> dict[str, int]:
    """Flag key -> the weight that a move starts from: the desired one.

    A gateway that is ahead of this database (a backup was restored) is left alone by the loop. What such a gateway
    still sends to the new side must be possible to roll back, though this database says that it is off.
    """
    weights = {flag.key: flag.weight for flag in move.flags}
    if move.weight != MONOLITH_WEIGHT:
        return weights
    ahead = still_on(plan, gateways)
    return {key: max(weight, ahead.get(key, 0)) for key, weight in weights.items()}


def _several(move: Move, flags: Iterable[Flag]) -> dict[str, list[int]]:
    """For the audit log: which weeks have moved, where it might be several."""
    return {"weeks": [week.number for week in move.weeks(flags)]} if move.others else {}


def newest_generation() -> int:
    """That of the plan now; 0 when none is loaded."""
    return Plan.objects.values_list("generation", flat=True).first() or 0
