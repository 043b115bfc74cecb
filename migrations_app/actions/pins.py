"""Pins: what was done at the gateways without the database becomes events and rollbacks; and lifting pins.

See docs/decisions/0012-pins.md. A pin itself is set where there need be no database (reconcile.panic, a script).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from uuid import NAMESPACE_URL, UUID, uuid5

from django.db import DatabaseError, transaction

from migrations_app.actor import LONGEST_NAME, SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import ActorKind, AuditKind
from migrations_app.errors import ActionError, Invalid, NotFound, Stale
from migrations_app.gateways.base import Gateway as Adapter
from migrations_app.gateways.base import JournalLine, Pin
from migrations_app.gateways.errors import GatewayError
from migrations_app.gateways.pins import LIFTED, PINNED, Entry, entry_of
from migrations_app.live import Topic, tell
from migrations_app.models import AuditEvent, Flag, Gateway
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.loop import Pass, reconcile_all
from migrations_app.reconcile.pins import as_stored
from migrations_app.roles import Permission

from .change import Change, lock_plan
from .flags import roll_back_flag
from .refusals import clipped, refusals_recorded

logger = logging.getLogger(__name__)

KINDS = {PINNED: AuditKind.FLAG_PINNED, LIFTED: AuditKind.FLAG_PIN_LIFTED}
LONGEST_LINE = 2000  # characters of a line that is none of ours
LIST = "List them with: manage.py pin list"


def settle_passes(passes: Iterable[Pass]) -> list[str]:
    """As `settle`, when a pass has found something to do. Never raises: the next pass asks again."""
    if not any(one.unsettled for one in passes):
        return []
    try:
        return settle()
    except (ActionError, DatabaseError) as error:
        logger.warning("what was pinned is not settled yet: %s", error)
        return []


def settle() -> list[str]:
    """Each new line of the journals becomes an event, and flags that were pinned are rolled back; the keys of these.

    Safe to run late, twice or in two places. Raises Busy, NotFound (no plan is loaded).
    """
    settled = []
    for gateway in Gateway.objects.all():
        try:
            settled += _settle(gateway, adapter_for(gateway))
        except GatewayError as error:
            # One whose folder is away must not keep what was done at the others from being told.
            logger.warning("the pins of gateway %s are not settled: %s", gateway.key, error)
    return settled


def lift_pins(*, flags: Collection[str] | None = None, actor: Actor, reason: str = "") -> Change:
    """Let these flags go, by default all that are pinned. No traffic moves: they may be enabled through the gate again.

    One gateway after the other: one that cannot be asked, or does not let go, holds up no other. Flags that are not
    pinned: NotFound when they are named, else nothing changes. Raises NotPermitted, Busy, Stale (a flag is on all the
    same), and Invalid when a gateway has not let go; it says which, why, and what was lifted elsewhere.
    """
    subject = clipped(", ".join(sorted(flags))) if flags else "pins"
    asked = {"flags": flags or None}
    with refusals_recorded("lift pins", actor=actor, subject=subject, reason=reason, **asked):
        actor.require(Permission.ENABLE, "lift pins")
        # Else the gateway would send the traffic to the new side again once nothing holds it.
        settle()
        # With a higher generation there, a pass that was stopped long ago cannot send it there again either.
        reconcile_all()
        change, failed = _lift(flags, actor=actor, reason=reason)
        if failed:
            lifted = f" Lifted elsewhere: {change.title}." if change.changed else ""
            raise Invalid(f"Not all pins were lifted. {' '.join(failed)}{lifted}")
        return change


def _lift(flags: Collection[str] | None, *, actor: Actor, reason: str) -> tuple[Change, list[str]]:
    """With a sentence for each gateway that has not let go."""
    with transaction.atomic():
        plan = lock_plan()
        actor.require_still(Permission.ENABLE, "lift pins")
        pinned: list[tuple[Gateway, Adapter, dict[str, Pin]]] = []
        failed = []
        for gateway in Gateway.objects.filter(plan=plan):
            try:
                adapter = adapter_for(gateway)
                pinned.append((gateway, adapter, {pin.flag: pin for pin in adapter.pins()}))
            except GatewayError as error:
                failed.append(_told(gateway, error))
        known = {flag for _gateway, _adapter, pins in pinned for flag in pins}
        if not failed and (missing := sorted(set(flags or ()) - known)):
            raise NotFound(f"Not pinned: {', '.join(missing)}. {LIST}")
        wanted = known if flags is None else known.intersection(flags)
        if on := sorted(Flag.objects.filter(key__in=wanted, weight__gt=0).values_list("key", flat=True)):
            raise Stale(f"{', '.join(on)} would go back to the new side at once. Roll it back first.")
        event, lifted = None, set[str]()
        for gateway, adapter, pins in pinned:
            mine = sorted(wanted & pins.keys())
            try:
                event = _lift_at(gateway, adapter, mine, pins, actor=actor, reason=reason) if mine else event
                lifted |= set(mine)
            except GatewayError as error:
                failed.append(_told(gateway, error))
        return Change(", ".join(sorted(lifted)), plan.generation, changed=event is not None, event=event), failed


def _told(gateway: Gateway, error: GatewayError) -> str:
    return f"{gateway.key}: {str(error).rstrip('.')}."


def _lift_at(
    gateway: Gateway, adapter: Adapter, flags: list[str], pins: dict[str, Pin], *, actor: Actor, reason: str
) -> AuditEvent:
    """The journal's line has the key of the event: should the commit fail, the event comes from the journal."""
    noted = adapter.lift(flags, by=actor.name, why=reason)
    Gateway.objects.filter(pk=gateway.pk).update(pins=as_stored(adapter.pins()))
    event = record(
        AuditKind.FLAG_PIN_LIFTED,
        actor=actor,
        subject=_subject(gateway, flags),
        reason=reason,
        before={"pins": as_stored(tuple(pins[flag] for flag in flags))},
        after={"gateway": gateway.key, "flags": flags},
        request_key=_key_of(gateway, noted),
    )
    tell(Topic.GATEWAY, gateway.key)
    return event


