"""One pass over the gateways: load the snapshot, decide, apply, write what was observed.

Level-triggered: any number of passes may run at once, late or twice, in workers, in the web process or in a shell. The
adapter's fence and comparison order them; a pass that comes too late finds nothing to do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.gateways.base import Applied, Observed, RoutingTable, with_pins
from migrations_app.gateways.base import Gateway as Adapter
from migrations_app.gateways.errors import (
    GatewayError,
    InvalidTable,
    NotConfirmed,
    Pinned,
    Rejected,
    StaleGeneration,
    Unplaced,
)
from migrations_app.live import Topic, tell
from migrations_app.models import Confirmation, Gateway, Plan

from .adapters import adapter_for
from .decide import Decision, Step, decide
from .desired import desired_table, scripts_of
from .pins import Held, as_stored, held_at, held_when_last_seen
from .refusals import note_refusal
from .side_by_side import SideBySide

logger = logging.getLogger(__name__)

LONG_AGO = timedelta(seconds=4)  # pages call a state old that is not much older
CLOCKS_DIFFER = timedelta(seconds=1)  # between hosts, at most


_rounds: SideBySide[_Called] = SideBySide()


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did to one gateway. `error` is empty when the gateway runs what is wanted, but for its pins.

    `unsettled`: actions.pins has something to do, a journal to read or a flag to roll back that is pinned.
    """

    gateway: str
    step: Step
    generation: int
    changed: bool
    error: str = ""
    unsettled: bool = False


def reconcile_all(*, only: str = "", leave_late: bool = False) -> list[Pass]:
    """One pass over every gateway, or over the one called `only`; over several at once, from one snapshot.

    With `leave_late`, one that did not answer the last time and does not now is left to its time-outs: it holds up
    neither this call nor the next, which writes what came of it. For processes that make one pass after the other.
    """
    gateways = list(Gateway.objects.select_related("plan").defer("plan__document"))
    gateways = [gateway for gateway in gateways if only in ("", gateway.key)]
    if len(gateways) < 2:
        return [reconcile(gateway) for gateway in gateways]
    table = desired_table(gateways[0].plan)
    calls = {gateway.pk: partial(_call, gateway, table) for gateway in gateways}
    answered = {gateway.pk for gateway in gateways if gateway.observed_generation is not None} if leave_late else None
    rows = {gateway.pk: gateway for gateway in gateways}
    done, failed = [], None
    for key, called in _rounds.round(calls, wait_for=answered):
        # A fault of ours at one gateway is raised when the others are written.
        if (error := called.exception()) is not None:
            failed = error
        else:
            done.append(_keep(rows[key], called.result()))
    if failed is not None:
        raise failed
    return sorted(done, key=lambda one: one.gateway)


def reconcile(gateway: Gateway) -> Pass:
    """One pass over one gateway. Never raises for a gateway that is away or refuses: that is the error of the pass."""
    return _keep(gateway, _call(gateway, desired_table(gateway.plan)))


@dataclass(frozen=True, slots=True)
class _Called:
    """What came of a pass's calls to a gateway.

    `table` is what was wanted of it: what is desired, unless it `differs` because of what is `held`. `put_back`: what
    somebody else had changed and is there no more, a sentence each. `placed`: this process knows where it is.
    """

    table: RoutingTable
    begun: datetime
    decision: Decision
    seen: Observed
    held: Held
    differs: bool = False
    applied: Applied | None = None
    failed: GatewayError | None = None
    put_back: tuple[str, ...] = ()
    placed: bool = True


def _call(gateway: Gateway, table: RoutingTable) -> _Called:
    """The part of a pass that calls the gateway. Uses no database: passes over several run in threads."""
    begun = timezone.now()
    try:
        adapter = adapter_for(gateway)
    except Unplaced as error:
        seen = Observed(None, error=str(error))
        held = held_when_last_seen(gateway)
        return _Called(table, begun, Decision(Step.STAND_BACK, (seen.error,)), seen, held, placed=False)
    held, desired = held_at(gateway, adapter), table
    table = with_pins(desired, held.flags)
    # Straight after a change the last look tells enough: the apply compares by itself, and every moment counts.
    behind = not gateway.error and (gateway.observed_generation or 0) < table.generation
    seen = _last_look(gateway) if behind else adapter.observe()
    decision = decide(table, seen, held.flags)
    if decision.step == Step.NOTHING and not _noted(adapter):
        decision = Decision(Step.APPLY, ("An older version has applied it, and kept too little to pin flags by.",))
    if decision.step == Step.STAND_BACK and held.flags:
        # Pins hold at a generation that this pass does not know as well, and in what the gateway would start from.
        applied, failed = _obey(adapter)
        return _Called(table, begun, decision, adapter.observe(), held, table != desired, applied, failed)
    if decision.step not in {Step.APPLY, Step.REPAIR}:
        return _Called(table, begun, decision, seen, held, table != desired)
    begun = timezone.now()
    applied, failed, handed, replaced = _apply(adapter, table)
    if handed is not table:
        # What is written as observed and what is pinned belong together: an enable must not be called applied.
        table, held = handed, held_at(gateway, adapter)
    # A confirmed apply has read the whole table back; anything else is looked at again.
    seen = Observed(table.generation, table.weights()) if applied else adapter.observe()
    # Files that were put back while the gateway was down count too: the next pass finds no trace of the drift.
    done = applied.changed if applied else bool(replaced) or (isinstance(failed, NotConfirmed) and not seen.drift)
    # Without REPAIR it is an edit of the last second, which a change has met before any look did.
    put_back = decision.because if decision.step == Step.REPAIR and done else replaced
    return _Called(table, begun, decision, seen, held, table != desired, applied, failed, put_back)


