"""The timeline: what needs you, and every week in order."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from migrations_app.choices import WeekStatus
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .axis import axis_of
from .board import Board
from .board_page import show_board
from .context import chrome
from .everything_panel import everything_of
from .forms import new_key
from .needs import needs_of, token_of
from .notices import Notice


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def timeline(request: WebRequest) -> HttpResponseBase:
    return show_timeline(request)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """The cells that refresh by themselves. No form is among them."""
    return show_board(request, "timeline.html", partial(_details, request), live=True)


def show_timeline(request: WebRequest, notice: Notice | None = None) -> HttpResponse:
    """The page, or its panel for htmx, with what came of a click."""
    return show_board(request, "timeline.html", lambda board: _details(request, board) | {"notice": notice})


def _details(request: WebRequest, board: Board) -> dict[str, Any]:
    current = board.current
    needs = needs_of(request, board)
    soaks = current is not None and current.week.status == WeekStatus.SOAKING
    return {
        "done": current.done_verdict if current and soaks else None,
        "axis": axis_of(board.weeks, board.now, chrome(request)["chrome"].zone),
        "everything": everything_of(board),
        "needs": needs,
        "needs_token": token_of(needs),
        "new_key": new_key,
    }
