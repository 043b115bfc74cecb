"""Sums by minute, hour and day, held against the same sums made in Python from the samples themselves."""

from __future__ import annotations

import random
import threading
from bisect import bisect_left
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models import Sum
from django.db.utils import DatabaseError
from django.utils import timezone

from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY, Side
from migrations_app.models import (
    HealthDay,
    HealthHour,
    HealthMinute,
    HealthSample,
    HealthSummary,
    RollupDue,
    RollupMark,
    Service,
    TrafficDay,
    TrafficHour,
    TrafficMinute,
    TrafficSample,
)
from migrations_app.observe import rollups
from migrations_app.observe.rollups import HEALTH, ROLLUP_LOCKS, TRAFFIC, keep_history, roll_up

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SPANS = [("minute", HealthMinute), ("hour", HealthHour), ("day", HealthDay)]
START = datetime(2026, 11, 24, 22, 50, tzinfo=UTC)  # an hour and a day end soon


def polls(since: datetime, count: int, *, every: timedelta = SECOND, targets=("auth", "rag"), seed: int = 1) -> None:
    """So many polls of each target: some failed, some that nobody could tell of, some on the bounds themselves."""
    made = random.Random(seed)
    rows = []
    for number in range(count):
        for target in targets:
            healthy = made.choice([True, True, True, False, None])
            took = made.choice([None, 0.2, 1.0, 1.0001, 30.0, 29_999.9994, 30_000.0, 45_000.0, made.uniform(0, 400)])
            rows.append(
                HealthSample(target=target, polled_at=since + number * every, healthy=healthy, milliseconds=took)
            )
    HealthSample.objects.bulk_create(rows)


def floor(at: datetime, span: str) -> datetime:
    zero = {"second": 0, "microsecond": 0} | ({"minute": 0} if span != "minute" else {})
    return at.astimezone(UTC).replace(**zero | ({"hour": 0} if span == "day" else {}))


def by_hand(span: str, until: datetime) -> dict:
    """What the rollup of this span must hold, from every sample before `until`."""
    found: dict = defaultdict(lambda: [0, 0, 0, 0, None, list(NO_LATENCY)])
    for row in HealthSample.objects.filter(polled_at__lt=until):
        sums = found[row.target, floor(row.polled_at, span)]
        sums[0] += 1
        sums[1] += row.healthy is False
        sums[2] += row.healthy is None
        if row.milliseconds is not None:
            took = round(row.milliseconds * 1000)
            sums[3] += took
            sums[4] = max(sums[4] or 0, took)
            sums[5][bisect_left(LATENCY_BOUNDS, row.milliseconds)] += 1
    return {key: tuple(sums) for key, sums in found.items()}


def stored(model) -> dict:
    return {
        (row.target, row.bucket): (row.polls, row.failed, row.unknown, row.total_us, row.max_us, row.latency)
        for row in model.objects.all()
    }


def assert_exact(until: datetime) -> None:
    for span, model in SPANS:
        assert stored(model) == by_hand(span, until), span


def versions() -> list[tuple]:
    """Where each row lies, and which transaction wrote it: the same again when nothing was written."""
    with connection.cursor() as cursor:
        found = []
        for _, model in SPANS:
            cursor.execute(f"SELECT tableoid, ctid::text, xmin::text FROM {model._meta.db_table} ORDER BY 1, 2, 3")
            found += cursor.fetchall()
        return found


def test_sums_are_exact_over_the_end_of_an_hour_and_of_a_day(db):
    polls(START, 900, every=5 * SECOND)
    assert roll_up(HEALTH, START + 2 * HOUR)
    assert_exact(START + 2 * HOUR)
    assert HealthDay.objects.count() == 4


def test_a_minute_that_has_not_ended_waits(db):
    polls(START, 90)
    roll_up(HEALTH, START + 89 * SECOND)
    assert_exact(START + MINUTE)
    assert {row.bucket for row in HealthMinute.objects.all()} == {START}
    assert RollupMark.objects.get(source="health").done_until == START + MINUTE
    roll_up(HEALTH, START + 2 * MINUTE)
    assert_exact(START + 2 * MINUTE)


def test_a_second_run_writes_nothing(db):
    polls(START, 300, every=7 * SECOND)
    roll_up(HEALTH, START + HOUR)
    before = versions()
    with transaction.atomic():
        roll_up(HEALTH, START + HOUR)
        roll_up(HEALTH, START + HOUR + MINUTE)
    assert versions() == before


