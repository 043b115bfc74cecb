"""`rollback_rehearsed`: the way back has been gone lately, quickly enough, with the routes that the week has now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from migrations_app.choices import AuditKind, CheckState
from migrations_app.durations import in_words
from migrations_app.gates.parameters import RollbackRehearsed
from migrations_app.gates.seen import Finding
from migrations_app.models import AuditEvent
from migrations_app.models.gateways import verified_at

from .probe import Scene

CLOCKS_DIFFER = timedelta(seconds=1)  # between hosts, at most


def rollback_rehearsed(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`within: 7d`, `under: 2s`: the newest rehearsal of the week is what counts.

    Its time runs from the rehearsal's audit event to the moment when every gateway had confirmed its generation.
    """
    asked = RollbackRehearsed.of(parameters)
    limit = f"in the last {in_words(asked.within)}, confirmed within {in_words(asked.under)}"
    act = f"Rehearse it: manage.py week rehearse {scene.week}"

    def failed(value: str) -> Finding:
        return Finding(CheckState.NOT_HELD, value, limit, act)

    rehearsals = AuditEvent.objects.filter(kind=AuditKind.ROLLBACK_REHEARSED.value, week_number=scene.week)
    event = rehearsals.order_by("-id").first()
    if event is None or event.generation is None:
        return failed("never rehearsed")
    rehearsed = f"rehearsed {in_words(scene.now - event.at)} ago"
    if event.after.get("target") != scene.target:
        return failed(f"{rehearsed}, but the week's flags, routes or upstreams have changed since")
    if scene.now - event.at > asked.within:
        return failed(rehearsed)
    confirmed_at = verified_at([event.generation]).get(event.generation)
    if confirmed_at is None:
        return failed(f"{rehearsed}, but not every gateway has confirmed it")
    took = confirmed_at - event.at
    if took < -CLOCKS_DIFFER:
        return failed(f"{rehearsed}, but how long it took is not known: a clock was put back meanwhile")
    milliseconds = max(0.0, took.total_seconds() * 1000)
    value = f"{rehearsed}, confirmed in {milliseconds:,.0f} ms"
    return failed(value) if took > asked.under else Finding(CheckState.HELD, value, limit, since=event.at)
