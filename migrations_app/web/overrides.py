"""Breaking the glass: the page that asks which lines of a closed gate are to block nothing, for how long, and why."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from migrations_app.actions import overrides as actions
from migrations_app.models import Week
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .acting import act_on_week
from .forms import ActionForm, OverrideForm, new_key
from .gate import anchor_of, state_of
from .weeks import find_week_row

MINUTES = 15  # what the page proposes


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def override(request: WebRequest, number: int) -> HttpResponseBase:
    """GET asks, on a page of its own; POST breaks the glass. Neither moves any traffic."""
    if request.method != "POST":
        return _ask(request, number)
    get_object_or_404(Week, number=number)
    form = OverrideForm(request.POST)
    return act_on_week(
        request,
        number,
        form,
        lambda click: actions.override_gate(
            number=number,
            lines=form.cleaned_data["lines"],
            minutes=form.cleaned_data["minutes"],
            reason=form.cleaned_data["reason"],
            **click,
        ),
        done="The gate of {} is overridden. No traffic has moved.",
        already="The gate of {} was overridden already.",
        anchor="gate",
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def end(request: WebRequest, number: int) -> HttpResponseBase:
    get_object_or_404(Week, number=number)
    if request.method != "POST":
        return redirect("week", number)
    form = ActionForm(request.POST)
    return act_on_week(
        request,
        number,
        form,
        lambda click: actions.end_override(
            number=number,
            actor=click["actor"],
            reason=form.cleaned_data["reason"],
            request_key=click["request_key"],
        ),
        done="The override of {} has ended.",
        already="There was no override of {} any more.",
        anchor="gate",
    )


@requires(Permission.OVERRIDE)
def _ask(request: WebRequest, number: int) -> HttpResponseBase:
    board, row = find_week_row(number)
    lines = [line for line in row.verdict.lines if not line.held]
    if not lines:
        return redirect("week", number)
    context = {
        "board": board,
        "row": row,
        "lines": [(line, anchor_of(line), *state_of(line)) for line in lines],
        "longest": actions.LONGEST,
        "minutes": MINUTES,
        "new_key": new_key,
    }
    return render(request, "override.html", context)
