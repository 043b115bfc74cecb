"""The page of one week, and what a person does to a whole week there."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import Actor
from migrations_app.gates.load import done_verdicts
from migrations_app.gates.verdict import LineKind
from migrations_app.models import SignOff, Week
from migrations_app.roles import Permission, who_may

from .access import WebRequest, fresh, requires
from .board import Board, WeekRow, load_board
from .enabling import Enabling
from .forms import ActionForm, new_key
from .notices import Notice, answer, carry_out, invalid


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def week(request: WebRequest, number: int) -> HttpResponseBase:
    return show_week(request, number)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest, number: int) -> HttpResponseBase:
    """The cells that refresh by themselves. No form is among them."""
    board, row = _find(number)
    return render(request, "week.html#live", {"board": board, "row": row, "lines": _lines(row), "oob": True})


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def enable(request: WebRequest, number: int) -> HttpResponseBase:
    """POST enables. GET asks once more on a page of its own; with JavaScript that is a dialog."""
    if request.method != "POST":
        return _ask(request, number)
    form = ActionForm(request.POST)
    if not form.is_valid():
        return answer(request, invalid(form), page=_page(number), show=lambda r, n: show_week(r, number, n))
    said = form.cleaned_data
    notice = carry_out(
        lambda: enable_week(
            number=number,
            actor=Actor.signed_in(request.user),
            reason=said["reason"],
            seen=said["seen"],
            request_key=said["request_key"],
        ),
        done="{} is on.",
        already="{} was on already.",
    )
    return answer(request, notice, page=_page(number), show=lambda r, n: show_week(r, number, n))


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def roll_back(request: WebRequest, number: int) -> HttpResponseBase:
    """One click, no gate, never stale. GET only leads back to the page."""
    if request.method != "POST":
        get_object_or_404(Week, number=number)
        return redirect("week", number)
    form = ActionForm(request.POST)
    # A field that makes no sense must not hold up a rollback.
    form.is_valid()
    notice = carry_out(
        lambda: roll_back_week(
            number=number,
            actor=Actor.signed_in(request.user),
            reason=form.cleaned_data.get("reason", ""),
            request_key=form.cleaned_data.get("request_key"),
        ),
        done="{} is rolled back.",
        already="{} was on the old side already.",
    )
    return answer(request, notice, page=_page(number), show=lambda r, n: show_week(r, number, n))


def show_week(request: HttpRequest, number: int, notice: Notice | None = None) -> HttpResponse:
    """The page of a week, or its panel for htmx, with what came of a click."""
    board, row = _find(number)
    numbers = [week.week.number for week in board.weeks]
    index = numbers.index(number)
    context: dict[str, Any] = {
        "board": board,
        "row": row,
        "lines": _lines(row),
        "done": done_verdicts(weeks=[number])[number],
        "notice": notice,
        "enabling": Enabling.of_week(row),
        "parts": [(service, Enabling.of_service(row, service)) for service in row.services],
        "new_key": new_key,
        "previous": numbers[index - 1] if index else None,
        "next": numbers[index + 1] if index + 1 < len(numbers) else None,
        "who_ticks": who_may(Permission.TICK),
        "who_enables": who_may(Permission.ENABLE),
        "who_rolls_back": who_may(Permission.ROLL_BACK),
    }
    htmx = request.headers.get("HX-Request") == "true"
    return render(request, "week.html#panel" if htmx else "week.html", context)


def _ask(request: WebRequest, number: int) -> HttpResponseBase:
    board, row = _find(number)
    if row.all_on or not row.services:
        return redirect("week", number)
    context = {"board": board, "row": row, "enabling": Enabling.of_week(row), "new_key": new_key}
    return render(request, "confirm.html", context)


def _find(number: int) -> tuple[Board, WeekRow]:
    board = load_board()
    row = board.week(number) if board else None
    if board is None or row is None:
        raise Http404
    return board, row


def _lines(row: WeekRow) -> list[dict[str, Any]]:
    """The gate's lines with the help of their prerequisites and the live sign-offs; two queries."""
    rows = {found.pk: found for found in row.week.prerequisites.all()}
    signed = {
        found.prerequisite_id: found
        for found in SignOff.objects.filter(prerequisite__week=row.week, withdrawn_at__isnull=True)
    }
    return [
        {
            "line": line,
            "id": line.prerequisite or line.key,
            "manual": line.kind == LineKind.MANUAL,
            "health": line.kind == LineKind.HEALTH,
            "help": rows[line.prerequisite].help if line.prerequisite in rows else "",
            "sign_off": signed.get(line.prerequisite) if line.prerequisite else None,
        }
        for line in row.verdict.lines
    ]


def _page(number: int) -> str:
    return reverse("week", args=[number])
