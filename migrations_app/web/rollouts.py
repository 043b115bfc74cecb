"""A rollout from the page of its service, or those of a week from its page: start, pause, resume, back, to a step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions.change import Change
from migrations_app.actions.rollouts import pause_rollout, resume_rollout, start_rollout, step_back, step_to
from migrations_app.actions.week_rollouts import pause_week_rollout, resume_week_rollout, start_week_rollout
from migrations_app.actor import Actor
from migrations_app.models import Flag, Week
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .acting import act_on_week
from .forms import ActionForm, RolloutForm, StepForm
from .notices import answer, carry_out, invalid
from .services import show_service

_methods = require_http_methods(["GET", "HEAD", "POST"])


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def start(request: WebRequest, key: str) -> HttpResponseBase:
    form = ActionForm(request.POST)
    start = partial(start_rollout, past_no_return=form.knows)
    return _act(request, key, form, start, done="The rollout of {} is under way.")


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def pause(request: WebRequest, key: str) -> HttpResponseBase:
    form = RolloutForm(request.POST)
    return _act(request, key, form, pause_rollout, ("at",), done="The rollout of {} is paused.", waits=False)


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def resume(request: WebRequest, key: str) -> HttpResponseBase:
    form = ActionForm(request.POST)
    return _act(request, key, form, resume_rollout, done="The rollout of {} goes on.", waits=False)


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def back(request: WebRequest, key: str) -> HttpResponseBase:
    form = RolloutForm(request.POST)
    return _act(request, key, form, step_back, ("at",), done="{} is one step back, and stays there.")


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def step(request: WebRequest, key: str) -> HttpResponseBase:
    form = StepForm(request.POST)
    return _act(request, key, form, step_to, ("at", "position"), done="{} has taken the step.")


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def start_week(request: WebRequest, number: int) -> HttpResponseBase:
    """The rollouts of a whole week. Here and below a GET only leads back to its page."""
    form = ActionForm(request.POST)
    start = partial(start_week_rollout, past_no_return=form.knows)
    return _act_on_week(request, number, form, start, done="The rollout of {} is under way.")


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def pause_week(request: WebRequest, number: int) -> HttpResponseBase:
    form = ActionForm(request.POST)
    return _act_on_week(request, number, form, pause_week_rollout, done="The rollout of {} is paused.", waits=False)


@_methods
@requires(Permission.VIEW_PLAN)
@fresh
def resume_week(request: WebRequest, number: int) -> HttpResponseBase:
    form = ActionForm(request.POST)
    return _act_on_week(request, number, form, resume_week_rollout, done="The rollout of {} goes on.", waits=False)


def _act_on_week(
    request: WebRequest, number: int, form: ActionForm, act: Callable[..., Change], *, done: str, waits: bool = True
) -> HttpResponseBase:
    get_object_or_404(Week, number=number)
    if request.method != "POST":
        return redirect("week", number)
    return act_on_week(
        request,
        number,
        form,
        lambda click: act(number=number, reason=form.cleaned_data["reason"], **click),
        done=done,
        already="{}: nothing had to change.",
        refused="No step was taken",
        anchor="in-steps",
        waits=waits,
    )


def _act(
    request: WebRequest,
    key: str,
    form: ActionForm,
    act: Callable[..., Change],
    more: tuple[str, ...] = (),
    *,
    done: str,
    waits: bool = True,
) -> HttpResponseBase:
    """`more` are the fields that the action takes beside those of every click. GET only leads back to the service."""
    service = get_object_or_404(Flag.objects.select_related("service"), key=key).service.key
    if request.method != "POST":
        return redirect("service", service)
    if form.is_valid():
        click: dict[str, Any] = {name: form.cleaned_data[name] for name in ("reason", "seen", "request_key", *more)}
        actor = Actor.signed_in(request.user)
        notice = carry_out(
            lambda: act(key=key, actor=actor, **click),
            done=done,
            already="{}: nothing had to change.",
            refused="No step was taken",
            waits=waits,
        )
    else:
        notice = invalid(form)
    page = reverse("service", args=[service]) + "#rollout"
    return answer(request, notice, page=page, show=lambda again, told: show_service(again, service, told))
