"""A click on the page of a week: one action, its notice, and the page as it is then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.http.response import HttpResponseBase
from django.urls import reverse

from migrations_app.actions.change import Change
from migrations_app.actor import Actor

from .access import WebRequest
from .notices import answer, carry_out, invalid
from .weeks import show_week


def act_on_week(
    request: WebRequest,
    number: int,
    form: forms.Form,
    act: Callable[[dict[str, Any]], Change],
    *,
    done: str,
    already: str,
    refused: str = "Not enabled",
    anchor: str = "",
    waits: bool = False,
) -> HttpResponseBase:
    """`act` gets what every action takes of a click. `anchor` is where a plain form is led back to."""
    if form.is_valid():
        click = {
            "actor": Actor.signed_in(request.user),
            "seen": form.cleaned_data["seen"],
            "request_key": form.cleaned_data["request_key"],
        }
        notice = carry_out(lambda: act(click), done=done, already=already, refused=refused, waits=waits)
    else:
        notice = invalid(form)
    page = reverse("week", args=[number]) + (f"#{anchor}" if anchor else "")
    return answer(request, notice, page=page, show=lambda again, said: show_week(again, number, said))
