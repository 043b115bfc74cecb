"""A refused decision is an audit event too: who asked for what, and the sentence that refused it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import ActionError, Busy

# What is kept of one value, and of one list of values: whoever forges a field does not fill the log with it.
MOST_CHARACTERS = 200
MOST_VALUES = 50


@dataclass(slots=True)
class Asked:
    """What a decision is about. An action names it more exactly as soon as it knows; `week` must be one of the plan."""

    subject: str
    week: int | None = None


@contextmanager
def refusals_recorded(act: str, *, actor: Actor, subject: str, reason: str = "", **asked: Any) -> Iterator[Asked]:
    """Whatever refuses the block becomes an event of its own, after the block's transaction is undone; then it goes on.

    `act` and `asked` are what was asked for. That another change held the plan for too long (Busy) is no refusal. What
    changes nothing raises nothing, and leaves no event.
    """
    about = Asked(subject)
    try:
        yield about
    except Busy:
        raise
    except ActionError as refusal:
        values = {name: _plain(value) for name, value in asked.items() if value is not None}
        with transaction.atomic():
            record(
                AuditKind.ACTION_REFUSED,
                actor=actor,
                subject=clipped(about.subject),
                week_number=about.week,
                reason=reason,
                before={"asked": act, **values},
                after={"refused": str(refusal), "because": type(refusal).__name__},
            )
        raise


def clipped(text: str, most: int = MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _plain(value: Any) -> Any:
    """As JSON can tell it."""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, Collection) and not isinstance(value, str):
        return [clipped(str(one)) for one in sorted(value, key=str)[:MOST_VALUES]]
    return clipped(str(value))
