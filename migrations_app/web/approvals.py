"""Asking for an approval, answering it and taking it back; and what the page of a week says of all that."""

from __future__ import annotations

from typing import Any

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods

from migrations_app.actions import approvals as actions
from migrations_app.actions.change import Change
from migrations_app.models import ApprovalRequest, Week
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .acting import act_on_week
from .forms import ActionForm, AskForm


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def ask(request: WebRequest, number: int) -> HttpResponseBase:
    get_object_or_404(Week, number=number)
    if request.method != "POST":
        return redirect("week", number)
    form = AskForm(request.POST)

    def act(click: dict[str, Any]) -> Change:
        flag = form.cleaned_data["flag"]
        return actions.request_approval(
            number=number, flags=[flag] if flag else None, reason=form.cleaned_data["reason"], **click
        )

    return act_on_week(
        request,
        number,
        form,
        act,
        done="Asked for approval of {}.",
        already="Approval of {} had been asked for already.",
        anchor="approvals",
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def give(request: WebRequest, request_id: int) -> HttpResponseBase:
    return _answer(
        request, request_id, actions.give_approval, done="You approved {}.", already="You had approved {} already."
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def decline(request: WebRequest, request_id: int) -> HttpResponseBase:
    return _answer(
        request, request_id, actions.decline_approval, done="You declined {}.", already="You had declined {} already."
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def withdraw(request: WebRequest, request_id: int) -> HttpResponseBase:
    return _answer(
        request, request_id, actions.withdraw_approval, done="Withdrawn: {}.", already="That was withdrawn already: {}."
    )


def _answer(request: WebRequest, request_id: int, action: Any, *, done: str, already: str) -> HttpResponseBase:
    row = get_object_or_404(ApprovalRequest.objects.select_related("week"), pk=request_id)
    number = row.week.number
    if request.method != "POST":
        return redirect("week", number)
    form = ActionForm(request.POST)
    return act_on_week(
        request,
        number,
        form,
        lambda click: action(request_id=row.pk, reason=form.cleaned_data["reason"], **click),
        done=done,
        already=already,
        anchor="approvals",
    )
