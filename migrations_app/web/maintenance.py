"""The maintenance windows: which are on, which come, and how to plan and end one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from migrations_app.actions.maintenance import end_window, plan_window
from migrations_app.actor import Actor
from migrations_app.durations import in_words
from migrations_app.models import MaintenanceWindow, Service
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.roles import Permission, who_may

from .access import WebRequest, fresh, requires
from .context import Chrome, chrome
from .forms import ActionForm, MaintenanceForm, new_key
from .notices import Notice, answer, carry_out, invalid

OVER = 20  # how many that are over are listed
NAMED = 6  # targets of a window that are named without being asked for


@dataclass(frozen=True, slots=True)
class WindowRow:
    """`names` are the targets in words, in the plan's order."""

    row: MaintenanceWindow
    names: tuple[str, ...]
    now: datetime

    @property
    def on(self) -> bool:
        return self.row.covers(self.now)

    @property
    def left(self) -> str:
        """How long it is still on, in words."""
        return in_words(self.row.until - self.now)

    @property
    def named(self) -> str:
        return ", ".join(self.names[:NAMED])

    @property
    def others(self) -> tuple[str, ...]:
        return self.names[NAMED:]


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def maintenance(request: WebRequest) -> HttpResponseBase:
    """GET lists; POST plans."""
    if request.method != "POST":
        return _show(request)
    form = MaintenanceForm(request.POST, zone=_chrome(request).zone.key)
    if not form.is_valid():
        return _answer(request, invalid(form), form)
    said = form.cleaned_data
    notice = carry_out(
        lambda: plan_window(
            title=said["title"],
            targets=list(_names(request)) if said["everything"] else said["targets"],
            starts_at=said["starts_at"],
            ends_at=said["ends_at"],
            actor=Actor.signed_in(request.user),
            reason=said["reason"],
            request_key=said["request_key"],
        ),
        done="Maintenance planned: {}.",
        already="That maintenance was planned already: {}.",
        waits=False,
    )
    return _answer(request, notice, form)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def end(request: WebRequest, window_id: int) -> HttpResponseBase:
    """End a window now, or cancel it before it begins."""
    row = get_object_or_404(MaintenanceWindow, pk=window_id)
    if request.method != "POST":
        return redirect("maintenance")
    form = ActionForm(request.POST)
    if not form.is_valid():
        return _answer(request, invalid(form))
    notice = carry_out(
        lambda: end_window(
            window_id=window_id,
            actor=Actor.signed_in(request.user),
            reason=form.cleaned_data["reason"],
            request_key=form.cleaned_data["request_key"],
        ),
        done="Maintenance cancelled: {}." if timezone.now() <= row.starts_at else "Maintenance ended: {}.",
        already="That maintenance was over already: {}.",
        waits=False,
    )
    return _answer(request, notice)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """Whether the page shows what is so now: it is shown anew when somebody plans or ends one, or when time does."""
    now = timezone.now()
    return render(request, "maintenance.html#live", {"token": _token(*_windows(now), now)})


def _answer(request: WebRequest, notice: Notice, form: MaintenanceForm | None = None) -> HttpResponseBase:
    return answer(request, notice, page=reverse("maintenance"), show=lambda again, said: _show(again, said, form))


def _show(request: HttpRequest, notice: Notice | None = None, form: MaintenanceForm | None = None) -> HttpResponse:
    """The page, or its panel for htmx. After a refusal the form comes back with what was typed."""
    now, names = timezone.now(), _names(request)
    standing, over = _windows(now)
    rows = [_row(row, names, now) for row in standing]
    refused = form is not None and notice is not None and notice.loud
    typed = request.POST if refused else QueryDict()
    context: dict[str, Any] = {
        "groups": [("On now", [one for one in rows if one.on]), ("Coming", [one for one in rows if not one.on])],
        "over": [_row(row, names, now) for row in over],
        "token": _token(standing, over, now),
        "names": names,
        "typed": typed,
        "typed_targets": typed.getlist("targets"),
        "zone": _chrome(request).zone.key,
        "notice": notice,
        "new_key": new_key,
        "who_plans": who_may(Permission.MAINTAIN),
    }
    htmx = request.headers.get("HX-Request") == "true"
    return render(request, "maintenance.html#panel" if htmx else "maintenance.html", context)


def _windows(now: datetime) -> tuple[list[MaintenanceWindow], list[MaintenanceWindow]]:
    """Those that are on or to come, the next one first; and some of those that are over, the last one first."""
    standing = Q(ended_at__isnull=True, ends_at__gt=now)
    over = MaintenanceWindow.objects.exclude(standing).order_by("-ends_at", "-pk")[:OVER]
    return list(MaintenanceWindow.objects.filter(standing)), list(over)


def _token(standing: Sequence[MaintenanceWindow], over: Sequence[MaintenanceWindow], now: datetime) -> str:
    """Differs when another window is planned, ended, on or over."""
    said = [f"{row.pk}{'on' if row.covers(now) else ''}" for row in standing] + [f"{row.pk}over" for row in over]
    return hashlib.sha256(" ".join(said).encode()).hexdigest()[:16]


def _names(request: HttpRequest) -> dict[str, str]:
    """Target -> what it is called, in the plan's order; empty without a plan."""
    plan = _chrome(request).plan
    if plan is None:
        return {}
    return {MONOLITH_TARGET: plan.monolith_title} | dict(Service.objects.values_list("key", "title"))


def _row(row: MaintenanceWindow, names: Mapping[str, str], now: datetime) -> WindowRow:
    if names and names.keys() <= set(row.targets):
        return WindowRow(row, ("Everything",), now)
    known = [words for target, words in names.items() if target in row.targets]
    gone = [target for target in row.targets if target not in names]
    return WindowRow(row, (*known, *gone), now)


def _chrome(request: HttpRequest) -> Chrome:
    found: Chrome = chrome(request)["chrome"]
    return found
