"""What needs the person who looks at the timeline, loudest first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from django.db.models import Exists, OuterRef, Q
from django.http import HttpRequest
from django.urls import reverse

from migrations_app.actor import Actor
from migrations_app.choices import WeekStatus
from migrations_app.gates.verdict import Line, LineKind, Verdict
from migrations_app.models import Approval, ApprovalRequest, ReasonAsked, SignOff
from migrations_app.roles import Permission

from .access import may
from .board import Board, WeekRow
from .context import chrome

MOST_REASONS = 3  # that are asked for at a time


@dataclass(frozen=True, slots=True)
class Need:
    """`link` leads to what needs the person; `at` is told behind the title.

    `key` is stable while the need lasts: the focus finds it again by it.
    """

    key: str
    title: str
    text: str
    link: str
    loud: bool = False
    at: datetime | None = None
    ends: str = "."  # the title, after the moment


def needs_of(request: HttpRequest, board: Board) -> list[Need]:
    """For this account alone: what it may not do anything about is not asked of it."""
    found = chain(
        _alarms(request, board),
        _approvals(request, board),
        _reasons(request, board),
        _own_sign_offs(request, board),
        _finishing(request, board),
        _current(request, board),
    )
    return list(found)


def token_of(needs: Sequence[Need]) -> str:
    """Differs when they do: what is the same is not put on the page anew."""
    return hashlib.sha256(repr(needs).encode()).hexdigest()[:16]


def _alarms(request: HttpRequest, board: Board) -> Iterator[Need]:
    if not may(request, Permission.ROLL_BACK):
        return
    if board.gateway.loud:
        title = f"The gateway: {board.gateway.word}"
        yield Need("gateway", title, board.gateway.why, reverse("gateway"), loud=True)
    for week in board.weeks:
        for row in week.services:
            if row.alarming:
                yield Need(
                    f"service-{row.service.key}",
                    f"{row.service.title} is unhealthy and carries traffic",
                    f"{row.health.error or 'Its health check fails'}. Rolling back takes one click.",
                    f"{_page(week)}#row-{row.service.key}",
                    loud=True,
                )
            elif row.fails_over:
                traffic = row.traffic
                answered = f"{traffic.over:,} of {traffic.meant_for_new:,} requests of the last minute in its place"
                yield Need(
                    f"failover-{row.service.key}",
                    f"{row.service.title} fails over",
                    f"The monolith answered {answered}. Look at its log, or roll it back.",
                    f"{_page(week)}#row-{row.service.key}",
                    loud=True,
                )


def _approvals(request: HttpRequest, board: Board) -> Iterator[Need]:
    """Open requests of others that this account may answer, has not answered, and that still count.

    Most pages need no question: the weeks know whether there is any.
    """
    if not may(request, Permission.APPROVE) or not any(getattr(row.week, "has_request", True) for row in board.weeks):
        return
    actor = Actor.signed_in(request.user)
    mine = Q(actor=actor.name) | Q(account=actor.account)
    answered = Approval.objects.filter(mine, request=OuterRef("pk"), withdrawn_at__isnull=True)
    asked = ApprovalRequest.objects.filter(
        ~Exists(answered),
        closed_at__isnull=True,
        spent_at__isnull=True,
        expires_at__gt=board.now,
        revision=board.plan.revision,
        week__approver_role__in=chrome(request)["chrome"].roles,
    ).select_related("week")
    for row in asked.exclude(actor=actor.name):
        week = row.week
        yield Need(
            f"approval-{row.pk}",
            f"Week {week.number}: {row.actor} asks for your approval",
            f"{row.reason or week.title}. Approve it, or decline it with a reason.",
            f"{reverse('week', args=[week.number])}#request-{row.pk}",
        )


def _reasons(request: HttpRequest, board: Board) -> Iterator[Need]:
    """Rollbacks of this account that nobody has given a reason for, the newest first. Most pages need no question."""
    if not chrome(request)["chrome"].owes_reasons:
        return
    owed = ReasonAsked.objects.filter(account=request.user.pk, answer__isnull=True).select_related("event")
    rows = list(owed.order_by("-pk")[: MOST_REASONS + 1])
    titles = {one.row.key: one.row.title for week in board.weeks for one in week.services}
    for row in rows[:MOST_REASONS]:
        subject = titles.get(row.event.subject, row.event.subject)
        more = " There are older ones too." if len(rows) > MOST_REASONS and row == rows[MOST_REASONS - 1] else ""
        yield Need(
            f"why-{row.pk}",
            f"You rolled back {subject} at",
            f"A few words for the audit log are enough.{more}",
            f"{reverse('audit-event', args=[row.pk])}#why",
            at=row.event.at,
            ends=". Why?",
        )


def _own_sign_offs(request: HttpRequest, board: Board) -> Iterator[Need]:
    """Of this account's sign-offs those that are about to end, have ended, or are void."""
    if not may(request, Permission.TICK):
        return
    shaky = {
        line.prerequisite: (week, line)
        for week in board.weeks
        if not (week.all_on or week.done)
        for line in week.verdict.lines
        if line.kind == LineKind.MANUAL and (line.warning or (not line.held and line.since is not None))
    }
    if not shaky:
        return
    mine = SignOff.objects.filter(
        prerequisite__in=shaky, actor=request.user.get_username(), withdrawn_at__isnull=True
    ).values_list("prerequisite", flat=True)
    for prerequisite in sorted(mine):
        week, line = shaky[prerequisite]
        says = "ends soon" if line.held else "counts no more"
        title = f"Week {week.week.number}: your sign-off “{line.title}” {says}"
        text = line.warning or f"{line.value[:1].upper()}{line.value[1:]}."
        yield Need(f"line-{prerequisite}", title, text, f"{_page(week)}#line-{prerequisite}")


