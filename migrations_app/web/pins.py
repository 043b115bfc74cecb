"""Lifting pins, from the page of the gateway."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions.pins import lift_pins
from migrations_app.actor import Actor
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .forms import PinsForm
from .gateway import show_gateway
from .notices import answer, carry_out, invalid


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def lift(request: WebRequest) -> HttpResponseBase:
    """POST lifts the pins of the flags that it names. GET only leads back."""
    if request.method != "POST":
        return redirect("gateway")
    form = PinsForm(request.POST)
    if form.is_valid():
        notice = carry_out(
            lambda: lift_pins(
                flags=form.cleaned_data["flags"],
                actor=Actor.signed_in(request.user),
                reason=form.cleaned_data["reason"],
            ),
            done="Lifted: {}. Nothing has moved; what is wanted on the new side has to be enabled.",
            already="{} was not pinned.",
            waits=False,
        )
    else:
        notice = invalid(form)
    return answer(request, notice, page=reverse("gateway"), show=show_gateway)
