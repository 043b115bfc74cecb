"""Partitions: no write waits for one, none is missing, and age alone takes them away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection

from migrations_app.gateways.base import Side
from migrations_app.models import (
    HealthDay,
    HealthHour,
    HealthMinute,
    HealthSample,
    RollupMark,
    Service,
    TrafficSample,
)
from migrations_app.observe.partitions import PARTITIONED, SAMPLES, drop_old, make_ahead
from migrations_app.observe.rollups import HEALTH, TRAFFIC, roll_up

NOON = datetime(2027, 3, 30, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def sample(at: datetime, target: str = "auth") -> None:
    HealthSample.objects.create(target=target, polled_at=at, healthy=True, milliseconds=3.0)


def place(at: datetime) -> str:
    """The partition that the sample of this moment lies in, less the table's name."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM migrations_app_healthsample WHERE polled_at = %s", [at])
        return cursor.fetchone()[0].removeprefix("migrations_app_healthsample_")


def partitions(table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1", [table]
        )
        return [name.removeprefix(f"{table}_") for (name,) in cursor.fetchall()]


def waiting() -> int:
    """Rows in the default partitions."""
    with connection.cursor() as cursor:
        found = 0
        for kind in PARTITIONED:
            cursor.execute(f"SELECT count(*) FROM {kind.table}_default")
            found += cursor.fetchone()[0]
        return found


def test_today_and_the_days_ahead_have_a_partition_before_anything_is_written(db):
    make_ahead(NOON)
    days = ["20270330", "20270331", "20270401", "20270402"]
    for table in ("healthsample", "trafficsample", "healthminute", "trafficminute"):
        assert set(days) <= set(partitions(f"migrations_app_{table}"))
    for table in ("healthhour", "traffichour"):
        assert {"202703", "202704"} <= set(partitions(f"migrations_app_{table}"))
    sample(NOON + 2 * DAY)
    assert place(NOON + 2 * DAY) == "20270401"


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (NOON.replace(hour=0), "20270330"),
        (NOON.replace(hour=23, minute=59, second=59, microsecond=999_999), "20270330"),
        (datetime(2027, 3, 29, 23, 30, tzinfo=UTC), "20270329"),
        (datetime.fromisoformat("2027-03-31T01:30:00+02:00"), "20270330"),  # summer time has just begun there
        (NOON - 3 * DAY, "20270327"),
    ],
)
def test_what_was_written_before_its_day_had_a_partition_is_moved_there(db, at, day):
    sample(at)
    assert place(at) == "default"
    assert make_ahead(NOON) == 1
    assert place(at) == day
    assert make_ahead(NOON) == 0
    assert HealthSample.objects.get().polled_at == at


def test_a_sample_of_a_far_future_waits_until_its_day(db):
    sample(NOON + 400 * DAY)
    assert make_ahead(NOON) == 0
    assert place(NOON + 400 * DAY) == "default"
    assert make_ahead(NOON + 399 * DAY) == 1
    assert waiting() == 0


def test_every_partition_has_the_indexes_of_its_table(db):
    sample(NOON)
    make_ahead(NOON)
    with connection.cursor() as cursor:
        for kind in PARTITIONED:
            cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename = %s", [kind.table])
            (of_table,) = cursor.fetchone()
            since, _ = kind.range_of(NOON)
            cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename = %s", [kind.name_of(since)])
            assert cursor.fetchone() == (of_table,)
            assert of_table == 2


def test_old_days_are_dropped_once_they_are_summed_up(db, settings):
    for back in reversed(range(8)):
        sample(NOON - back * DAY)
        make_ahead(NOON - back * DAY)
    assert drop_old(NOON) == []  # nothing is summed up
    roll_up(HEALTH, NOON - 6 * DAY)
    assert drop_old(NOON) == ["migrations_app_healthsample_20270323"]
    assert HealthSample.objects.count() == 7
    roll_up(HEALTH, NOON)
    assert [name[-8:] for name in drop_old(NOON)] == ["20270324", "20270325", "20270326"]
    kept = sorted(row.polled_at for row in HealthSample.objects.all())
    assert kept[0] == NOON - settings.HEALTH_RAW_DAYS * DAY
    assert len(kept) == settings.HEALTH_RAW_DAYS + 1
    assert RollupMark.objects.get(source="health").complete_from == datetime(2027, 3, 27, tzinfo=UTC)
    assert HealthDay.objects.count() == 7


