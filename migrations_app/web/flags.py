"""What a person does to one service's traffic, from the page of its week or its own."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actor import Actor
from migrations_app.gateways.base import SERVICE_WEIGHT
from migrations_app.models import Flag
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .board import load_service
from .enabling import Enabling
from .forms import ActionForm, new_key
from .notices import Notice, answer, carry_out, invalid
from .services import show_service
from .weeks import show_week


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def enable(request: WebRequest, key: str) -> HttpResponseBase:
    """POST enables. GET asks once more on a page of its own; with JavaScript that is a dialog."""
    if request.method != "POST":
        return _ask(request, _find(key))
    form = ActionForm(request.POST)
    if not form.is_valid():
        return _answer(request, form, key, invalid(form))
    said = form.cleaned_data
    notice = carry_out(
        lambda: set_weight(
            key=key,
            weight=SERVICE_WEIGHT,
            actor=Actor.signed_in(request.user),
            reason=said["reason"],
            seen=said["seen"],
            request_key=said["request_key"],
            past_no_return=form.knows,
        ),
        done="{} is on.",
        already="{} was on already.",
    )
    return _answer(request, form, key, notice)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def roll_back(request: WebRequest, key: str) -> HttpResponseBase:
    """One click, no gate, never stale. GET only leads back to the service."""
    if request.method != "POST":
        return redirect("service", _find(key).service.key)
    form = ActionForm(request.POST)
    # A field that makes no sense must not hold up a rollback.
    form.is_valid()
    notice = carry_out(
        lambda: roll_back_flag(
            key=key,
            actor=Actor.signed_in(request.user),
            reason=form.cleaned_data.get("reason", ""),
            request_key=form.cleaned_data.get("request_key"),
        ),
        done="{} is rolled back.",
        already="{} was on the old side already.",
        by_hand=f"manage.py flag rollback {key}",
    )
    return _answer(request, form, key, notice)


def _ask(request: WebRequest, flag: Flag) -> HttpResponseBase:
    found = load_service(flag.service.key)
    if found is None or found[2].flag.is_fully_on:
        return redirect("service", flag.service.key)
    board, week, row = found
    enabling = Enabling.of_service(week, row)
    context = {"board": board, "row": week, "enabling": enabling, "new_key": new_key}
    return render(request, "confirm.html", context)


def _answer(request: WebRequest, form: ActionForm, key: str, notice: Notice) -> HttpResponseBase:
    """The page that the click came from: the week's unless the form says the service's. 404 for no such flag."""
    flag = _find(key)
    if form.data.get("page") == "service":
        service = flag.service.key
        page = reverse("service", args=[service])
        return answer(request, notice, page=page, show=lambda r, n: show_service(r, service, n))
    number = flag.week.number
    return answer(request, notice, page=reverse("week", args=[number]), show=lambda r, n: show_week(r, number, n))


def _find(key: str) -> Flag:
    return get_object_or_404(Flag.objects.select_related("service", "week"), key=key)
