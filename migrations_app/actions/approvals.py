"""Ask for an approval of one exact change; give, decline and withdraw it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Decision
from migrations_app.durations import in_words
from migrations_app.errors import Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.target import targets
from migrations_app.gateways.base import SERVICE_WEIGHT
from migrations_app.models import Approval, ApprovalRequest, AuditEvent, Flag, Plan, Week
from migrations_app.roles import Permission

from .change import Change, event_of_click, grow_version, lock_plan, no_change, refuse_spent, refuse_stale
from .refusals import clipped, refusals_recorded
from .weeks import find_week

_ASK = "ask for approval"
_APPROVE = "approve changes"
_CLOSED_BECAUSE = 300  # characters, of ApprovalRequest.closed_because


def request_approval(
    *,
    number: int,
    actor: Actor,
    flags: Collection[str] | None = None,
    reason: str = "",
    seen: int | None = None,
    request_key: UUID | None = None,
) -> Change:
    """Ask for the approval of moving all flags of a week, or the ones named, fully to the new side.

    What counts is the change as it is now: the plan's revision and the week's target. An open request for it that still
    counts: nothing changes; one that does not any more is closed, and this one takes its place.
    Raises NotPermitted, NotFound, Invalid (a week that needs no approval, a flag that it does not have), Stale.
    """
    asked = {"flags": flags, "seen": seen, "request_key": request_key}
    with refusals_recorded(_ASK, actor=actor, subject=f"week {number}", reason=reason, **asked) as about:
        actor.require(Permission.ENABLE, _ASK)
        with transaction.atomic():
            plan = lock_plan()
            week = find_week(number)
            about.week = number
            actor.require_still(Permission.ENABLE, _ASK)
            if not week.approvals_needed:
                raise Invalid(f"Week {number} needs no approval.")
            keys = _flags(week, flags)
            earlier, now = event_of_click(request_key), timezone.now()
            target = targets([number])[number]
            old = open_request(week, keys)
            void = old and why_void(old, revision=plan.revision, target=target, now=now)
            if old and not void:
                return no_change(plan, earlier, AuditKind.APPROVAL_REQUESTED, _subject(old), _title(week))
            refuse_spent(earlier)
            refuse_stale(week, seen)
            if old:
                _close(old, f"replaced: {void}", now)
            row = ApprovalRequest.objects.create(
                week=week,
                flags=keys,
                weight=SERVICE_WEIGHT,
                revision=plan.revision,
                vouches_for=target,
                account=actor.account,
                actor=actor.name,
                reason=reason,
                asked_at=now,
                expires_at=now + week.approval_valid_for,
            )
            event = record(
                AuditKind.APPROVAL_REQUESTED,
                actor=actor,
                subject=_subject(row),
                week_number=number,
                reason=reason,
                before=_change(old) | {"closed_because": old.closed_because} if old else {},
                after=_change(row) | {"expires_at": row.expires_at.isoformat()},
                request_key=request_key,
            )
            grow_version(week)
            return Change(_title(week), plan.generation, changed=True, event=event)


def give_approval(
    *, request_id: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Approve the change that a request tells of. Given already: nothing changes.

    Raises NotPermitted (no account, without the week's role, or the one who asked), NotFound, and Stale, which says why
    the request counts no more.
    """
    asked = {"request": request_id, "seen": seen, "request_key": request_key}
    with refusals_recorded(
        "give approval", actor=actor, subject=f"approval {request_id}", reason=reason, **asked
    ) as about:
        _require_account(actor)
        with transaction.atomic():
            plan = lock_plan()
            row = _find(request_id)
            about.subject, about.week = _subject(row), row.week.number
            _require_approver(actor, row)
            if asked_by(row, actor):
                raise NotPermitted(f"{actor.name} has asked for it; somebody else must approve it.")
            earlier = event_of_click(request_key)
            _require_open(row)
            _require_good(row, plan, timezone.now())
            if answer_of(row, actor):
                return no_change(plan, earlier, AuditKind.APPROVAL_GIVEN, _subject(row), _title(row.week))
            refuse_spent(earlier)
            refuse_stale(row.week, seen)
            before = _state(row)
            _answer(row, actor, Decision.GIVEN, reason)
            return _changed(
                plan, row, AuditKind.APPROVAL_GIVEN, before, actor=actor, reason=reason, request_key=request_key
            )


