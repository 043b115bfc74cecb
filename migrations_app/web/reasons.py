"""Saying afterwards why something was rolled back, on the page of its audit event."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from migrations_app.actions.reasons import give_reason
from migrations_app.actor import Actor
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .audit import show_event
from .forms import ActionForm
from .notices import answer, carry_out, invalid


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Permission.VIEW_AUDIT)
@fresh
def give(request: WebRequest, event_id: int) -> HttpResponseBase:
    """GET only leads back to the event."""
    if request.method != "POST":
        return redirect("audit-event", event_id)
    form = ActionForm(request.POST)
    if form.is_valid():
        notice = carry_out(
            lambda: give_reason(
                event=event_id,
                actor=Actor.signed_in(request.user),
                reason=form.cleaned_data["reason"],
                request_key=form.cleaned_data["request_key"],
            ),
            done="Your reason is kept with the rollback.",
            already="Your reason is kept with the rollback.",
            waits=False,
        )
    else:
        notice = invalid(form)
    page = reverse("audit-event", args=[event_id])
    return answer(request, notice, page=page, show=lambda again, said: show_event(again, event_id, said))