def test_run_each_minute_or_once_after_a_day_the_sums_are_the_same(db):
    polls(START, 600, every=3 * SECOND)
    for minute in range(1, 32):
        roll_up(HEALTH, START + minute * MINUTE + 2 * SECOND)
    each = [stored(model) for _, model in SPANS]
    for model in (RollupMark, RollupDue, *(model for _, model in SPANS)):
        model.objects.all().delete()
    roll_up(HEALTH, START + DAY)
    assert [stored(model) for _, model in SPANS] == each
    assert_exact(START + DAY)


def test_after_a_week_without_workers_the_empty_days_are_passed_over(db, monkeypatch):
    polls(START, 200)
    roll_up(HEALTH, START + 200 * SECOND)
    polls(START + 7 * DAY, 200, seed=2)
    steps = []
    real = rollups._step
    monkeypatch.setattr(rollups, "_step", lambda *given: (steps.append(1), real(*given))[1])
    assert roll_up(HEALTH, START + 7 * DAY + 5 * MINUTE)
    assert_exact(START + 8 * DAY)
    assert len(steps) < 40  # a week has 1,008 times ten minutes


def test_a_call_does_a_bounded_part_and_the_next_one_goes_on(db):
    polls(START, 360, every=10 * SECOND)
    marks = []
    now = START + HOUR
    while not roll_up(HEALTH, now, within=0):
        marks.append(RollupMark.objects.get(source="health").done_until)
        assert_exact(marks[-1])
    assert marks == [START + rollups.STEP * count for count in range(1, 6)]
    assert_exact(now)


def test_a_worker_that_dies_in_the_middle_leaves_nothing_half_done(db, monkeypatch):
    polls(START, 600, every=2 * SECOND)
    real = rollups._sum_up
    calls = []

    def dies(*given):
        real(*given)
        calls.append(1)
        if len(calls) == 2:
            raise DatabaseError("gone")

    monkeypatch.setattr(rollups, "_sum_up", dies)
    with pytest.raises(DatabaseError):
        roll_up(HEALTH, START + HOUR)
    assert RollupMark.objects.get(source="health").done_until == START + rollups.STEP
    assert_exact(START + rollups.STEP)
    roll_up(HEALTH, START + HOUR)
    assert_exact(START + HOUR)


def test_samples_that_come_late_are_summed_up_again(db):
    now = timezone.now()
    since = now - 5 * HOUR
    polls(since, 200, every=MINUTE)
    roll_up(HEALTH, now)
    assert_exact(floor(now, "minute"))
    polls(since + 30 * SECOND, 130, every=MINUTE, targets=("auth", "late"), seed=3)
    assert HealthMinute.objects.filter(target="late").count() == 0
    while not roll_up(HEALTH, now, within=0):
        assert RollupDue.objects.exists()
    assert_exact(floor(now, "minute"))
    assert not RollupDue.objects.exists()


def test_samples_of_the_last_minutes_that_nobody_could_see_yet_are_not_lost(db):
    now = timezone.now().replace(second=30, microsecond=0) + HOUR  # not late by any clock
    polls(now - 2 * MINUTE, 20)
    roll_up(HEALTH, now)
    polls(now - 40 * SECOND, 5, targets=("auth",), seed=5)
    assert not RollupDue.objects.exists()
    roll_up(HEALTH, now + MINUTE)
    assert_exact(now + MINUTE)


def test_samples_before_what_is_complete_spoil_nothing(db):
    now = timezone.now()
    since = floor(now - 3 * HOUR, "hour")
    polls(since, 100, every=MINUTE)
    roll_up(HEALTH, now)
    before = stored(HealthMinute), stored(HealthHour), stored(HealthDay)
    # As after dropping the partition: what is left of the first hour would come out too low.
    HealthSample.objects.filter(polled_at__lt=since + HOUR).delete()
    RollupMark.objects.update(complete_from=since + HOUR)
    polls(since + 5 * MINUTE, 3, seed=7)
    roll_up(HEALTH, now)
    assert (stored(HealthMinute), stored(HealthHour), stored(HealthDay)) == before
    assert not RollupDue.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_late_sample_that_is_not_committed_yet_is_summed_up_once_it_is():
    now = timezone.now()
    polls(now - 2 * HOUR, 20, every=MINUTE)
    roll_up(HEALTH, now)
    polls(now - 2 * HOUR, 1, seed=8)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute(
            "INSERT INTO migrations_app_healthsample (target, polled_at, healthy, error) VALUES ('auth', %s, true, '')",
            [now - 2 * HOUR],
        )
        roll_up(HEALTH, now)
        assert_exact(floor(now, "minute"))
        other.commit()
    roll_up(HEALTH, now)
    assert_exact(floor(now, "minute"))


