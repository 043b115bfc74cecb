"""What a gateway's own folder holds on the old side, whatever the database desires."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from migrations_app.gateways.base import Gateway as Adapter
from migrations_app.gateways.base import Pin
from migrations_app.gateways.errors import GatewayError
from migrations_app.gateways.pins import PINNED, entry_of
from migrations_app.models import Gateway

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """`pins` as they lie there, and all `flags` that are held.

    `unread`: of the journal some lines are no event yet, or it was begun anew.
    """

    pins: tuple[Pin, ...]
    flags: frozenset[str]
    unread: bool


def held_at(gateway: Gateway, adapter: Adapter) -> Held:
    """Never raises: what cannot be read now holds as it did when it was seen last.

    A flag that was pinned while the database was away is held until its own weight is rolled back (actions.pins), also
    when its pin was taken away before: only a person turns it on again.
    """
    try:
        pins, unread = adapter.pins(), adapter.journal_size() != gateway.journal_read
        flags = {pin.flag for pin in pins}
        if unread:
            journal = adapter.journal()
            entries = [entry_of(line.text) for line in journal.after(gateway.journal_read)]
            # One that was lost has to be known as such before the next one is as long.
            unread = bool(entries) or journal.size < gateway.journal_read
            flags |= {flag for entry in entries if entry and entry.done == PINNED for flag in entry.flags}
    except GatewayError as error:
        logger.warning("the pins of gateway %s cannot be read: %s", gateway.key, error)
        return held_when_last_seen(gateway)
    return Held(pins, frozenset(flags), unread)


def held_when_last_seen(gateway: Gateway) -> Held:
    """As the row of the gateway has it."""
    pins = tuple(pin for stored in gateway.pins if (pin := gateway.pin_of(stored["flag"])))
    return Held(pins, frozenset(pin.flag for pin in pins), unread=False)


def as_stored(pins: tuple[Pin, ...]) -> list[dict[str, Any]]:
    """For the column of the gateway."""
    return [
        {"flag": pin.flag, "by": pin.by, "at": pin.at.isoformat() if pin.at else None, "why": pin.why} for pin in pins
    ]
