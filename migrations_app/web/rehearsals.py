"""Rehearsing a rollback, from the page of its week."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods

from migrations_app.actions.rehearsals import rehearse_rollback
from migrations_app.models import Week
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .acting import act_on_week
from .forms import ActionForm


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def rehearse(request: WebRequest, number: int) -> HttpResponseBase:
    """It goes a rollback's whole way, up to the gateway's word, and moves nothing. GET only leads back to the page."""
    get_object_or_404(Week, number=number)
    if request.method != "POST":
        return redirect("week", number)
    form = ActionForm(request.POST)
    return act_on_week(
        request,
        number,
        form,
        lambda click: rehearse_rollback(number=number, reason=form.cleaned_data["reason"], **click),
        done="The rollback of {} is rehearsed; no traffic has moved.",
        already="The rollback of {} was rehearsed already.",
        anchor="gate",
        waits=True,
    )
