"""What the pages that show the whole plan have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render

from .access import WebRequest
from .board import Board, load_board
from .context import chrome


def show_board(
    request: WebRequest, template: str, details: Callable[[Board], dict[str, Any]], *, live: bool = False
) -> HttpResponse:
    """The page with the board and what `details` adds; its panel for htmx, with `live` what refreshes by itself."""
    board = load_board(chrome(request)["chrome"].gateways)
    if board is None:
        return render(request, "no_plan.html")
    part = "#live" if live else "#panel" if request.htmx else ""
    return render(request, template + part, {"board": board, "oob": live} | details(board))
