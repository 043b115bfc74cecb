"""Waits for the gateways' own word that a change is in force; reconciles by itself when no worker does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import OperationalError
from django.db.models import OuterRef, Subquery
from django.utils import timezone

from migrations_app.errors import first_line
from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway
from migrations_app.models.gateways import SEEN_FOR
from migrations_app.reconcile.loop import reconcile_all

from .change import Change

FIRST_POLL = 0.02  # seconds; no worker is quicker, and looking earlier only takes the processor from it
POLL = 0.006  # seconds between later looks at the observed generation
_LATE = "it did not answer in time."


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one gateway: whether it runs the generation, and why not. `error` is empty when it does."""

    gateway: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether every gateway runs the generation. `milliseconds` is from commit to the last gateway's answer.

    Not confirmed: `error` says why, and `command` does it by hand. `overtaken` is a sentence when the gateway runs it,
    but a newer change of the same flags has undone it meanwhile. `answers` has each gateway, by key, when they could be
    asked.
    """

    generation: int
    confirmed: bool
    milliseconds: float | None = None
    error: str = ""
    command: str = ""
    overtaken: str = ""
    answers: tuple[Answer, ...] = ()

    def sentence(self) -> str:
        if not self.confirmed:
            return f"{self.how_far()} By hand: {self.command}"
        if self.overtaken:
            return self.overtaken
        several = f"all {len(self.answers)} gateways" if len(self.answers) > 1 else ""
        if self.milliseconds is None:
            return f"{several.capitalize()} already run this." if several else "The gateway already runs this."
        return f"Applied on {several or 'the gateway'} in {self.milliseconds:.0f} ms."

    def how_far(self) -> str:
        """Of what is not confirmed: on how many gateways it is in force, on which it is not, and why."""
        if self.reached:
            return f"{self.reached}, not on {self.error}"
        return f"Stored, but not confirmed by {'any' if len(self.answers) > 1 else 'the'} gateway: {self.error}"

    @property
    def reached(self) -> str:
        """`Applied on 2 of 3 gateways`; "" where none of them runs what is not confirmed, or all do."""
        count = sum(not one.error for one in self.answers)
        return f"Applied on {count} of {len(self.answers)} gateways" if 0 < count < len(self.answers) else ""


def confirm(generation: int, *, event: AuditEvent | None = None, head_start: float | None = None) -> Outcome:
    """Wait until all gateways answer with at least `generation`, at most settings.CONFIRM_WITHIN seconds.

    Workers have `head_start` seconds (default settings.WORKER_HEAD_START) before this process reconciles by itself, so
    a change is confirmed with Redis stopped, Redis hung, or every worker dead. `event` gives the moment of the commit.
    What was seen longer than SEEN_FOR ago, or beside an error of the gateway, confirms nothing. A database that goes
    away meanwhile does not either: the change itself is committed.
    """
    try:
        return _confirm(generation, event, settings.WORKER_HEAD_START if head_start is None else head_start)
    except OperationalError as error:
        told = f"the database does not answer any more ({first_line(error)})."
        return Outcome(generation, confirmed=False, error=told, command="manage.py reconcile")


def as_json(change: Change, outcome: Outcome | None) -> dict[str, Any]:
    """What came of a change, for whoever reads it by machine; without an outcome where no traffic moves."""
    told: dict[str, Any] = {
        "changed": change.changed,
        "generation": change.generation,
        "event": change.event.pk if change.event else None,
    }
    if outcome:
        told |= {
            "confirmed": outcome.confirmed,
            "milliseconds": outcome.milliseconds,
            "error": outcome.error or outcome.overtaken,
            "command": outcome.command,
            "gateways": [
                {"gateway": one.gateway, "confirmed": not one.error, "error": one.error} for one in outcome.answers
            ],
        }
    return told


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
        gateways = list(Gateway.objects.values_list("key", "observed_generation", "error", "observed_at", "pins"))
        oldest = timezone.now() - SEEN_FOR
        answers = tuple(
            Answer(key, error or _LATE if error or (observed or 0) < generation or not at or at < oldest else "")
            for key, observed, error, at, _pins in gateways
        )
        if answers and not any(one.error for one in answers):
            if against := _pinned(event, [pin["flag"] for *_, pins in gateways for pin in pins]):
                told = f"{', '.join(against)} is pinned to the old side since a moment ago, and stays there."
                command = f"manage.py pin lift {' '.join(against)}"
                return Outcome(generation, confirmed=False, error=told, command=command, answers=answers)
            milliseconds = _milliseconds(generation, event)
            return Outcome(generation, True, milliseconds, overtaken=_overtaken(event), answers=answers)
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
    return _unconfirmed(generation, answers)


def _pinned(event: AuditEvent | None, flags: list[str]) -> list[str]:
    """Those of the pinned flags that the change wants on the new side: pinned after it was let through."""
    wanted = event.after if event else {}
    return sorted({flag for flag in flags if isinstance(wanted.get(flag), int) and wanted[flag] > 0})


def _unconfirmed(generation: int, answers: tuple[Answer, ...]) -> Outcome:
    missing = [one for one in answers if one.error]
    command = "manage.py reconcile"
    if len(answers) < 2:
        error = next((one.error for one in missing), _LATE)
        return Outcome(generation, confirmed=False, error=error, command=command, answers=answers)
    error = " ".join(f"{one.gateway}: {_ended(one.error)}" for one in missing)
    if len(missing) == 1:
        command = f"{command} --gateway {missing[0].gateway}"
    return Outcome(generation, confirmed=False, error=error, command=command, answers=answers)


def _ended(reason: str) -> str:
    """With its full stop: the next gateway's comes after it."""
    return reason if reason.endswith(".") else f"{reason}."


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
    first = Confirmation.objects.filter(gateway=OuterRef("pk"), generation__gte=generation).order_by("generation")
    moments = Gateway.objects.annotate(done=Subquery(first.values("confirmed_at")[:1])).values_list("done", flat=True)
    last = max((moment for moment in moments if moment is not None), default=None)
    return (last - event.at).total_seconds() * 1000 if last else None
