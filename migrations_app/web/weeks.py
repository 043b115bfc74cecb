"""The page of one week, and what a person does to a whole week there: enable or start, roll back, call done."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from migrations_app.actions.dependents import resting_on, reverse_order, weeks_in_words
from migrations_app.actions.evidence import KINDS, MOST_BYTES
from migrations_app.actions.weeks import enable_week, finish_week, roll_back_week
from migrations_app.actor import Actor
from migrations_app.choices import Phase, WeekStatus
from migrations_app.gates.verdict import LineKind
from migrations_app.models import Week
from migrations_app.roles import Permission, who_may

from .access import WebRequest, fresh, requires
from .approval_panel import approval_panel
from .board import Board, WeekRow, load_board
from .downtime import by_service, spans_of
from .enabling import Enabling
from .forms import ActionForm, new_key
from .gate import gate_view, rows_of
from .notices import Notice, answer, carry_out, invalid
from .trigger_rows import rows_of_week


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def week(request: WebRequest, number: int) -> HttpResponseBase:
    return show_week(request, number)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest, number: int) -> HttpResponseBase:
    """The cells that refresh by themselves. No form is among them.

    GET parameter `lines`: the token of the page. When it is not today's, the page may have other lines: it is told so,
    and gets no cells of lines.
    """
    board, row = find_week_row(number)
    gates = _gates(board, row)
    if request.GET.get("lines", gates["token"]) != gates["token"]:
        gates |= {"gate": None, "criteria": []}
    return render(request, "week.html#live", gates | {"oob": True})


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
    moves = get_object_or_404(Week, number=number).moves_traffic
    notice = carry_out(
        lambda: enable_week(
            number=number,
            actor=Actor.signed_in(request.user),
            reason=said["reason"],
            seen=said["seen"],
            request_key=said["request_key"],
            past_no_return=form.knows,
        ),
        done="{} is on." if moves else "{} has begun.",
        already="{} was on already." if moves else "{} had begun already.",
        refused="Not enabled" if moves else "Not started",
        waits=moves,
    )
    return answer(request, notice, page=_page(number), show=lambda r, n: show_week(r, number, n))


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def finish(request: WebRequest, number: int) -> HttpResponseBase:
    """Call it done. GET only leads back to the page."""
    get_object_or_404(Week, number=number)
    if request.method != "POST":
        return redirect("week", number)
    form = ActionForm(request.POST)
    if not form.is_valid():
        return answer(request, invalid(form), page=_page(number), show=lambda r, n: show_week(r, number, n))
    said = form.cleaned_data
    notice = carry_out(
        lambda: finish_week(
            number=number,
            actor=Actor.signed_in(request.user),
            reason=said["reason"],
            seen=said["seen"],
            request_key=said["request_key"],
        ),
        done="{} is done.",
        already="{} was done already.",
        refused="Not called done",
        waits=False,
    )
    return answer(request, notice, page=f"{_page(number)}#done", show=lambda r, n: show_week(r, number, n))


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
            with_later=form.cleaned_data.get("with_later", False),
            request_key=form.cleaned_data.get("request_key"),
        ),
        done="{} is rolled back.",
        already="{} was on the old side already.",
        by_hand=f"manage.py week rollback {number}",
    )
    return answer(request, notice, page=_page(number), show=lambda r, n: show_week(r, number, n))


def show_week(request: HttpRequest, number: int, notice: Notice | None = None) -> HttpResponse:
    """The page of a week, or its panel for htmx, with what came of a click."""
    board, row = find_week_row(number)
    numbers = [week.week.number for week in board.weeks]
    index = numbers.index(number)
    panel = approval_panel(Actor.signed_in(request.user), board, row)
    context: dict[str, Any] = {
        **_gates(board, row),
        "notice": notice,
        "enabling": Enabling.of_week(row),
        "parts": [(service, Enabling.of_service(row, service)) for service in row.services],
        "approvals": panel,
        "new_key": new_key,
        "previous": numbers[index - 1] if index else None,
        "next": numbers[index + 1] if index + 1 < len(numbers) else None,
        "who": {permission.name.lower(): who_may(permission) for permission in Permission},
        "evidence_limit": MOST_BYTES,
        "evidence_kinds": KINDS,
    }
    htmx = request.headers.get("HX-Request") == "true"
    return render(request, "week.html#panel" if htmx else "week.html", context)


def find_week_row(number: int) -> tuple[Board, WeekRow]:
    """404 for a week that is not in the plan."""
    board = load_board()
    row = board.week(number) if board else None
    if board is None or row is None:
        raise Http404
    return board, row


def _gates(board: Board, row: WeekRow) -> dict[str, Any]:
    """What the page and its live cells have in common: the gate of the start and that of being done."""
    now, titles = board.now, {one.row.service: one.row.title for one in row.services}
    rows, sign_offs = rows_of(row.week)
    done = gate_view(row.done_verdict, Phase.DONE, rows=rows, sign_offs=sign_offs, now=now)
    later = _later(board, row.week.number)
    # Until all is on, what it is done when is read, not ticked. The soak has a place of its own.
    criteria = done.lines if row.week.status == WeekStatus.SOAKING else ()
    return {
        "board": board,
        "row": row,
        "gate": gate_view(row.verdict, Phase.START, rows=rows, sign_offs=sign_offs, now=now),
        "done": done,
        "token": f"{row.token}.{done.words}.{'-'.join(map(str, later))}",
        "later": later,
        "later_words": weeks_in_words(later) if later else "",
        "with_later_words": weeks_in_words([*later, *([row.week.number] if row.any_on else [])]) if later else "",
        "triggers": rows_of_week(row, now),
        "outages": spans_of(row.downtime, titles),
        "down_by_service": by_service(row.downtime, titles),
        "criteria": [item for item in criteria if item.line.kind != LineKind.SOAK],
    }


def _later(board: Board, number: int) -> list[int]:
    """Numbers of the weeks that rest on this one and are on, in the order in which they go back."""
    before = board.gates.seldom.after
    resting = resting_on(number, before)
    return reverse_order([row.week.number for row in board.weeks if row.any_on and row.week.number in resting], before)


def _ask(request: WebRequest, number: int) -> HttpResponseBase:
    board, row = find_week_row(number)
    if not row.startable and (row.all_on or not row.services):
        return redirect("week", number)
    context = {"board": board, "row": row, "enabling": Enabling.of_week(row), "new_key": new_key}
    return render(request, "confirm.html", context)


def _page(number: int) -> str:
    return reverse("week", args=[number])
