"""Waits for the gateway's own word that a change is in force; reconciles by itself when no worker does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway
from migrations_app.reconcile.loop import reconcile_all

FIRST_POLL = 0.02  # seconds; no worker is quicker, and looking earlier only takes the processor from it
POLL = 0.006  # seconds between later looks at the observed generation
FRESH = timedelta(seconds=5)  # the loop looks every second; what was seen longer ago is asked anew


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether every gateway runs the generation. `milliseconds` is from commit to the last gateway's answer.

    Not confirmed: `error` says why, and `command` does it by hand. `overtaken` is a sentence when the gateway runs it,
    but a newer change of the same flags has undone it meanwhile.
    """

    generation: int
    confirmed: bool
    milliseconds: float | None = None
    error: str = ""
    command: str = ""
    overtaken: str = ""

    def sentence(self) -> str:
        if not self.confirmed:
            return f"Stored, but not confirmed by the gateway: {self.error} By hand: {self.command}"
        if self.overtaken:
            return self.overtaken
        if self.milliseconds is None:
            return "The gateway already runs this."
        return f"Applied on the gateway in {self.milliseconds:.0f} ms."


def confirm(generation: int, *, event: AuditEvent | None = None, head_start: float | None = None) -> Outcome:
    """Wait until all gateways answer with at least `generation`, at most settings.CONFIRM_WITHIN seconds.

    Workers have `head_start` seconds (default settings.WORKER_HEAD_START) before this process reconciles by itself, so
    a change is confirmed with Redis stopped, Redis hung, or every worker dead. `event` gives the moment of the commit.
    What was seen longer than FRESH ago, or beside an error of the gateway, confirms nothing. A database that goes away
    meanwhile does not either: the change itself is committed.
    """
    try:
        return _confirm(generation, event, settings.WORKER_HEAD_START if head_start is None else head_start)
    except OperationalError as error:
        said = str(error).strip().partition("\n")[0]
        return _unconfirmed(generation, f"the database does not answer any more ({said}).")


def _confirm(generation: int, event: AuditEvent | None, head_start: float) -> Outcome:
    begun = time.monotonic()
    own_turn = begun + head_start
    deadline = begun + settings.CONFIRM_WITHIN
    lasted = 0.0
    if event is not None and head_start:
        # Straight after the commit the hint must get out, and no worker is done sooner.
        time.sleep(FIRST_POLL)
    while True:
        # Few columns only: this is asked often, on the processors that the worker and the gateway need now.
        gateways = list(Gateway.objects.values_list("observed_generation", "error", "observed_at", "pins"))
        oldest = timezone.now() - FRESH
        behind = [
            error
            for observed, error, at, _pins in gateways
            if error or (observed or 0) < generation or not at or at < oldest
        ]
        if gateways and not behind:
            if against := _pinned(event, [pin["flag"] for *_, pins in gateways for pin in pins]):
                told = f"{', '.join(against)} is pinned to the old side since a moment ago, and stays there."
                return _unconfirmed(generation, told, f"manage.py pin lift {' '.join(against)}")
            milliseconds = _milliseconds(generation, event)
            return Outcome(generation, confirmed=True, milliseconds=milliseconds, overtaken=_overtaken(event))
        now = time.monotonic()
        if now >= deadline:
            break
        # A pass at a gateway that hangs takes seconds: one that would end too late is not begun.
        if now >= own_turn and now + lasted <= deadline:
            reconcile_all()
            ended = time.monotonic()
            lasted = ended - now
            # The gateway may need several tries; leave the processor to it between them.
            own_turn = ended + 0.2
        time.sleep(POLL)
    return _unconfirmed(generation, next((error for error in behind if error), "it did not answer in time."))


def _unconfirmed(generation: int, error: str, command: str = "manage.py reconcile") -> Outcome:
    return Outcome(generation, confirmed=False, error=error, command=command)


def _pinned(event: AuditEvent | None, flags: list[str]) -> list[str]:
    """Those of the pinned flags that the change wants on the new side: pinned after it was let through."""
    wanted = event.after if event else {}
    return sorted({flag for flag in flags if isinstance(wanted.get(flag), int) and wanted[flag] > 0})


def _overtaken(event: AuditEvent | None) -> str:
    """A sentence on the flags of the change that have another weight by now, else nothing."""
    if event is None or event.generation is None:
        return ""
    now = dict(Flag.objects.filter(key__in=event.after, generation__gt=event.generation).values_list("key", "weight"))
    undone = [f"{key} is at {weight} %" for key, weight in sorted(now.items()) if weight != event.after[key]]
    return f"But another change has come meanwhile: {', '.join(undone)} now." if undone else ""


def _milliseconds(generation: int, event: AuditEvent | None) -> float | None:
    """From the change's audit event to the last gateway's first answer at or above its generation."""
    if event is None:
        return None
    moments = []
    for gateway in Gateway.objects.all():
        confirmation = (
            Confirmation.objects.filter(gateway=gateway, generation__gte=generation).order_by("generation").first()
        )
        if confirmation:
            moments.append((confirmation.confirmed_at - event.at).total_seconds() * 1000)
    return max(moments) if moments else None
