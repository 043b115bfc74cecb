"""Ticking and unticking the manual lines of a week's gate."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions import prerequisites as actions
from migrations_app.actor import Actor
from migrations_app.models import Prerequisite
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .forms import ActionForm, TickForm
from .notices import Notice, answer, carry_out, invalid
from .weeks import show_week


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def tick(request: WebRequest, prerequisite_id: int) -> HttpResponseBase:
    row = _find(prerequisite_id)
    if request.method != "POST":
        return redirect("week", row.week.number)
    form = TickForm(request.POST)
    if not form.is_valid():
        return _answer(request, row, invalid(form))
    said = form.cleaned_data
    notice = carry_out(
        lambda: actions.tick(
            prerequisite_id=row.pk,
            actor=Actor.signed_in(request.user),
            note=said["note"],
            seen=said["seen"],
            request_key=said["request_key"],
        ),
        done=f"Signed off: {row.title}.",
        already=f"Somebody had signed this off already: {row.title}.",
        waits=False,
    )
    return _answer(request, row, notice)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def untick(request: WebRequest, prerequisite_id: int) -> HttpResponseBase:
    row = _find(prerequisite_id)
    if request.method != "POST":
        return redirect("week", row.week.number)
    form = ActionForm(request.POST)
    if not form.is_valid():
        return _answer(request, row, invalid(form))
    said = form.cleaned_data
    notice = carry_out(
        lambda: actions.untick(
            prerequisite_id=row.pk,
            actor=Actor.signed_in(request.user),
            reason=said["reason"],
            seen=said["seen"],
            request_key=said["request_key"],
        ),
        done=f"Sign-off withdrawn: {row.title}.",
        already=f"This was not signed off: {row.title}.",
        waits=False,
    )
    return _answer(request, row, notice)


def _answer(request: WebRequest, row: Prerequisite, notice: Notice) -> HttpResponseBase:
    number = row.week.number
    return answer(
        request,
        notice,
        page=f"{reverse('week', args=[number])}#line-{row.pk}",
        show=lambda again, said: show_week(again, number, said),
    )


def _find(prerequisite_id: int) -> Prerequisite:
    return get_object_or_404(Prerequisite.objects.select_related("week"), pk=prerequisite_id)