def _finishing(request: HttpRequest, board: Board) -> Iterator[Need]:
    """Weeks that have soaked and that nobody has called done."""
    for week in board.weeks:
        if not week.soaked:
            continue
        number, verdict = week.week.number, week.done_verdict
        if verdict.open and may(request, Permission.FINISH):
            text = "It has soaked, and everything that it had to do is ticked."
            yield Need(f"done-{number}", f"Week {number} can be called done", text, f"{_page(week)}#done")
        waiting = _manual(verdict)
        if waiting and may(request, Permission.TICK):
            title = f"Week {number} has soaked: {_lines(len(waiting))} to sign off before it is done"
            yield Need(f"criteria-{number}", title, waiting[0].title, f"{_page(week)}#line-{waiting[0].prerequisite}")


def _current(request: HttpRequest, board: Board) -> Iterator[Need]:
    """What keeps the current week from beginning, as far as this account can do something about it."""
    week = board.current
    if week is None or week.all_on or week.week.status in {WeekStatus.SOAKING, WeekStatus.DONE}:
        return
    name, page, blocking = f"Week {week.week.number}", _page(week), week.verdict.blocking
    waiting = _manual(week.verdict)
    if waiting and may(request, Permission.TICK):
        verb = "waits" if len(waiting) == 1 else "wait"
        title = f"{name}: {_lines(len(waiting))} {verb} for a sign-off"
        yield Need("sign-off", title, "Tick with a note of what you saw.", f"{page}#line-{waiting[0].prerequisite}")
    failing = [line for line in blocking if line.kind == LineKind.AUTOMATIC]
    if failing and may(request, Permission.CHECK):
        count = "1 check does" if len(failing) == 1 else f"{len(failing)} checks do"
        first = failing[0]
        text = f"{first.title}: {first.value}. {first.act}".strip()
        yield Need("checks", f"{name}: {count} not hold", text, f"{page}#line-{first.prerequisite}")
    approval = next((line for line in blocking if line.kind == LineKind.APPROVAL), None)
    if approval is not None and approval.until is None and may(request, Permission.ENABLE):
        text = f"{approval.limit[:1].upper()}{approval.limit[1:]}."
        yield Need("ask", f"{name}: ask for approval", text, f"{page}#approvals")
    if week.verdict.open and may(request, Permission.ENABLE):
        verb = "enable it" if week.week.moves_traffic else "start it"
        yield Need("enable", f"{name} is ready", f"Its gate is open: {verb} when the time is right.", f"{page}#lever")


def _manual(verdict: Verdict) -> list[Line]:
    return [line for line in verdict.blocking if line.kind == LineKind.MANUAL]


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _page(week: WeekRow) -> str:
    return reverse("week", args=[week.week.number])
