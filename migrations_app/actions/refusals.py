"""A refused decision is an audit event too: who asked for what, and the sentence that refused it.

What takes no permission to be refused could fill the log: of an account that may not, or that names what does not
exist, one event a minute is kept for each act. Its `times`, where there were several, counts this refusal and those
since the event before it.
Counted in Django's cache, which is this process's memory: with several web processes there is one for each.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from django.core.cache import cache
from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import ActionError, Busy, NotFound, NotPermitted

# What is kept of one value, and of one list of values: whoever forges a field does not fill the log with it.
MOST_CHARACTERS = 200
MOST_VALUES = 50
MOST_TOGETHER = 1000  # characters: of a sentence; and with so many in a list no further value is kept

COUNTED = (NotPermitted, NotFound)
TELL_EVERY = 60  # seconds between two events of one account, act and sort of refusal
TELL_WITHIN = 24 * 3600  # seconds for which refusals that no event has told yet are kept

_lock = Lock()  # the cache cannot add to a value in one step, and requests run in threads


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
        # Whoever has a shell has the database too: there nothing is counted.
        counted = isinstance(refusal, COUNTED) and actor.account is not None
        times = _to_tell(act, type(refusal), actor) if counted else 1
        values = {name: _plain(value) for name, value in asked.items() if value is not None}
        if times:
            with transaction.atomic():
                record(
                    AuditKind.ACTION_REFUSED,
                    actor=actor,
                    subject=clipped(about.subject),
                    week_number=about.week,
                    reason=clipped(reason) if counted else reason,
                    before={"asked": act, **values},
                    after={"refused": clipped(str(refusal), MOST_TOGETHER), "because": type(refusal).__name__}
                    | ({"times": times} if times > 1 else {}),
                )
        raise


def clipped(text: str, most: int = MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _to_tell(act: str, refusal: type[ActionError], actor: Actor) -> int:
    """Count one refusal; how many an event is to tell now. 0: the last event is not a minute old, keep it."""
    account = actor.account.pk if actor.account else None
    key, now = f"refused:{account}:{refusal.__name__}:{act.replace(' ', '-')}", time.time()
    with _lock:
        untold, told_at = cache.get(key, (0, 0.0))
        due = not 0 <= now - told_at < TELL_EVERY
        cache.set(key, (0, now) if due else (untold + 1, told_at), TELL_WITHIN)
    return untold + 1 if due else 0


def _plain(value: Any) -> Any:
    """As JSON can tell it."""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, Collection) and not isinstance(value, str):
        kept: list[str] = []
        for one in sorted(value, key=str)[:MOST_VALUES]:
            if sum(map(len, kept)) < MOST_TOGETHER:
                kept.append(clipped(str(one)))
        return kept
    return clipped(str(value))
