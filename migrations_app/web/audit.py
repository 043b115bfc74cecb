"""The audit log: filtered by the address, a page at a time, newest first; and one event of it in full."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from migrations_app.choices import ActorKind, AuditKind
from migrations_app.gates.verdict import Line, LineKind
from migrations_app.models import AuditEvent, ReasonAsked, Week
from migrations_app.models.audit import ROLLBACKS, ChainCheck, check_chain
from migrations_app.models.gateways import verified_at
from migrations_app.roles import Permission

from .access import WebRequest, fresh, may, requires
from .forms import new_key
from .gate import state_of
from .notices import Notice
from .shared_reading import SharedReading

PAGE = 50  # events
NOTHING = "–"  # noqa: RUF001
SHORT = 4  # changed values that are shown without being asked for
WALK_WITHIN = 2.0  # seconds that a page waits for the walk along the chain
WALK_KEPT = 300.0  # seconds for which it is not walked anew, however often it is asked for
WALK_PATIENCE = 24 * 3600.0  # seconds: a long log takes its time, and a second walk would not be quicker

KIND_WORDS = {
    AuditKind.PLAN_LOADED: "Plan loaded",
    AuditKind.EVERYTHING_ROLLED_BACK: "Everything rolled back",
    AuditKind.WEEK_ENABLED: "Week enabled",
    AuditKind.WEEK_ROLLED_BACK: "Week rolled back",
    AuditKind.FLAG_ENABLED: "Service enabled",
    AuditKind.FLAG_WEIGHT_SET: "Weight set",
    AuditKind.FLAG_PINNED: "Pinned to the old side",
    AuditKind.FLAG_PIN_LIFTED: "Pin lifted",
    AuditKind.ROLLOUT_STARTED: "Rollout started",
    AuditKind.ROLLOUT_STEPPED: "Rollout: next step",
    AuditKind.ROLLOUT_PAUSED: "Rollout paused",
    AuditKind.ROLLOUT_RESUMED: "Rollout resumed",
    AuditKind.ROLLOUT_FINISHED: "Rollout finished",
    AuditKind.TRIGGER_FIRED: "Trigger fired",
    AuditKind.FLAG_ROLLED_BACK: "Service rolled back",
    AuditKind.REASON_GIVEN: "Reason given",
    AuditKind.ENABLE_REFUSED: "Enable refused",
    AuditKind.PREREQUISITE_TICKED: "Signed off",
    AuditKind.PREREQUISITE_UNTICKED: "Sign-off withdrawn",
    AuditKind.PREREQUISITE_CHECKED: "Checked",
    AuditKind.WEEK_STARTED: "Week started",
    AuditKind.WEEK_SOAK_RESTARTED: "Soak began anew",
    AuditKind.WEEK_DONE: "Week done",
    AuditKind.DONE_REFUSED: "Done refused",
    AuditKind.ROLLBACK_REHEARSED: "Rollback rehearsed",
    AuditKind.APPROVAL_REQUESTED: "Approval asked for",
    AuditKind.APPROVAL_GIVEN: "Approved",
    AuditKind.APPROVAL_DECLINED: "Approval declined",
    AuditKind.APPROVAL_WITHDRAWN: "Approval withdrawn",
    AuditKind.FREEZE_ADDED: "Freeze added",
    AuditKind.FREEZE_LIFTED: "Freeze lifted",
    AuditKind.MAINTENANCE_PLANNED: "Maintenance planned",
    AuditKind.MAINTENANCE_ENDED: "Maintenance ended",
    AuditKind.GATE_OVERRIDDEN: "Gate overridden",
    AuditKind.OVERRIDE_ENDED: "Override ended",
    AuditKind.ACTION_REFUSED: "Refused",
    AuditKind.DRIFT_CORRECTED: "Drift put back",
    AuditKind.JOURNAL_NOT_OURS: "Unknown line in the journal of pins",
    AuditKind.ACCOUNT_ADDED: "Account added",
    AuditKind.ACCOUNT_ROLE_SET: "Role given",
    AuditKind.ACCOUNT_PASSWORD_SET: "Password set",
    AuditKind.ACCOUNT_DEACTIVATED: "Account deactivated",
    AuditKind.TOKEN_ADDED: "Token added",
    AuditKind.TOKEN_REVOKED: "Token revoked",
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
    """GET parameters: kind, actor, week; `before` an event's id for older ones; `check=chain` has the chain walked."""
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
    asked = _asked(page)
    chosen = {name: said[name] for name in ("kind", "actor", "week") if said.get(name)}
    context = {
        "form": form,
        "events": [_event(row, verified.get(row.generation or 0), asked) for row in page],
        "filtered": bool(chosen),
        "paged": bool(said.get("before")),
        "older": f"?{urlencode(chosen | {'before': page[-1].pk})}" if len(found) > PAGE else "",
        "newest": f"?{urlencode(chosen)}",
        **(_walked() if request.GET.get("check") == "chain" else {}),
        "check_link": f"?{urlencode(chosen | {'check': 'chain'})}",
    }
    return render(request, "audit.html", context, status=422 if form.errors else 200)