def decline_approval(
    *, request_id: int, actor: Actor, reason: str, seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Say no, and why: it closes the request, whoever else has approved it. Declined by them already: nothing changes.

    Raises NotPermitted as `give_approval` does, NotFound, Invalid (no reason), Stale (closed or used already).
    """
    asked = {"request": request_id, "seen": seen, "request_key": request_key}
    with refusals_recorded(
        "decline approval", actor=actor, subject=f"approval {request_id}", reason=reason, **asked
    ) as about:
        _require_account(actor)
        with transaction.atomic():
            plan = lock_plan()
            row = _find(request_id)
            about.subject, about.week = _subject(row), row.week.number
            _require_approver(actor, row)
            if asked_by(row, actor):
                raise NotPermitted(f"{actor.name} has asked for it, and can withdraw it instead.")
            if not reason.strip():
                raise Invalid("Say why: whoever asked wants to know what to change.")
            earlier, now = event_of_click(request_key), timezone.now()
            answer = answer_of(row, actor)
            if answer is not None and answer.decision == Decision.DECLINED:
                return no_change(plan, earlier, AuditKind.APPROVAL_DECLINED, _subject(row), _title(row.week))
            _require_open(row)
            refuse_spent(earlier)
            refuse_stale(row.week, seen)
            before = _state(row)
            if answer is not None:
                _take_back(answer, now)
            _answer(row, actor, Decision.DECLINED, reason)
            _close(row, f"declined by {actor.name}: {reason.strip()}", now)
            return _changed(
                plan, row, AuditKind.APPROVAL_DECLINED, before, actor=actor, reason=reason, request_key=request_key
            )


def withdraw_approval(
    *, request_id: int, actor: Actor, reason: str = "", seen: int | None = None, request_key: UUID | None = None
) -> Change:
    """Whoever asked takes the request back, which closes it; whoever approved takes the own approval back.

    It only ever closes a gate, so it needs no role. Withdrawn already: nothing changes.
    Raises NotPermitted (for everybody else), NotFound, Stale (declined or used already).
    """
    asked = {"request": request_id, "seen": seen, "request_key": request_key}
    with refusals_recorded(
        "withdraw approval", actor=actor, subject=f"approval {request_id}", reason=reason, **asked
    ) as about:
        actor.require(Permission.VIEW_PLAN, "see the plan")
        with transaction.atomic():
            plan = lock_plan()
            row = _find(request_id)
            about.subject, about.week = _subject(row), row.week.number
            actor.require_still(Permission.VIEW_PLAN, "see the plan")
            asker, answer = _is_asker(row, actor), answer_of(row, actor)
            if not asker and not row.approvals.filter(_person(actor)).exists():
                raise NotPermitted(f"{actor.name} has neither asked for it nor approved it.")
            earlier = event_of_click(request_key)
            if row.closed_because == _withdrawn_by(row.actor) if asker else answer is None:
                return no_change(plan, earlier, AuditKind.APPROVAL_WITHDRAWN, _subject(row), _title(row.week))
            _require_open(row)
            refuse_spent(earlier)
            refuse_stale(row.week, seen)
            before, now = _state(row), timezone.now()
            if asker:
                _close(row, _withdrawn_by(row.actor), now)
            elif answer is not None:
                _take_back(answer, now)
            return _changed(
                plan, row, AuditKind.APPROVAL_WITHDRAWN, before, actor=actor, reason=reason, request_key=request_key
            )


def open_request(week: Week, flags: list[str]) -> ApprovalRequest | None:
    """The one for exactly these flags, sorted, that is neither closed nor used; it may be void or expired."""
    return ApprovalRequest.objects.filter(
        week=week, flags=flags, weight=SERVICE_WEIGHT, closed_at__isnull=True, spent_at__isnull=True
    ).first()


def why_over(row: ApprovalRequest) -> str:
    """Why a request is over for good, as the end of "It counts no more: ", or "" while it is open."""
    if row.closed_at is not None:
        return row.closed_because
    if row.spent_at is not None:
        return "the change was made"
    return ""


def why_void(row: ApprovalRequest, *, revision: int, target: str, now: datetime) -> str:
    """Why an open request does not count, or "": what has changed since. `revision` and `target` are the week's now."""
    if row.revision != revision:
        return f"it was asked for revision {row.revision} of the plan, which is at {revision}"
    if row.vouches_for != target:
        return "the week's flags, routes or upstreams have changed since it was asked for"
    if row.used_at is None and row.expires_at <= now:
        return f"it expired {in_words(now - row.expires_at)} ago"
    return ""


def asked_by(row: ApprovalRequest, actor: Actor) -> bool:
    """Whether it may have been this person who asked: the same account, or the same name."""
    return row.actor == actor.name or (actor.account is not None and row.account_id == actor.account.pk)


def answer_of(row: ApprovalRequest, actor: Actor) -> Approval | None:
    """What this person has answered and not taken back."""
    return row.approvals.filter(_person(actor), withdrawn_at__isnull=True).first()


def _find(request_id: int) -> ApprovalRequest:
    row = ApprovalRequest.objects.select_related("week").filter(pk=request_id).first()
    if row is None:
        raise NotFound(f"There is no request {request_id}. List them with: manage.py approval list")
    return row


def _flags(week: Week, asked: Collection[str] | None) -> list[str]:
    """Flag keys, sorted: the ones that are asked for, or all of the week. Raises Invalid."""
    own = set(Flag.objects.filter(week=week).values_list("key", flat=True))
    if asked is None:
        return sorted(own)
    if unknown := sorted(set(asked) - own):
        raise Invalid(f"Week {week.number} has no flag {clipped(', '.join(unknown))}.")
    if not asked and own:
        raise Invalid("Name at least one flag, or none of them for the whole week.")
    return sorted(set(asked))


def _require_account(actor: Actor) -> None:
    """A name typed at a shell could be anybody's. Raises NotPermitted."""
    if actor.account is None:
        raise NotPermitted(f"{actor.name} is no account, and only accounts approve. Name yours with --actor.")
    actor.require(Permission.APPROVE, _APPROVE)


def _require_approver(actor: Actor, row: ApprovalRequest) -> None:
    """Within the change: the permission, and the role that the week wants. Raises NotPermitted."""
    actor.require_still(Permission.APPROVE, _APPROVE)
    role = row.week.approver_role
    account = actor.account
    if account is None or not User.objects.filter(pk=account.pk, is_active=True, groups__name=role).exists():
        raise NotPermitted(f"Week {row.week.number} is approved by {role}s, and {actor.name} is none.")


def _require_open(row: ApprovalRequest) -> None:
    if over := why_over(row):
        raise Stale(f"This request is over: {over}. Nothing was done; look again.")


def _require_good(row: ApprovalRequest, plan: Plan, now: datetime) -> None:
    target = targets([row.week.number])[row.week.number]
    if void := why_void(row, revision=plan.revision, target=target, now=now):
        raise Stale(f"This request counts no more: {void}. Nothing was done; it must be asked for anew.")


def _person(actor: Actor) -> Q:
    if actor.account is None:
        return Q(actor=actor.name)
    return Q(account=actor.account) | Q(actor=actor.name)


def _is_asker(row: ApprovalRequest, actor: Actor) -> bool:
    """Whether it was this very account who asked, or somebody at a shell under this name."""
    if row.account_id or actor.account:
        return actor.account is not None and row.account_id == actor.account.pk
    return row.actor == actor.name


def _answer(row: ApprovalRequest, actor: Actor, decision: Decision, reason: str) -> None:
    Approval.objects.create(
        request=row,
        account=actor.account,
        actor=actor.name,
        decision=decision,
        reason=reason.strip(),
        at=timezone.now(),
    )


def _take_back(answer: Approval, now: datetime) -> None:
    answer.withdrawn_at = now
    answer.save(update_fields=["withdrawn_at"])


def _close(row: ApprovalRequest, because: str, now: datetime) -> None:
    row.closed_at, row.closed_because = now, clipped(because, _CLOSED_BECAUSE)
    row.save(update_fields=["closed_at", "closed_because"])


def _withdrawn_by(name: str) -> str:
    return f"withdrawn by {name}"


def _changed(
    plan: Plan,
    row: ApprovalRequest,
    kind: AuditKind,
    before: dict[str, Any],
    *,
    actor: Actor,
    reason: str,
    request_key: UUID | None,
) -> Change:
    event: AuditEvent = record(
        kind,
        actor=actor,
        subject=_subject(row),
        week_number=row.week.number,
        reason=reason,
        before=before,
        after=_state(row),
        request_key=request_key,
    )
    grow_version(row.week)
    return Change(_title(row.week), plan.generation, changed=True, event=event)


def _change(row: ApprovalRequest) -> dict[str, Any]:
    """The exact change, as the audit log keeps it."""
    return {"request": row.pk, "flags": row.flags, "weight": row.weight, "revision": row.revision}


def _state(row: ApprovalRequest) -> dict[str, Any]:
    given = row.approvals.filter(decision=Decision.GIVEN, withdrawn_at__isnull=True)
    state = _change(row) | {"asked_by": row.actor, "approved_by": sorted(given.values_list("actor", flat=True))}
    return state | {"closed_because": row.closed_because} if row.closed_because else state


def _subject(row: ApprovalRequest) -> str:
    return f"week {row.week.number} / approval {row.pk}"


def _title(week: Week) -> str:
    return f"Week {week.number}"
