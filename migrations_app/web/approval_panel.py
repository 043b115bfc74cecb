"""The requests for approval of one week: what each is for, exactly, who has answered, and whether it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Prefetch, Q

from migrations_app.actions.approvals import asked_by, why_over, why_void
from migrations_app.actor import Actor
from migrations_app.choices import Decision
from migrations_app.durations import in_words
from migrations_app.gates.target import targets
from migrations_app.models import Approval, ApprovalRequest
from migrations_app.roles import Permission

from .board import Board, ServiceRow, WeekRow

OVER = 3  # how many requests that are over are listed


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `void` says why it does not count, `over` why it is over for good; "" otherwise."""

    row: ApprovalRequest
    services: tuple[ServiceRow, ...]
    whole: bool
    answers: tuple[Approval, ...]  # `counts` of each: the person still has the role
    needed: int
    void: str
    over: str
    now: datetime
    mine: bool
    my_answer: Approval | None
    may_answer: bool

    @property
    def given(self) -> int:
        return len(
            {
                one.actor
                for one in self.answers
                if one.decision == Decision.GIVEN and one.counts and one.actor != self.row.actor  # type: ignore[attr-defined]
            }
        )

    @property
    def approved(self) -> bool:
        return not self.void and not self.over and self.given >= self.needed

    @property
    def word(self) -> tuple[str, str]:
        """A word and its icon."""
        if self.over:
            return ("Used", "check") if self.row.spent_at else ("Closed", "cross")
        if self.void:
            return "Void", "cross"
        return ("Approved", "held") if self.approved else (f"Waiting, {self.given} of {self.needed}", "clock")

    @property
    def left(self) -> str:
        """How long it still counts, in words."""
        return "" if self.over or self.void else in_words(self.row.expires_at - self.now)


@dataclass(frozen=True, slots=True)
class ApprovalPanel:
    """`choices` is what approval can be asked for now: flag key ("" for the whole week) and its words."""

    needed: int
    role: str
    requests: tuple[Asked, ...]
    over: tuple[Asked, ...]
    choices: tuple[tuple[str, str], ...]


def approval_panel(actor: Actor, board: Board, row: WeekRow) -> ApprovalPanel | None:
    """None for a week that needs no approval; else at most six queries, however many requests there have been."""
    week = row.week
    if not week.approvals_needed:
        return None
    role = Q(account__is_active=True, account__groups__name=week.approver_role)
    still = Approval.objects.filter(role, pk=OuterRef("pk"))
    answers = Approval.objects.filter(withdrawn_at__isnull=True).annotate(counts=Exists(still))
    found = ApprovalRequest.objects.filter(week=week).prefetch_related(Prefetch("approvals", queryset=answers))
    open_ones = list(found.filter(closed_at__isnull=True, spent_at__isnull=True))
    over = list(found.filter(Q(closed_at__isnull=False) | Q(spent_at__isnull=False))[:OVER])
    target = targets([week.number])[week.number] if open_ones else ""
    approver = (
        actor.can(Permission.APPROVE)
        and User.objects.filter(pk=actor.account.pk if actor.account else 0, groups__name=week.approver_role).exists()
    )
    flags = sorted(service.flag.key for service in row.services)

    def asked(one: ApprovalRequest) -> Asked:
        given = tuple(one.approvals.all())
        mine = asked_by(one, actor)
        return Asked(
            row=one,
            services=tuple(service for service in row.services if service.flag.key in one.flags),
            whole=one.flags == flags,
            answers=given,
            needed=week.approvals_needed,
            void=why_void(one, revision=board.plan.revision, target=target, now=board.now),
            over=why_over(one),
            now=board.now,
            mine=mine,
            my_answer=_answer_of(given, actor),
            may_answer=approver and not mine,
        )

    requests = tuple(asked(one) for one in open_ones)
    good = {tuple(one.row.flags) for one in requests if not one.void}
    choices = [] if tuple(flags) in good or row.all_on else [("", f"All of week {week.number}")]
    if len(flags) > 1:
        choices += [
            (service.flag.key, service.service.title)
            for service in row.services
            if not service.flag.is_fully_on and (service.flag.key,) not in good
        ]
    return ApprovalPanel(
        week.approvals_needed, week.approver_role, requests, tuple(asked(one) for one in over), tuple(choices)
    )


def _answer_of(answers: Iterable[Approval], actor: Actor) -> Approval | None:
    account = actor.account.pk if actor.account else None
    return next((one for one in answers if one.actor == actor.name or one.account_id == account), None)