def _keep(gateway: Gateway, called: _Called) -> Pass:
    """The part of a pass that writes what was observed. None of it when a load has taken the gateway out."""
    table, applied, failed, decision = called.table, called.applied, called.failed, called.decision
    error = (str(failed) if failed else "") or called.seen.error
    if failed is None and (called.seen.generation or 0) > table.generation:
        error = _behind(gateway, called.seen)
    changed, unsettled = applied is not None and applied.changed, called.held.unread or called.differs
    done = Pass(gateway.key, decision.step, table.generation, changed, error, unsettled)
    if decision.step == Step.NOTHING:
        # Nothing is in a hurry now.
        _keep_scripts(gateway, adapter_for(gateway))
    try:
        # Where the gateway itself refuses what was handed over, its adapter says Rejected too, and not NotConfirmed.
        if isinstance(failed, Rejected | InvalidTable):
            note_refusal(gateway, table.generation, str(failed), timezone.now())
        _write(gateway, called, error)
    except IntegrityError:
        if Gateway.objects.filter(pk=gateway.pk).exists():
            raise
    return done


def _last_look(gateway: Gateway) -> Observed:
    return Observed(gateway.observed_generation, gateway.observed_weights)


def _apply(
    adapter: Adapter, table: RoutingTable
) -> tuple[Applied | None, GatewayError | None, RoutingTable, tuple[str, ...]]:
    """With the table as it was handed over, and what of somebody else's was replaced."""
    try:
        applied = adapter.apply(adapter.render(table))
    except StaleGeneration as overtaken:
        # By a newer change; the pass that carries it writes what is observed.
        return None, None, table, overtaken.replaced
    except Pinned as late:
        # Since this pass has begun.
        return _apply(adapter, with_pins(table, late.flags))
    except GatewayError as error:
        logger.warning("generation %s was not applied: %s", table.generation, error)
        return None, error, table, error.replaced
    return applied, None, table, applied.replaced


def _noted(adapter: Adapter) -> bool:
    """Whether the gateway's note of what was applied is enough to apply it with pins."""
    try:
        return adapter.last_applied() is not None
    except GatewayError:
        return True  # that is for the next look to tell


def _obey(adapter: Adapter) -> tuple[Applied | None, GatewayError | None]:
    try:
        return adapter.obey(), None
    except GatewayError as error:
        logger.warning("the pins are not obeyed: %s", error)
        return None, error


def _keep_scripts(gateway: Gateway, adapter: Adapter) -> None:
    try:
        if adapter.keep_scripts(scripts_of(gateway.plan), called=gateway.key):
            logger.info("the rollback scripts of gateway %s were written", gateway.key)
    except GatewayError as error:
        logger.warning("the rollback scripts of gateway %s were not written: %s", gateway.key, error)


def _behind(gateway: Gateway, seen: Observed) -> str:
    """An error when the database itself is behind the gateway, as after restoring a backup; else this pass was slow."""
    current = Plan.objects.values_list("generation", flat=True).get(pk=gateway.plan_id)
    if seen.generation is None or current >= seen.generation:
        return ""
    return (
        f"The gateway runs generation {seen.generation}, this database has only {current}: it was restored or "
        "replaced. The gateway keeps what it runs; the next change made here takes a higher generation and wins."
    )


def _write(gateway: Gateway, called: _Called, error: str) -> None:
    """What was observed, and the event of what was put back: both, or neither."""
    now, seen, applied, begun = timezone.now(), called.seen, called.applied, called.begun
    values: dict[str, Any] = {
        "observed_generation": seen.generation,
        "observed_weights": dict(seen.weights),
        "observed_at": begun,
        "error": error,
        "pins": as_stored(called.held.pins),
    }
    if applied and applied.changed:
        values |= {"last_applied_at": now, "last_apply_ms": applied.milliseconds}
    with transaction.atomic():
        if seen.generation is not None and not error:
            first = Confirmation(
                gateway=gateway,
                generation=seen.generation,
                confirmed_at=now,
                milliseconds=applied.milliseconds if applied else 0,
            )
            if not Confirmation.objects.filter(gateway=gateway, generation=seen.generation).exists():
                Confirmation.objects.bulk_create([first], ignore_conflicts=True)
        # A pass that took longer must not write its older observation over a newer one; nor may one that does not know
        # where the gateway is, while another process sees it.
        fresh = Q(observed_at__isnull=True) | Q(observed_at__lt=begun if called.placed else begun - LONG_AGO)
        # One from the future was written before a clock was put back; it would stop the loop until then.
        fresh |= Q(observed_at__gt=now + CLOCKS_DIFFER)
        if Gateway.objects.filter(fresh, pk=gateway.pk).update(**values):
            tell(Topic.LOOK if _as_before(gateway, values) else Topic.GATEWAY, gateway.key)
        if called.put_back:
            _audit_drift(gateway, called.table, called.put_back)


def _as_before(gateway: Gateway, values: dict[str, Any]) -> bool:
    """Whether nothing but the moment of the look is new. A first look, and one after a long silence, are news."""
    if gateway.observed_at is None or values["observed_at"] - gateway.observed_at > LONG_AGO:
        return False
    return all(getattr(gateway, name) == value for name, value in values.items() if name != "observed_at")


def _audit_drift(gateway: Gateway, table: RoutingTable, found: tuple[str, ...]) -> None:
    logger.warning("drift on gateway %s was put back: %s", gateway.key, " ".join(found))
    record(
        AuditKind.DRIFT_CORRECTED,
        actor=SYSTEM,
        subject=f"gateway {gateway.key}",
        reason="Somebody changed the gateway behind Switchyard's back.",
        before={"found": list(found)},
        after=dict(table.weights()),
        generation=table.generation,
    )
