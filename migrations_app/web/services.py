"""The page of one service: where its traffic goes, what the gateway says, and the last polls."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from migrations_app.models import Flag
from migrations_app.observe.lately import lately
from migrations_app.roles import Permission, who_may

from .access import WebRequest, fresh, requires
from .board import load_service
from .context import chrome
from .enabling import Enabling
from .forms import new_key
from .notices import Notice
from .past import past_of
from .rollout_panel import panel_of


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def service(request: WebRequest, key: str) -> HttpResponseBase:
    return show_service(request, key)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest, key: str) -> HttpResponseBase:
    """What refreshes by itself: no form is in it."""
    return render(request, "service.html#live", _context(request, key) | {"oob": True})


def show_service(request: HttpRequest, key: str, notice: Notice | None = None) -> HttpResponse:
    """The page of a service, or its panel for htmx, with what came of a click."""
    context = _context(request, key)
    board, row, week = context["board"], context["service"], context["row"].week
    context |= {
        "notice": notice,
        "new_key": new_key,
        "who_enables": who_may(Permission.ENABLE),
        "who_rolls_back": who_may(Permission.ROLL_BACK),
        **_past(request, row.flag, week.number, ZoneInfo(board.plan.timezone), board.now),
    }
    htmx = request.headers.get("HX-Request") == "true"
    return render(request, "service.html#panel" if htmx else "service.html", context)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def past(request: WebRequest, key: str) -> HttpResponseBase:
    """The part of the page that tells of the past. It asks for nothing else: each page asks for it every minute."""
    flag = get_object_or_404(
        Flag.objects.select_related("service", "week__plan").defer("week__plan__document"), service__key=key
    )
    zone = ZoneInfo(flag.week.plan.timezone)
    shown = _past(request, flag, flag.week.number, zone, timezone.now())
    return render(request, "service.html#past", {"service": flag, **shown})


def _past(request: HttpRequest, flag: Flag, week: int, zone: ZoneInfo, now: datetime) -> dict[str, Any]:
    found = lately(flag.service.key, now)
    chosen = request.GET.get("range", "")
    return {"past": past_of(flag, week, chosen, zone=zone, now=now, lately=found), "lately": found}


def _context(request: HttpRequest, key: str) -> dict[str, Any]:
    found = load_service(key, chrome(request)["chrome"].gateways)
    if found is None:
        raise Http404
    board, week, row = found
    return {
        "board": board,
        "row": week,
        "service": row,
        "enabling": Enabling.of_service(week, row),
        "rollout": panel_of(row.flag, board.plan, board.now),
    }
