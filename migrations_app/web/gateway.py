"""The page of the gateway: what is asked of it, what it runs, and how to do it by hand."""

from __future__ import annotations

from django.conf import settings
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe

from migrations_app.models import Confirmation, Gateway
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .board import load_board

CONFIRMATIONS = 10  # how many of the last are listed


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def gateway(request: WebRequest) -> HttpResponseBase:
    return _show(request, "gateway.html#panel" if request.htmx else "gateway.html")


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """What refreshes by itself: no form is in it."""
    return _show(request, "gateway.html#live")


def _show(request: WebRequest, template: str) -> HttpResponseBase:
    board = load_board()
    if board is None:
        return render(request, "no_plan.html")
    context = {
        "board": board,
        "gateways": Gateway.objects.order_by("key"),
        "services": [row for week in board.weeks for row in week.services],
        "confirmations": Confirmation.objects.select_related("gateway").order_by("-pk")[:CONFIRMATIONS],
        "gateway_url": settings.GATEWAY_URL,
        "oob": template.endswith("#live"),
    }
    return render(request, template, context)
