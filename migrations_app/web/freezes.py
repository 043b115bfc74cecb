"""The freezes: which are on, which come, and how to add and lift one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from migrations_app.actions.freezes import add_freeze, lift_freeze
from migrations_app.actor import Actor
from migrations_app.durations import in_words
from migrations_app.gates.freezes import span_at
from migrations_app.models import Freeze
from migrations_app.roles import Permission, who_may

from .access import WebRequest, fresh, requires
from .context import chrome
from .forms import ActionForm, FreezeForm, new_key
from .notices import Notice, answer, carry_out, invalid

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OVER = 20  # how many that are over are listed


@dataclass(frozen=True, slots=True)
class FreezeRow:
    """`span` is from when to when it is on, None while it is not."""

    row: Freeze
    span: tuple[datetime, datetime] | None
    now: datetime

    @property
    def recurring(self) -> bool:
        return bool(self.row.weekdays)

    @property
    def rule(self) -> str:
        """When a recurring one is on: "Fri, Sat 18:00-06:00 next day, Europe/Berlin"."""
        row = self.row
        if row.from_time is None or row.until_time is None:
            return ""
        days = (
            "every day" if row.weekdays == "1234567" else ", ".join(WEEKDAYS[int(day) - 1][:3] for day in row.weekdays)
        )
        next_day = "" if row.until_time > row.from_time else " the next day"
        return f"{days}, {row.from_time:%H:%M} to {row.until_time:%H:%M}{next_day}, {row.timezone}"

    @property
    def left(self) -> str:
        """How long it is still on, in words."""
        return in_words(self.span[1] - self.now) if self.span else ""


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def freezes(request: WebRequest) -> HttpResponseBase:
    """GET lists; POST adds."""
    if request.method != "POST":
        return _show(request)
    form = FreezeForm(request.POST, zone=_zone(request))
    if not form.is_valid():
        return _answer(request, invalid(form), form)
    said = form.cleaned_data
    notice = carry_out(
        lambda: add_freeze(
            title=said["title"],
            actor=Actor.signed_in(request.user),
            starts_at=said["starts_at"],
            ends_at=said["ends_at"],
            weekdays=said["weekdays"],
            from_time=said["from_time"],
            until_time=said["until_time"],
            timezone=said["timezone"] or _zone(request),
            reason=said["reason"],
            request_key=said["request_key"],
        ),
        done="Freeze added: {}.",
        already="That freeze was there already: {}.",
        waits=False,
    )
    return _answer(request, notice, form)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def lift(request: WebRequest, freeze_id: int) -> HttpResponseBase:
    get_object_or_404(Freeze, pk=freeze_id)
    if request.method != "POST":
        return redirect("freezes")
    form = ActionForm(request.POST)
    if not form.is_valid():
        return _answer(request, invalid(form))
    notice = carry_out(
        lambda: lift_freeze(
            freeze_id=freeze_id,
            actor=Actor.signed_in(request.user),
            reason=form.cleaned_data["reason"],
            request_key=form.cleaned_data["request_key"],
        ),
        done="Freeze lifted: {}.",
        already="That freeze was over already: {}.",
        waits=False,
    )
    return _answer(request, notice)


def _answer(request: WebRequest, notice: Notice, form: FreezeForm | None = None) -> HttpResponseBase:
    return answer(request, notice, page=reverse("freezes"), show=lambda again, said: _show(again, said, form))


def _show(request: HttpRequest, notice: Notice | None = None, form: FreezeForm | None = None) -> HttpResponse:
    """The page, or its panel for htmx. After a refusal the form comes back with what was typed."""
    now = timezone.now()
    standing = [FreezeRow(row, span_at(row, now), now) for row in _standing(now)]
    over = Freeze.objects.filter(Q(lifted_at__isnull=False) | Q(ends_at__lte=now)).order_by("-added_at")[:OVER]
    refused = form is not None and notice is not None and notice.loud
    typed = request.POST if refused else QueryDict()
    context: dict[str, Any] = {
        "groups": [
            ("On now", [one for one in standing if one.span]),
            ("Coming", [one for one in standing if not one.span and not one.recurring]),
            ("Recurring", [one for one in standing if not one.span and one.recurring]),
        ],
        "over": [FreezeRow(row, None, now) for row in over],
        "weekdays": [(str(number), name) for number, name in enumerate(WEEKDAYS, 1)],
        "typed": typed,
        "typed_days": typed.getlist("weekdays"),
        "zone": _zone(request),
        "notice": notice,
        "new_key": new_key,
        "who_freezes": who_may(Permission.FREEZE),
    }
    htmx = request.headers.get("HX-Request") == "true"
    return render(request, "freezes.html#panel" if htmx else "freezes.html", context)


def _standing(now: datetime) -> list[Freeze]:
    return list(Freeze.objects.filter(lifted_at__isnull=True).exclude(ends_at__lte=now).order_by("starts_at", "pk"))


def _zone(request: HttpRequest) -> str:
    zone: ZoneInfo = chrome(request)["chrome"].zone
    return zone.key
