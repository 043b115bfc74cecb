"""The function that holds the promises finds each that is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag
from migrations_app.actions.weeks import enable_week
from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway, Plan
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.load import Failure, Load
from tests.faults.promises import hold
from tests.faults.system import OPERATOR, Click, System, wait_for

FLAG = "USE_RAG_SERVICE"


@contextmanager
def undone() -> Iterator[None]:
    """What is done in the block is undone at its end, and the database's own guards are away in it."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE migrations_app_auditevent DISABLE TRIGGER USER")
            cursor.execute("ALTER TABLE migrations_app_flag DISABLE TRIGGER USER")
        yield
        transaction.set_rollback(True)


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("-pk")[0]


def rewrite(event: AuditEvent, **values: object) -> None:
    """As somebody who knows how the chain is made; of the last event, or the ones after it do not follow any more."""
    for name, value in values.items():
        setattr(event, name, value)
    AuditEvent.objects.filter(pk=event.pk).update(**values, digest=event.content_digest())


def confirm_an_old_one() -> None:
    gateway = Gateway.objects.get()
    Confirmation.objects.filter(generation=2).delete()
    later = timezone.now() + timedelta(seconds=1)
    Confirmation.objects.create(gateway=gateway, generation=2, confirmed_at=later, milliseconds=1)


BROKEN: dict[str, tuple[Callable[[], object], str]] = {
    "a generation that does not run": (lambda: Gateway.objects.update(observed_generation=99), "generation"),
    "a weight that does not run": (lambda: Gateway.objects.update(observed_weights={FLAG: 1}), "weights"),
    "a flag moved past the log": (
        lambda: (
            Flag.objects.filter(key=FLAG).update(weight=100),
            Gateway.objects.update(observed_weights={**Gateway.objects.get().observed_weights, FLAG: 100}),
        ),
        "weights",
    ),
    "an event altered": (lambda: AuditEvent.objects.filter(generation=2).update(reason="no"), "broken_at"),
    "an event removed": (lambda: last_event().delete(), "a change is not in the log"),
    "an event that says what was not": (
        lambda: rewrite(last_event(), before={FLAG: 40}),
        "tells another past",
    ),
    "the same generation twice": (lambda: rewrite(last_event(), generation=2), "does not come after"),
    "a generation without an event": (
        lambda: rewrite(last_event(), generation=Plan.objects.get().generation + 1),
        "that no event tells of",
    ),
    "an old table confirmed last": (confirm_an_old_one, "an older table after a newer one"),
    "a rollback that never arrived": (
        lambda: Confirmation.objects.filter(generation__gte=3).delete(),
        "not on every gateway",
    ),
}


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on, at generation 2; one service of it was rolled back, at 3."""
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    roll_back_flag(key=FLAG, actor=OPERATOR, request_key=uuid4())
    assert reconcile_all()[0].error == ""
    return system


def rollback(
    status: int, text: str, *, of: str = "weeks/1", key: str = "", seconds: float = 0.1, began: datetime | None = None
) -> Click:
    return Click(f"/{of}/rollback/", key, status, text, began or datetime.now(UTC), seconds)


def test_each_promise_that_is_broken_is_found(on: System):
    hold(on)
    for name, (breaks, said) in BROKEN.items():
        with undone():
            breaks()
            with pytest.raises(AssertionError) as found:
                hold(on)
        assert said in f"{found.value} {found.traceback[-1].statement}", name
    hold(on)


def test_a_rise_that_no_open_gate_vouches_for_is_found(system: System):
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    hold(system)
    with undone():
        rewrite(last_event(), verdict={"open": False, "lines": []})
        with pytest.raises(AssertionError, match="went through a closed gate"):
            hold(system)


def test_an_edited_gateway_is_found(on: System):
    on.envoy.edit_in_place("rds/rds.json", ('"cluster":"storage.failover"', '"cluster":"storage.monolith"'))
    with pytest.raises(AssertionError):
        hold(on)
    reconcile_all()
    hold(on)


def test_what_a_person_was_told_of_a_rollback_is_held_too(on: System):
    event = last_event()
    key, before = str(event.request_key), event.at - timedelta(seconds=10)
    hold(on, clicks=[rollback(303, "", key=key), rollback(202, "Not confirmed yet. By hand: manage.py reconcile")])
    hold(on, clicks=[rollback(303, "", of=f"flags/{FLAG}", key=str(uuid4())), rollback(303, "", of=f"flags/{FLAG}")])
    for click in (
        rollback(303, "", key=key, began=before),  # answered before the gateway had
        rollback(303, "", key=str(uuid4())),  # acknowledged and lost
        rollback(303, ""),
        rollback(303, "", of=f"flags/{FLAG}", key=str(uuid4()), began=before),
        rollback(500, "Something broke on our side"),
        rollback(202, "Applied on the gateway in 4 ms. manage.py reconcile"),
        rollback(202, "By hand: manage.py reconcile", seconds=60.0),
    ):
        with pytest.raises(AssertionError):
            hold(on, clicks=[click])


def test_a_request_that_was_lost_and_a_table_that_ran_too_late_are_found(on: System):
    load = Load(on.envoy.port, 0.0, [("read", "rag")])
    load.start()
    wait_for(lambda: load.count() >= 3, "requests are answered")
    load.stop()
    hold(on, load=load)
    generation, weights = load.tables[-1]
    for table, said in (
        ((generation - 1, weights), "has run 2 after 3"),
        ((generation, weights | {FLAG: 100}), FLAG),
        ((generation, weights | {"USE_STORAGE_SERVICE": 0}), "USE_STORAGE_SERVICE"),
    ):
        load.tables.append(table)
        with pytest.raises(AssertionError, match=said):
            hold(on, load=load)
        load.tables.pop()
    load.failures.append(Failure("rag", "write", "503", 0.0, 1.0))
    with pytest.raises(AssertionError, match="write to rag: 503"):
        hold(on, load=load, lost=1)
    with pytest.raises(AssertionError, match="write to rag: 503"):
        hold(on, load=load, explained=lambda _: True)
    hold(on, load=load, lost=1, explained=lambda failure: failure.kind == "write")
