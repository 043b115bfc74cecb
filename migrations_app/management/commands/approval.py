"""`manage.py approval request N|give ID|decline ID|withdraw ID|list`."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from migrations_app.actions.approvals import (
    decline_approval,
    give_approval,
    request_approval,
    why_over,
    why_void,
    withdraw_approval,
)
from migrations_app.actions.change import Change
from migrations_app.choices import Decision
from migrations_app.gates.load import verdicts
from migrations_app.gates.target import targets
from migrations_app.gates.verdict import LineKind
from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import Approval, ApprovalRequest


class Command(ActionCommand):
    help = "Ask for the approval of a change; give, decline and withdraw it; list the requests."

    def add_verbs(self) -> None:
        parser = self.verb("request", self.request, "ask for approval of moving a week, or some flags of it")
        parser.add_argument("number", type=int, metavar="N", help="number of the week")
        parser.add_argument("--flag", action="append", dest="flags", metavar="KEY", help="this flag only; repeatable")
        for name, run, about in (
            ("give", self.give, "approve what somebody else has asked for"),
            ("decline", self.decline, "say no; --reason says why"),
            ("withdraw", self.withdraw, "take back what you have asked for, or your own approval"),
        ):
            self.verb(name, run, about).add_argument("id", type=int, metavar="ID", help="number of the request")
        parser = self.verb("list", self.list, "the requests, newest first, with what came of them")
        parser.add_argument("--week", type=int, help="of this week only")
        parser.add_argument("--limit", type=int, default=50, help="at most so many (default: 50)")

    def request(self, options: Options) -> None:
        change = request_approval(
            number=options["number"], actor=self.actor(options), flags=options["flags"], reason=options["reason"]
        )
        self._finish(options, change, f"Approval of week {options['number']} is asked for")

    def give(self, options: Options) -> None:
        change = give_approval(request_id=options["id"], actor=self.actor(options), reason=options["reason"])
        self._finish(options, change, f"Request {options['id']} is approved by {self.actor(options).name}")

    def decline(self, options: Options) -> None:
        change = decline_approval(request_id=options["id"], actor=self.actor(options), reason=options["reason"])
        self._finish(options, change, f"Request {options['id']} is declined")

    def withdraw(self, options: Options) -> None:
        change = withdraw_approval(request_id=options["id"], actor=self.actor(options), reason=options["reason"])
        self._finish(options, change, f"Withdrawn from request {options['id']}")

    def list(self, options: Options) -> None:
        requests = ApprovalRequest.objects.select_related("week__plan").prefetch_related("approvals")
        if options["week"] is not None:
            requests = requests.filter(week__number=options["week"])
        rows = [_row(request) for request in requests[: max(0, options["limit"])]]
        columns = ["id", "week", "flags", "weight", "asked_by", "state", "why", "expires_at"]
        self.table(options, rows, columns, "Nobody has asked for approval. Ask with: manage.py approval request N")

    def _finish(self, options: Options, change: Change, what: str) -> None:
        self.finish(options, change, what, moves_traffic=False)


def _row(request: ApprovalRequest) -> dict[str, Any]:
    state, why = _state(request)
    return {
        "id": request.pk,
        "week": request.week.number,
        "flags": request.flags,
        "weight": request.weight,
        "revision": request.revision,
        "asked_by": request.actor,
        "asked_at": request.asked_at,
        "reason": request.reason,
        "expires_at": request.expires_at,
        "state": state,
        "why": why,
        "approved_by": [answer.actor for answer in request.approvals.all() if _stands(answer)],
    }


def _state(request: ApprovalRequest) -> tuple[str, str]:
    """A word, and what there is to say to it. Of an open one the gate's own line tells how far it is."""
    week = request.week
    if over := why_over(request):
        return "closed" if request.closed_at else "used", over
    target = targets([week.number])[week.number]
    if void := why_void(request, revision=week.plan.revision, target=target, now=timezone.now()):
        return "void", void
    verdict = verdicts(weeks=[week.number], flags=request.flags, weight=request.weight)[week.number]
    for line in verdict.lines:
        if line.kind == LineKind.APPROVAL:
            return "approved" if line.held else "open", line.value
    return "open", ""


def _stands(answer: Approval) -> bool:
    return answer.decision == Decision.GIVEN and answer.withdrawn_at is None
