"""The migration to partitions keeps what there is, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection

from migrations_app.models import HealthSample, Service, TrafficSample, TriggerState, Week
from migrations_app.observe import partitions
from tests.factories import load_tracseq

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.django_db(transaction=True)


def migrate(name: str) -> None:
    call_command("migrate", "migrations_app", name, verbosity=0)


@pytest.fixture
def latest() -> Iterator[None]:
    """Whatever happens, the next test finds the newest schema."""
    yield
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE migrations_app_healthsample, migrations_app_trafficsample")
    call_command("migrate", verbosity=0)


def rows(table: str, columns: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {table} ORDER BY id")
        return cursor.fetchall()


def indexes(table: str) -> set[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", [table])
        return {(name, definition) for name, definition in cursor.fetchall() if "again" not in name}


def add_sample(at: datetime, retries: int = 0) -> None:
    """Of what no route matches, as the version of 0011 stores it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO migrations_app_trafficsample"
            " (side, read_at, requests, errors, client_errors, retries, latency)"
            " VALUES ('monolith', %s, 1, 0, 1, %s, '{}')",
            [at, retries],
        )


HEALTH = "id, target, polled_at, healthy, status_code, milliseconds, error, connect_ms, first_byte_ms"
TRAFFIC = "id, service_id, side, read_at, requests, errors, latency::text"


def test_samples_are_kept_there_and_back(latest):
    load_tracseq(adapter="memory")
    service = Service.objects.get(key="auth")
    for hours in (0, 13, 50, 24 * 40):
        at = NOON - timedelta(hours=hours)
        HealthSample.objects.create(target="auth", polled_at=at, healthy=None, milliseconds=hours / 3, error="cut off")
        TrafficSample.objects.create(
            service=service, side="service", read_at=at, requests=hours, errors=1, latency=[3, 1, hours][: hours % 4]
        )
    week = Week.objects.get(number=1)
    now = {"generation": 1, "judged_at": NOON, "since": NOON}
    TriggerState.objects.create(week=week, key="errors", state="ok", value="0 %", limit="5 %", **now)  # 0021 takes it
    health = rows("migrations_app_healthsample", HEALTH)
    traffic = rows("migrations_app_trafficsample", TRAFFIC.replace("latency::text", "to_jsonb(latency)::text"))
    shape = indexes("migrations_app_trafficsample")
    migrate("0008_health_polls")
    assert rows("migrations_app_healthsample", HEALTH) == health
    assert rows("migrations_app_trafficsample", TRAFFIC) == traffic
    assert {"traffic_sample_age", "traffic_sample_of_a_side"} < {
        name for name, _ in indexes("migrations_app_trafficsample")
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO migrations_app_healthsample (target, polled_at, healthy, error) VALUES ('rag', %s, true, '')",
            [NOON],
        )
    migrate("0009_history")
    assert rows("migrations_app_healthsample", HEALTH)[:-1] == health
    assert rows("migrations_app_trafficsample", TRAFFIC.replace("latency::text", "to_jsonb(latency)::text")) == traffic
    assert indexes("migrations_app_trafficsample") == shape
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM migrations_app_healthsample_default")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM migrations_app_trafficsample_20261122")
        assert cursor.fetchone() == (1,)
    ids = [row.pk for row in HealthSample.objects.order_by("id")]
    new = HealthSample.objects.create(target="auth", polled_at=NOON, healthy=True)
    assert new.pk > max(ids)


def test_traffic_is_kept_there_and_back_and_begins_with_none_of_what_was_not_counted(latest):
    load_tracseq(adapter="memory")
    service = Service.objects.get(key="auth")
    partitions.make_ahead(NOON)
    migrate("0009_history")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO migrations_app_trafficsample (service_id, side, read_at, requests, errors, latency)"
            " VALUES (%s, 'service', %s, 7, 1, '{}')",
            [service.pk, NOON],
        )
        cursor.execute(
            "INSERT INTO migrations_app_trafficcounter (service_id, side, read_at, requests, errors, latency)"
            " VALUES (%s, 'service', %s, 7, 1, '[]')",
            [service.pk, NOON],
        )
    migrate("0011_traffic_classes")
    counted = "requests, client_errors, retries, failovers"
    assert rows("migrations_app_trafficsample", counted) == [(7, 0, 0, 0)]
    assert rows("migrations_app_trafficcounter", counted) == [(7, None, None, None)]
    add_sample(NOON)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO migrations_app_trafficcounter (side, read_at, requests, errors, latency)"
            " VALUES ('monolith', %s, 1, 0, '[]')",
            [NOON],
        )
    partitions.make_ahead(NOON + timedelta(days=30))  # a partition that is made afterwards takes the same
    add_sample(NOON + timedelta(days=30))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM migrations_app_trafficsample_20261224")
        assert cursor.fetchone() == (1,)
    with pytest.raises(IntegrityError, match="traffic_sample_is_counted"):
        add_sample(NOON + timedelta(days=30), retries=-1)
    migrate("0009_history")
    assert rows("migrations_app_trafficsample", "service_id, requests, errors") == [(service.pk, 7, 1)]
    assert rows("migrations_app_trafficcounter", "service_id, requests, errors") == [(service.pk, 7, 1)]


def test_a_service_that_is_gone_takes_its_samples_with_it(latest):
    load_tracseq(adapter="memory")
    service = Service.objects.get(key="auth")
    TrafficSample.objects.create(service=service, side="service", read_at=NOON, requests=1, errors=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_constraint WHERE conrelid = 'migrations_app_trafficsample'::regclass "
                       "AND contype = 'f' AND confrelid = 'migrations_app_service'::regclass")  # fmt: skip
        assert cursor.fetchone() == (1,)
    service.flag.delete()
    service.delete()
    assert not TrafficSample.objects.exists()