def test_a_sample_older_than_all_that_is_kept_goes_too_and_changes_no_sum(db):
    for back in range(6):
        sample(NOON - back * DAY - timedelta(hours=1))
    make_ahead(NOON)
    roll_up(HEALTH, NOON)
    drop_old(NOON)
    sums = list(HealthDay.objects.order_by("bucket").values_list("bucket", "polls"))
    sample(NOON - 5 * DAY)
    roll_up(HEALTH, NOON)
    make_ahead(NOON)
    drop_old(NOON)
    assert HealthSample.objects.filter(polled_at__lt=NOON - 4 * DAY).count() == 0
    assert list(HealthDay.objects.order_by("bucket").values_list("bucket", "polls")) == sums
    assert waiting() == 0


def test_minutes_and_hours_have_their_own_age_and_days_none(db, settings):
    latency = [1] + [0] * 22
    ages = [1, settings.MINUTE_DAYS + 2, settings.HOUR_DAYS + 40]
    for model in (HealthMinute, HealthHour, HealthDay):
        for age in ages:
            at = (NOON - age * DAY).replace(hour=0)
            model.objects.create(
                target="auth", bucket=at, polls=1, failed=0, unknown=0, total_us=900, max_us=900, latency=latency
            )
    make_ahead(NOON)
    drop_old(NOON)
    assert [HealthMinute.objects.count(), HealthHour.objects.count(), HealthDay.objects.count()] == [1, 2, 3]


@pytest.mark.django_db(transaction=True)
def test_traffic_is_kept_as_long_as_checks_look_back():
    from tests.factories import load_tracseq

    load_tracseq(adapter="memory")
    service = Service.objects.get(key="auth")
    for back in range(10):
        TrafficSample.objects.create(
            service=service, side=Side.SERVICE.value, read_at=NOON - back * DAY, requests=1, errors=0
        )
    make_ahead(NOON)
    roll_up(TRAFFIC, NOON + timedelta(hours=2))
    drop_old(NOON)
    oldest = min(row.read_at for row in TrafficSample.objects.all())
    assert oldest == NOON - 7 * DAY
    assert TrafficSample.objects.count() == 8


@pytest.mark.django_db(transaction=True)
def test_dropping_waits_for_nobody_long(caplog):
    """Somebody reads for long: the drop gives up within a second, and the next call makes up for it."""
    make_ahead(NOON - 8 * DAY)
    sample(NOON - 8 * DAY)
    sample(NOON - DAY)
    make_ahead(NOON)
    roll_up(HEALTH, NOON)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as reader:
        reader.execute("SELECT count(*) FROM migrations_app_healthsample")
        assert drop_old(NOON) == []
        reader.rollback()
    assert "is not dropped yet: canceling statement due to lock timeout" in caplog.text
    assert HealthSample.objects.count() == 2
    drop_old(NOON)
    assert HealthSample.objects.get().polled_at == NOON - DAY


@pytest.mark.django_db(transaction=True)
def test_two_that_make_the_same_partition_do_not_disturb_each_other():
    kind = SAMPLES[0]
    since, until = kind.range_of(NOON + 900 * DAY)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute(
            "SELECT switchyard_add_partition(%s, %s, %s, %s, %s, 'fillfactor=100')",
            [kind.table, kind.column, kind.name_of(since), since, until],
        )
        other.commit()
    make_ahead(NOON + 900 * DAY)
    assert kind.name_of(since).removeprefix(f"{kind.table}_") in partitions(kind.table)