@require_safe
@requires(Permission.VIEW_AUDIT)
@fresh
def event(request: WebRequest, event_id: int) -> HttpResponseBase:
    """One event in full: what was before and after, and the gate as it was at that moment."""
    return show_event(request, event_id)


def show_event(request: HttpRequest, event_id: int, notice: Notice | None = None) -> HttpResponse:
    """Its page, with what came of a click."""
    row = get_object_or_404(AuditEvent, pk=event_id)
    confirmed = verified_at([row.generation]).get(row.generation) if row.generation else None
    verdict = row.verdict or {}
    told = _event(row, confirmed, _asked([row]))
    asked = told["asked"]
    own = asked is not None and asked.account_id == request.user.pk
    context = {
        **told,
        "notice": notice,
        "own": own,
        "may_say": asked is not None and asked.answer is None and (own or may(request, Permission.MANAGE_ACCOUNTS)),
        "new_key": new_key,
        "about": row.after.get("event") if row.kind == AuditKind.REASON_GIVEN else None,
        "values": told["values"] or told["long"],
        "lines": [_line(line) for line in verdict.get("lines", ())],
        "verdict": verdict,
        "overridden": sum(bool(line.get("overridden")) for line in verdict.get("lines", ())),
        "by_week": f"{reverse('audit')}?{urlencode({'week': row.week_number})}" if row.week_number else "",
    }
    return render(request, "audit_event.html", context)


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk along the whole chain found; `at` is when it had ended."""

    check: ChainCheck
    at: datetime


def _walk() -> Walk:
    try:
        return Walk(check_chain(leaves_room=True), timezone.now())
    finally:
        connections.close_all()  # this thread's own


# In a thread of its own, one at a time: it takes a minute for each million of events, and clicks go on meanwhile.
_chain = SharedReading(_walk, keep=WALK_KEPT, patience=WALK_PATIENCE, most=1)


def _walked() -> dict[str, Any]:
    """The last walk for the page, or that one is under way. Raises DatabaseError."""
    try:
        return {"walk": _chain.ask().result(WALK_WITHIN)}
    except TimeoutError:
        return {"walking": True}


def _line(stored: dict[str, Any]) -> dict[str, Any]:
    """A line of a stored verdict. Rows outlive the code: an old one may know less."""
    known = {name: stored[name] for name in Line._fields if name in stored}
    for name in ("since", "checked_at", "until"):
        known[name] = parse_datetime(known[name]) if known.get(name) else None
    line = Line(**{"key": "", "title": "", "held": False, "value": "", "limit": "", **known, "kind": _kind(stored)})
    word, icon, text = state_of(line)
    return {"line": line, "word": word, "icon": icon, "text": text}


def _kind(stored: dict[str, Any]) -> LineKind:
    said = str(stored.get("kind", ""))
    return LineKind(said) if said in set(LineKind) else LineKind.AUTOMATIC


def _asked(rows: Iterable[AuditEvent]) -> dict[int, ReasonAsked]:
    """Of these events those that were asked for a reason afterwards, with the answer. Most pages need no question."""
    bare = [row.pk for row in rows if row.kind in ROLLBACKS and not row.reason and row.actor_kind == ActorKind.ACCOUNT]
    return ReasonAsked.objects.select_related("answer").in_bulk(bare) if bare else {}


def _event(row: AuditEvent, confirmed: datetime | None, asked: Mapping[int, ReasonAsked]) -> dict[str, Any]:
    verified_ms = (confirmed - row.at).total_seconds() * 1000 if confirmed else None
    kind = {kind.value: words for kind, words in KIND_WORDS.items()}.get(row.kind, row.kind)
    values = [_value(key, row.before.get(key), row.after.get(key)) for key in sorted({*row.before, *row.after})]
    short = len(values) <= SHORT and all(len(value["words"]) <= 60 for value in values)
    return {
        "row": row,
        "kind": kind,
        "asked": asked.get(row.pk),
        "confirmed": confirmed,
        "verified_ms": verified_ms,
        "values": values if short else [],
        "long": [] if short else values,
    }


def _value(key: str, before: Any, after: Any) -> dict[str, str]:
    """One changed value in words; what was not there before, or is no more, is left out."""
    told = {"before": _words(before), "after": _words(after)}
    words = [words for words in told.values() if words != NOTHING]
    return {"key": key, "words": " → ".join(words) if words else NOTHING, **told}


def _words(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
