"""Everything back at once: the page that says in numbers what will move, and its one button."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions.everything import roll_back_everything
from migrations_app.actor import Actor
from migrations_app.roles import Permission, who_may

from .access import WebRequest, fresh, requires
from .board import load_board
from .everything_panel import everything_of
from .forms import ActionForm, new_key
from .notices import Notice, answer, carry_out
from .timeline import show_timeline


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def roll_back(request: WebRequest) -> HttpResponseBase:
    """GET asks once more, which is a dialog on the timeline; POST rolls back: no gate, no reason, never stale."""
    if request.method != "POST":
        return _ask(request)
    form = ActionForm(request.POST)
    # A field that makes no sense must not hold up a rollback.
    form.is_valid()
    notice = carry_out(
        lambda: roll_back_everything(
            actor=Actor.signed_in(request.user),
            reason=form.cleaned_data.get("reason", ""),
            request_key=form.cleaned_data.get("request_key"),
        ),
        done="{} is rolled back.",
        already="{} was on the old side already.",
    )
    page = reverse("timeline")
    if request.htmx:
        return answer(request, notice, page=page, show=lambda _again, said: show_timeline(request, said))
    return answer(request, notice, page=page, show=_ask)


def _ask(request: HttpRequest, notice: Notice | None = None) -> HttpResponse:
    board = load_board()
    if board is None:
        return render(request, "no_plan.html")
    context = {
        "board": board,
        "everything": everything_of(board),
        "notice": notice,
        "new_key": new_key,
        "who": who_may(Permission.ROLL_BACK),
    }
    return render(request, "rollback.html", context)
