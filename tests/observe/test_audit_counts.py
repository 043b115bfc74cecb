"""The audit log is counted exactly, and read on from where the last reading ended."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent
from migrations_app.observe import audit_counts
from migrations_app.observe.audit_counts import TAIL, AuditCounts

pytestmark = pytest.mark.django_db


def add(kind: AuditKind, number: int = 1) -> None:
    with transaction.atomic():
        for _ in range(number):
            record(kind, actor=SYSTEM, subject="a test")


def counted() -> Counter[str]:
    """What the whole log says."""
    return Counter(AuditEvent.objects.values_list("kind", flat=True))


def altered(sql: str, *parameters: object) -> None:
    """Write to the log as somebody with more power than the product has."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE migrations_app_auditevent DISABLE TRIGGER USER")
        cursor.execute(sql, parameters)
        cursor.execute("ALTER TABLE migrations_app_auditevent ENABLE TRIGGER USER")


def test_an_empty_log_counts_nothing_and_is_intact():
    reading = AuditCounts().read()
    assert dict(reading.counts) == {}
    assert reading.intact


def test_each_reading_adds_what_has_come_since():
    counts = AuditCounts()
    for kind, number in ((AuditKind.SIGNED_IN, 3), (AuditKind.WEEK_ROLLED_BACK, 2), (AuditKind.SIGNED_IN, TAIL + 7)):
        add(kind, number)
        reading = counts.read()
        assert reading.counts == counted()
        assert reading.intact
    assert counts.read().counts == counted() == {"account.signed_in": TAIL + 10, "week.rolled_back": 2}


def test_only_what_has_come_since_is_counted():
    counts = AuditCounts()
    add(AuditKind.SIGNED_IN, 4)
    counts.read()
    last = AuditEvent.objects.latest("id").pk
    add(AuditKind.SIGNED_IN)
    with CaptureQueriesContext(connection) as captured:
        counts.read()
    assert len(captured) == 2
    assert f'"id" > {last}' in captured[1]["sql"]


def test_two_readers_say_the_same_whenever_they_began():
    early = AuditCounts()
    add(AuditKind.SIGNED_IN, 5)
    early.read()
    add(AuditKind.FLAG_ROLLED_BACK, 2)
    assert early.read().counts == AuditCounts().read().counts


def test_a_long_log_is_counted_in_parts_and_told_only_when_all_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit_counts, "SPAN", 10)
    monkeypatch.setattr(audit_counts, "AT_ONCE", 0)
    add(AuditKind.SIGNED_IN, 23)
    add(AuditKind.WEEK_ENABLED, 12)
    # Numbers are missing too where a transaction was rolled back.
    some = list(AuditEvent.objects.order_by("id").values_list("id", flat=True))[3::7]
    altered("DELETE FROM migrations_app_auditevent WHERE id = ANY(%s)", some)
    counts, told = AuditCounts(), []
    while not told or told[-1] is None:
        told.append(counts.read().counts)
    assert told[:-1] == [None, None]
    assert told[-1] == counted()
    add(AuditKind.WEEK_ENABLED, 2)
    assert counts.read().counts == counted()


@pytest.mark.parametrize("more", [1, TAIL + 5], ids=["few", "more than the tail"])
def test_a_log_that_was_replaced_is_counted_from_its_beginning(more: int):
    """As after restoring a backup: fewer rows, and then others in their place."""
    counts = AuditCounts()
    add(AuditKind.SIGNED_IN, 6)
    counts.read()
    altered("DELETE FROM migrations_app_auditevent WHERE id > (SELECT min(id) + 1 FROM migrations_app_auditevent)")
    assert counts.read().counts == {"account.signed_in": 2}
    altered("DELETE FROM migrations_app_auditevent")
    add(AuditKind.FLAG_ENABLED, more)
    assert counts.read().counts == {"flag.enabled": more}


def test_a_log_that_is_empty_again_counts_nothing():
    counts = AuditCounts()
    add(AuditKind.SIGNED_IN, 2)
    counts.read()
    altered("DELETE FROM migrations_app_auditevent")
    assert dict(counts.read().counts) == {}


@pytest.mark.parametrize("number", [5, TAIL + 20], ids=["a short log", "a long log"])
def test_an_altered_event_of_the_tail_shows(number: int):
    add(AuditKind.SIGNED_IN, number)
    third = AuditEvent.objects.order_by("-id")[2].pk
    altered("UPDATE migrations_app_auditevent SET actor = 'somebody else' WHERE id = %s", third)
    assert not AuditCounts().read().intact


def test_a_missing_event_of_the_tail_shows():
    add(AuditKind.SIGNED_IN, 5)
    altered("DELETE FROM migrations_app_auditevent WHERE id = %s", AuditEvent.objects.order_by("-id")[2].pk)
    assert not AuditCounts().read().intact


def test_a_missing_first_event_shows_while_the_log_is_short():
    add(AuditKind.SIGNED_IN, 5)
    altered("DELETE FROM migrations_app_auditevent WHERE id = %s", AuditEvent.objects.order_by("id")[0].pk)
    assert not AuditCounts().read().intact
