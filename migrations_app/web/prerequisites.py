"""Ticking and unticking the manual lines of a week, and running the automatic ones now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions import prerequisites as actions
from migrations_app.actions.change import Change
from migrations_app.actions.checks import check_now
from migrations_app.actions.evidence import UploadedEvidence
from migrations_app.actor import Actor
from migrations_app.choices import CheckState
from migrations_app.errors import ActionError
from migrations_app.models import Prerequisite
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .acting import act_on_week
from .forms import ActionForm, TickForm
from .notices import Notice, answer, declined
from .weeks import show_week


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def tick(request: WebRequest, prerequisite_id: int) -> HttpResponseBase:
    form = TickForm(request.POST, request.FILES)

    def act(click: dict[str, Any]) -> Change:
        said = form.cleaned_data
        file = said["evidence"]
        evidence = UploadedEvidence(file.name, file.read()) if file else None
        return actions.tick(note=said["note"], link=said["link"], evidence=evidence, **click)

    return _act(
        request,
        prerequisite_id,
        form,
        act,
        done="Signed off: {}.",
        already="Somebody had signed this off already: {}.",
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def untick(request: WebRequest, prerequisite_id: int) -> HttpResponseBase:
    form = ActionForm(request.POST)
    return _act(
        request,
        prerequisite_id,
        form,
        lambda click: actions.untick(reason=form.cleaned_data["reason"], **click),
        done="Sign-off withdrawn: {}.",
        already="This was not signed off: {}.",
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_PLAN)
@fresh
def check(request: WebRequest, prerequisite_id: int) -> HttpResponseBase:
    """Run an automatic check now. What it finds is stored, and no click of anybody is spent."""
    row = _find(prerequisite_id)
    number = row.week.number
    if request.method != "POST":
        return redirect("week", number)
    return answer(
        request,
        _checked(request, row),
        page=_page(row),
        show=lambda again, said: show_week(again, number, said),
    )


def _checked(request: WebRequest, row: Prerequisite) -> Notice:
    try:
        found = check_now(prerequisite_id=row.pk, actor=Actor.signed_in(request.user))
    except ActionError as refusal:
        return declined(refusal)
    says = {CheckState.HELD: "holds", CheckState.NOT_HELD: "does not hold"}.get(CheckState(found.state), "is not known")
    return Notice(f"Checked: “{row.title}” {says}.", f"{found.value[:1].upper()}{found.value[1:]}.")


def _act(
    request: WebRequest,
    prerequisite_id: int,
    form: ActionForm,
    act: Callable[[dict[str, Any]], Change],
    *,
    done: str,
    already: str,
) -> HttpResponseBase:
    """`act` gets what both actions take of a click."""
    row = _find(prerequisite_id)
    number = row.week.number
    if request.method != "POST":
        return redirect("week", number)
    return act_on_week(
        request,
        number,
        form,
        lambda click: act({"prerequisite_id": row.pk, **click}),
        done=done,
        already=already,
        anchor=f"line-{row.pk}",
    )


def _find(prerequisite_id: int) -> Prerequisite:
    return get_object_or_404(Prerequisite.objects.select_related("week"), pk=prerequisite_id)


def _page(row: Prerequisite) -> str:
    return f"{reverse('week', args=[row.week.number])}#line-{row.pk}"