@pytest.mark.django_db(transaction=True)
def test_one_at_a_time():
    polls(START, 60)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [ROLLUP_LOCKS["health"]])
        assert not roll_up(HEALTH, START + HOUR)
        assert not HealthMinute.objects.exists()
        other.rollback()
    assert roll_up(HEALTH, START + HOUR)
    assert_exact(START + HOUR)


@pytest.mark.django_db(transaction=True)
def test_sums_are_exact_while_samples_are_being_written():
    """A writer at work, now and then late by minutes, and a rollup that never rests."""
    now = timezone.now()
    ended = threading.Event()

    def write() -> None:
        try:
            for number in range(40):
                late = timedelta(minutes=37 * (number % 5))
                polls(now - 10 * MINUTE - late + number * SECOND, 3, targets=("auth",), seed=number)
        finally:
            connection.close()
            ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        roll_up(HEALTH, now)
    writer.join(20)
    roll_up(HEALTH, now)
    assert HealthSample.objects.count() == 120
    assert_exact(floor(now, "minute"))


def test_what_is_copied_in_is_seen_to_be_late_too(db):
    now = timezone.now()
    polls(now - HOUR, 10, every=MINUTE)
    roll_up(HEALTH, now)
    columns = "target, polled_at, healthy, status_code, connect_ms, first_byte_ms, milliseconds, error"
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY migrations_app_healthsample ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["varchar", "timestamptz", "bool", "int2", "float8", "float8", "float8", "varchar"])
        copy.write_row(("auth", now - HOUR, False, 503, 0.1, 2.0, 2.5, "answered 503, expected 200"))
    roll_up(HEALTH, now)
    assert_exact(floor(now, "minute"))


def requests(service: Service, side: Side, at: datetime, count: int, errors: int, latency: list[int]) -> None:  # noqa: PLR0917  # a row as it stands
    TrafficSample.objects.create(
        service=service, side=side.value, read_at=at, requests=count, errors=errors, latency=latency
    )


def test_traffic_is_summed_up_by_service_and_side(plan):
    auth, rag = Service.objects.get(key="auth"), Service.objects.get(key="rag")
    spread = [count % 4 for count in range(len(NO_LATENCY))]
    for second in range(0, 900, 10):
        requests(auth, Side.MONOLITH, START + second * SECOND, 40, 1, spread)
        requests(auth, Side.SERVICE, START + second * SECOND, 2, 0, [])
    requests(rag, Side.SERVICE, START + 65 * SECOND, 3, 3, [1, 2])  # counted by other bounds
    roll_up(TRAFFIC, START + HOUR)
    first = TrafficMinute.objects.get(service="auth", side="monolith", bucket=START)
    assert (first.requests, first.errors, first.latency) == (240, 6, [6 * count for count in spread])
    unknown = TrafficMinute.objects.get(service="auth", side="service", bucket=START)
    assert (unknown.requests, unknown.latency) == (12, list(NO_LATENCY))
    other = TrafficMinute.objects.get(service="rag")
    assert (other.bucket, other.requests, other.errors, other.latency) == (START + MINUTE, 3, 3, list(NO_LATENCY))
    hours = TrafficHour.objects.filter(service="auth", side="monolith").order_by("bucket")
    assert [(row.bucket.hour, row.requests, row.latency[3]) for row in hours] == [(22, 2400, 180), (23, 1200, 90)]
    assert TrafficDay.objects.get(service="auth", side="monolith").requests == 3600


