"""Ticking and unticking the manual lines of a week's gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions import prerequisites as actions
from migrations_app.actions.change import Change
from migrations_app.actor import Actor
from migrations_app.models import Prerequisite
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .forms import ActionForm, TickForm
from .notices import answer, carry_out, invalid
from .weeks import show_week


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def tick(request: WebRequest, prerequisite_id: int) -> HttpResponseBase:
    form = TickForm(request.POST)
    return _act(
        request,
        prerequisite_id,
        form,
        lambda click: actions.tick(note=form.cleaned_data["note"], **click),
        done="Signed off: {}.",
        already="Somebody had signed this off already: {}.",
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def untick(request: WebRequest, prerequisite_id: int) -> HttpResponseBase:
    form = ActionForm(request.POST)
    return _act(
        request,
        prerequisite_id,
        form,
        lambda click: actions.untick(reason=form.cleaned_data["reason"], **click),
        done="Sign-off withdrawn: {}.",
        already="This was not signed off: {}.",
    )


def _act(
    request: WebRequest,
    prerequisite_id: int,
    form: ActionForm,
    act: Callable[[dict[str, Any]], Change],
    *,
    done: str,
    already: str,
) -> HttpResponseBase:
    """`act` gets what both actions take of a click."""
    row = get_object_or_404(Prerequisite.objects.select_related("week"), pk=prerequisite_id)
    number = row.week.number
    if request.method != "POST":
        return redirect("week", number)
    if form.is_valid():
        click = {
            "prerequisite_id": row.pk,
            "actor": Actor.signed_in(request.user),
            "seen": form.cleaned_data["seen"],
            "request_key": form.cleaned_data["request_key"],
        }
        notice = carry_out(lambda: act(click), done=done, already=already, waits=False)
    else:
        notice = invalid(form)
    return answer(
        request,
        notice,
        page=f"{reverse('week', args=[number])}#line-{row.pk}",
        show=lambda again, said: show_week(again, number, said),
    )
