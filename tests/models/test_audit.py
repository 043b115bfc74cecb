"""The chain of the audit log."""

import pytest
from django.db import ProgrammingError, connection, transaction

from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent
from migrations_app.models.audit import check_chain


@pytest.fixture
def three_events(plan, shell):
    for number in range(3):
        with transaction.atomic():
            record(AuditKind.FLAG_ENABLED, actor=shell, subject=f"FLAG_{number}", after={"weight": number})
    return list(AuditEvent.objects.order_by("-id")[:3])


def as_superuser(sql: str, *parameters) -> None:
    """What somebody with full power over the database could do."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE migrations_app_auditevent DISABLE TRIGGER USER")
        cursor.execute(sql, parameters)
        cursor.execute("ALTER TABLE migrations_app_auditevent ENABLE TRIGGER USER")


def test_an_untouched_log_is_intact(three_events):
    check = check_chain()
    assert check.broken_at is None
    assert check.rows == AuditEvent.objects.count()


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'nobody'",
        "reason = 'x'",
        "after = '{\"weight\": 9}'",
        "at = at + interval '1 second'",
        "kind = 'flag.x'",
    ],
)
def test_an_altered_event_shows(three_events, change):
    victim = three_events[1]
    as_superuser(f"UPDATE migrations_app_auditevent SET {change} WHERE id = %s", victim.pk)
    assert check_chain().broken_at == victim.pk


def test_a_missing_event_shows(three_events):
    newest, victim, _ = three_events
    as_superuser("DELETE FROM migrations_app_auditevent WHERE id = %s", victim.pk)
    assert check_chain().broken_at == newest.pk


def test_the_log_cannot_be_emptied(three_events):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE migrations_app_auditevent ENABLE TRIGGER audit_table_stays")
        with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
            cursor.execute("TRUNCATE migrations_app_auditevent")


def test_an_event_outside_a_transaction_is_a_mistake_of_ours(transactional_db, shell):
    with pytest.raises(RuntimeError, match="in the transaction of its change"):
        record(AuditKind.FLAG_ENABLED, actor=shell, subject="X")