def test_traffic_that_was_put_together_by_the_minute_gives_the_same_sums(plan):
    from migrations_app.gateways.base import SideTraffic
    from migrations_app.observe.traffic import SINGLE_FOR, store

    key = ("auth", Side.MONOLITH)
    for second in range(0, 200, 3):
        store({key: SideTraffic(second * 5, second // 9, (second * 5, *NO_LATENCY[1:]))}, START + second * SECOND)
    roll_up(TRAFFIC, START + 200 * SECOND)
    before = list(TrafficMinute.objects.values_list("bucket", "requests", "errors", "latency"))
    store({key: SideTraffic(990, 22, (990, *NO_LATENCY[1:]))}, START + SINGLE_FOR + 5 * MINUTE)
    assert TrafficSample.objects.count() == 4
    RollupMark.objects.update(done_until=START)
    roll_up(TRAFFIC, START + 200 * SECOND)
    assert list(TrafficMinute.objects.values_list("bucket", "requests", "errors", "latency")) == before
    assert sum(count for _, count, _, _ in before) == 5 * 177


CLASSES = ("requests", "errors", "client_errors", "retries", "failovers", "failed_failovers")
TRAFFIC_SPANS = [("minute", TrafficMinute), ("hour", TrafficHour), ("day", TrafficDay)]


def traffic_by_hand(span: str, until: datetime) -> dict:
    """What the rollup of this span must hold, from every sample before `until`."""
    found: dict = defaultdict(lambda: [0] * len(CLASSES))
    for row in TrafficSample.objects.filter(read_at__lt=until).select_related("service"):
        sums = found[row.service.key if row.service else "", row.side, floor(row.read_at, span)]
        for place, name in enumerate(CLASSES):
            sums[place] += getattr(row, name)
    return {key: tuple(sums) for key, sums in found.items()}


def assert_traffic_exact(until: datetime) -> None:
    for span, model in TRAFFIC_SPANS:
        rows = model.objects.values_list("service", "side", "bucket", *CLASSES)
        assert {tuple(row[:3]): tuple(row[3:]) for row in rows} == traffic_by_hand(span, until), span


def traffic(since: datetime, count: int, *, every: timedelta = 3 * SECOND, seed: int = 1) -> None:
    """So many readings of both sides of two services, and of what no route matches."""
    made = random.Random(seed)
    owners = [(Service.objects.get(key=key), side) for key in ("auth", "rag") for side in Side] + [
        (None, Side.MONOLITH)
    ]
    TrafficSample.objects.bulk_create(
        TrafficSample(
            service=service,
            side=side.value,
            read_at=since + number * every,
            **{name: made.randrange(50) for name in CLASSES},
        )
        for number in range(count)
        for service, side in owners
    )


def test_every_class_of_traffic_is_summed_up_exactly_by_minute_hour_and_day(plan):
    traffic(START, 2 * 60 * 3, every=20 * SECOND)  # two hours: the hour and the day end on the way
    assert roll_up(TRAFFIC, START + 90 * MINUTE, within=60)
    assert_traffic_exact(START + 90 * MINUTE)
    assert TrafficDay.objects.filter(service="").count() == 2
    assert all(TrafficDay.objects.aggregate(*(Sum(name) for name in CLASSES)).values())
    assert roll_up(TRAFFIC, START + DAY, within=60)
    assert_traffic_exact(START + DAY)


def test_traffic_that_is_stored_late_is_summed_up_again(plan):
    traffic(START, 200)
    roll_up(TRAFFIC, START + 10 * MINUTE)
    traffic(START + 8 * MINUTE, 20, every=SECOND, seed=2)
    roll_up(TRAFFIC, START + 11 * MINUTE)
    assert_traffic_exact(START + 11 * MINUTE)


def test_a_worker_that_dies_while_it_sums_up_traffic_leaves_sums_that_go_on(plan, monkeypatch):
    traffic(START, 60 * 3, every=20 * SECOND)
    roll_up(TRAFFIC, START + 15 * MINUTE, within=60)
    save, mark = RollupMark.save, RollupMark.objects.get(source="traffic").done_until

    def die(self, *args, **kwargs):
        raise DatabaseError("killed")

    monkeypatch.setattr(RollupMark, "save", die)
    with pytest.raises(DatabaseError, match="killed"):
        roll_up(TRAFFIC, START + HOUR, within=60)
    monkeypatch.setattr(RollupMark, "save", save)
    assert RollupMark.objects.get(source="traffic").done_until == mark
    assert_traffic_exact(mark)
    roll_up(TRAFFIC, START + HOUR, within=60)
    assert_traffic_exact(START + HOUR)
    before = list(TrafficMinute.objects.extra(select={"written": "xmin::text"}).values_list("written", *CLASSES))
    roll_up(TRAFFIC, START + HOUR, within=60)
    assert (
        list(TrafficMinute.objects.extra(select={"written": "xmin::text"}).values_list("written", *CLASSES)) == before
    )


def test_the_overview_is_written_when_a_minute_more_is_known(db):
    polls(START, 120, targets=("auth",))
    keep_history(START + MINUTE + 2 * SECOND)
    assert HealthSummary.objects.get().refreshed_at == START + MINUTE + 2 * SECOND
    keep_history(START + MINUTE + 17 * SECOND)
    assert HealthSummary.objects.get().refreshed_at == START + MINUTE + 2 * SECOND
    keep_history(START + 2 * MINUTE)
    assert HealthSummary.objects.get().refreshed_at == START + 2 * MINUTE


def test_without_samples_there_is_nothing_to_do(db):
    keep_history(START)
    assert not RollupMark.objects.exists()
    assert not HealthSummary.objects.exists()
