"""The chain of the audit log."""

import pytest
from django.db import ProgrammingError, connection, transaction
from django.test.utils import CaptureQueriesContext

from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Plan, ReasonAsked, audit
from migrations_app.models.audit import GENESIS, ChainCheck, check_chain
from tests.factories import put_behind


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
        "via = 'token 7'",
    ],
)
def test_an_altered_event_shows(three_events, monkeypatch, change):
    monkeypatch.setattr(audit, "PART", 2)
    victim = three_events[1]
    as_superuser(f"UPDATE migrations_app_auditevent SET {change} WHERE id = %s", victim.pk)
    assert check_chain().broken_at == victim.pk


@pytest.mark.parametrize("part", [1, 2, 1000])
def test_it_is_walked_in_parts_to_the_same_end(three_events, monkeypatch, part):
    monkeypatch.setattr(audit, "PART", part)
    total = AuditEvent.objects.count()
    assert check_chain(leaves_room=True) == ChainCheck(total, None, head=three_events[0].digest)
    with CaptureQueriesContext(connection) as asked:
        check_chain()
    assert len(asked) == total // part + 2  # and what other tables tell of


def test_a_missing_event_shows(three_events):
    newest, victim, _ = three_events
    as_superuser("DELETE FROM migrations_app_auditevent WHERE id = %s", victim.pk)
    assert check_chain().broken_at == newest.pk


def test_a_missing_end_shows_by_what_other_tables_tell_also_after_the_next_event(three_events, plan, shell):
    assert (check_chain().intact, check_chain().head) == (True, three_events[0].digest)
    put_behind(1)
    generation = Plan.objects.get().generation
    asked = AuditEvent.objects.latest("id")
    ReasonAsked.objects.create(event=asked)
    assert check_chain().intact
    as_superuser("DELETE FROM migrations_app_auditevent WHERE id = %s", asked.pk)
    missing = (f"event {asked.pk}", f"the event of generation {generation}")
    assert (check_chain().broken_at, check_chain().missing) == (None, missing)
    with transaction.atomic():
        record(AuditKind.SIGNED_IN, actor=shell, subject="account x")
    assert (check_chain().intact, check_chain().missing) == (False, missing)


def test_an_event_of_before_there_was_a_via_keeps_its_digest(noon):
    event = AuditEvent(at=noon, kind="flag.enabled", actor="anna", actor_kind="account", subject="X")
    event.previous_digest = GENESIS
    assert event.content_digest() == "5a2db77a50b2c958490c30c9efb74bf76eadd514400a92c72db57c8033bf395b"
    event.via = "token 7"
    assert event.content_digest() != "5a2db77a50b2c958490c30c9efb74bf76eadd514400a92c72db57c8033bf395b"


def test_the_log_cannot_be_emptied(three_events):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE migrations_app_auditevent ENABLE TRIGGER audit_table_stays")
        with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
            cursor.execute("TRUNCATE migrations_app_auditevent")


def test_an_event_outside_a_transaction_is_a_mistake_of_ours(transactional_db, shell):
    with pytest.raises(RuntimeError, match="in the transaction of its change"):
        record(AuditKind.FLAG_ENABLED, actor=shell, subject="X")