def _settle(gateway: Gateway, adapter: Adapter) -> list[str]:
    """In one transaction: what a line has pinned is rolled back, or nobody has read the line."""
    with transaction.atomic():
        lock_plan()
        pins = {pin.flag: pin for pin in (*_take_journal(gateway, adapter), *adapter.pins())}
        on = Flag.objects.filter(key__in=pins, weight__gt=0).values_list("key", flat=True).order_by("key")
        return [key for key in on if _roll_back(key, pins[key])]


def _take_journal(gateway: Gateway, adapter: Adapter) -> list[Pin]:
    """Lines that are new become events, each once; what they have pinned."""
    journal = adapter.journal()
    # All of them: a journal that was begun anew may be longer than what was read of the one before, or just as long.
    keys = {_key_of(gateway, line): line for line in journal.lines}
    known = set(AuditEvent.objects.filter(request_key__in=keys).values_list("request_key", flat=True))
    # Before the events, as passes of the loop do: rows of gateways are locked before the end of the chain.
    Gateway.objects.filter(pk=gateway.pk).update(journal_read=journal.size)
    entries = [_record(gateway, keys[key].text, key) for key in keys if key not in known]
    pinned = (entry for entry in entries if entry and entry.done == PINNED)
    return [Pin(flag, entry.by, entry.at, entry.why) for entry in pinned for flag in entry.flags]


def _record(gateway: Gateway, line: str, key: UUID) -> Entry | None:
    entry = entry_of(line)
    if entry is None:
        record(
            AuditKind.JOURNAL_NOT_OURS,
            actor=SYSTEM,
            subject=f"gateway {gateway.key}",
            reason="The gateway's journal of pins has a line that Switchyard cannot read.",
            before={"line": clipped(line, LONGEST_LINE)},
            request_key=key,
        )
        return None
    record(
        KINDS[entry.done],
        actor=Actor(clipped(entry.by, LONGEST_NAME) or "somebody", ActorKind.SHELL),
        subject=_subject(gateway, entry.flags),
        reason=entry.why,
        after={
            "gateway": gateway.key,
            "flags": list(entry.flags),
            "done at": entry.at.isoformat(),
            "generation": entry.generation,
        },
        request_key=key,
    )
    return entry


def _roll_back(key: str, pin: Pin) -> bool:
    """So that lifting the pin sends nothing back to the new side: only a person turns it on again."""
    told = {"pinned by": pin.by, "pinned at": pin.at.isoformat() if pin.at else None}
    reason = f"It is pinned to the old side {pin.words()}."
    return roll_back_flag(key=key, actor=SYSTEM, reason=reason, told=told).changed


def _subject(gateway: Gateway, flags: Collection[str]) -> str:
    return clipped(next(iter(flags)) if len(flags) == 1 else f"gateway {gateway.key}")


def _key_of(gateway: Gateway, line: JournalLine) -> UUID:
    """The same line at the same place among its like is the same event, however often the journal is read."""
    return uuid5(NAMESPACE_URL, f"switchyard:{gateway.key}:{line.nth}:{line.text}")
