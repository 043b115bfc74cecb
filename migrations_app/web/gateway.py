"""The page of the gateway: what is asked of it, what it runs, and how to do it by hand."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from migrations_app.models import Confirmation, Gateway
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .board import Board
from .board_page import show_board

CONFIRMATIONS = 10  # how many of the last are listed


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def gateway(request: WebRequest) -> HttpResponseBase:
    return show_board(request, "gateway.html", _details)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """What refreshes by itself: no form is in it."""
    return show_board(request, "gateway.html", _details, live=True)


def _details(board: Board) -> dict[str, Any]:
    return {
        "gateways": Gateway.objects.order_by("key"),
        "services": [row for week in board.weeks for row in week.services],
        "confirmations": Confirmation.objects.select_related("gateway").order_by("-pk")[:CONFIRMATIONS],
        "gateway_url": settings.GATEWAY_URL,
    }
