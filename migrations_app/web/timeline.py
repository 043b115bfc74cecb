"""The timeline: what needs you, and every week in order."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe

from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .axis import axis_of
from .board import load_board
from .context import chrome
from .forms import new_key
from .needs import needs_of


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def timeline(request: WebRequest) -> HttpResponseBase:
    return _show(request, "timeline.html#panel" if request.htmx else "timeline.html")


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """The cells that refresh by themselves. No form is among them."""
    return _show(request, "timeline.html#live")


def _show(request: WebRequest, template: str) -> HttpResponseBase:
    board = load_board()
    if board is None:
        return render(request, "no_plan.html")
    context = {
        "board": board,
        "axis": axis_of(board.weeks, board.now, chrome(request)["chrome"].zone),
        "needs": needs_of(request, board),
        "new_key": new_key,
        "oob": template.endswith("#live"),
    }
    return render(request, template, context)
