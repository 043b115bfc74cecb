"""The audit log: filtered by the address, a page at a time, newest first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe

from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Week
from migrations_app.models.audit import check_chain
from migrations_app.models.gateways import verified_at
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires

PAGE = 50  # events
SHORT = 4  # changed values that are shown without being asked for

KIND_WORDS = {
    AuditKind.PLAN_LOADED: "Plan loaded",
    AuditKind.WEEK_ENABLED: "Week enabled",
    AuditKind.WEEK_ROLLED_BACK: "Week rolled back",
    AuditKind.FLAG_ENABLED: "Service enabled",
    AuditKind.FLAG_WEIGHT_SET: "Weight set",
    AuditKind.FLAG_ROLLED_BACK: "Service rolled back",
    AuditKind.ENABLE_REFUSED: "Enable refused",
    AuditKind.PREREQUISITE_TICKED: "Signed off",
    AuditKind.PREREQUISITE_UNTICKED: "Sign-off withdrawn",
    AuditKind.DRIFT_CORRECTED: "Drift put back",
    AuditKind.ACCOUNT_ADDED: "Account added",
    AuditKind.ACCOUNT_ROLE_SET: "Role given",
    AuditKind.ACCOUNT_DEACTIVATED: "Account deactivated",
    AuditKind.SIGNED_IN: "Signed in",
    AuditKind.SIGN_IN_FAILED: "Sign-in failed",
}


class Filter(forms.Form):
    """What of the log is shown. All of it is optional and lives in the address."""

    kind = forms.ChoiceField(required=False)
    actor = forms.CharField(required=False, max_length=150)
    week = forms.TypedChoiceField(required=False, coerce=int, empty_value=None)
    before = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)

    def __init__(self, data: Any, weeks: Iterable[int]) -> None:
        super().__init__(data)
        for name, choices in (
            ("kind", [("", "All"), *((kind.value, words) for kind, words in KIND_WORDS.items())]),
            ("week", [("", "All"), *((str(number), str(number)) for number in weeks)]),
        ):
            self.fields[name].choices = choices  # type: ignore[attr-defined]
        self.label_suffix = ""


@require_safe
@requires(Permission.VIEW_AUDIT)
@fresh
def audit(request: WebRequest) -> HttpResponseBase:
    """GET parameters: kind, actor, week; `before` an event's id for older ones; `check=chain` walks the whole chain."""
    form = Filter(request.GET, Week.objects.values_list("number", flat=True))
    form.is_valid()
    said = form.cleaned_data
    events = AuditEvent.objects.order_by("-id")
    if said.get("kind"):
        events = events.filter(kind=said["kind"])
    if said.get("actor"):
        events = events.filter(actor=said["actor"])
    if said.get("week"):
        events = events.filter(week_number=said["week"])
    if said.get("before"):
        events = events.filter(id__lt=said["before"])
    found = list(events[: PAGE + 1])
    page = found[:PAGE]
    verified = verified_at([row.generation for row in page if row.generation])
    chosen = {name: said[name] for name in ("kind", "actor", "week") if said.get(name)}
    context = {
        "form": form,
        "events": [_event(row, verified.get(row.generation or 0)) for row in page],
        "filtered": bool(chosen),
        "paged": bool(said.get("before")),
        "older": f"?{urlencode(chosen | {'before': page[-1].pk})}" if len(found) > PAGE else "",
        "newest": f"?{urlencode(chosen)}",
        "check": check_chain() if request.GET.get("check") == "chain" else None,
        "check_link": f"?{urlencode(chosen | {'check': 'chain'})}",
    }
    return render(request, "audit.html", context, status=422 if form.errors else 200)


def _event(row: AuditEvent, confirmed: datetime | None) -> dict[str, Any]:
    verified_ms = (confirmed - row.at).total_seconds() * 1000 if confirmed else None
    kind = {kind.value: words for kind, words in KIND_WORDS.items()}.get(row.kind, row.kind)
    values = [_value(key, row.before.get(key), row.after.get(key)) for key in sorted({*row.before, *row.after})]
    short = len(values) <= SHORT and all(len(value["words"]) <= 60 for value in values)
    return {
        "row": row,
        "kind": kind,
        "confirmed": confirmed,
        "verified_ms": verified_ms,
        "values": values if short else [],
        "long": [] if short else values,
    }


def _value(key: str, before: Any, after: Any) -> dict[str, str]:
    """One changed value in words; what was not there before, or is no more, is left out."""
    words = [_words(value) for value in (before, after) if value is not None]
    return {"key": key, "words": " → ".join(words) if words else "–"}  # noqa: RUF001


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
