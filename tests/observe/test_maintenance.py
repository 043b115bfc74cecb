"""Polls within planned maintenance are counted apart: held against a plain count, whatever comes late or is ended."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine as machine
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrations_app.actions.maintenance import end_window, plan_window
from migrations_app.actor import Actor
from migrations_app.choices import ActorKind
from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY
from migrations_app.models import (
    HealthDay,
    HealthHour,
    HealthMinute,
    HealthSample,
    HealthSummary,
    MaintenanceWindow,
    RollupDue,
)
from migrations_app.observe import rollups
from migrations_app.observe.history import bars
from migrations_app.observe.maintenance import announced, planned_until
from migrations_app.observe.rollups import HEALTH, roll_up
from migrations_app.observe.uptime import refresh_summaries

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SPANS = {"minute": HealthMinute, "hour": HealthHour, "day": HealthDay}
TARGETS = ("auth", "rag", "monolith")
# An hour and a day end soon. No clock of any machine is there yet: what is late is so by the mark of the rollups alone.
START = datetime(2126, 11, 24, 22, 50, tzinfo=UTC)
SHELL = Actor("tester", ActorKind.SHELL)


def poll(target: str, at: datetime, *, healthy: bool | None = True) -> None:
    HealthSample.objects.create(target=target, polled_at=at, healthy=healthy, milliseconds=None if not healthy else 3.5)


def polls(since: datetime, count: int, target: str = "auth", *, every: timedelta = SECOND) -> None:
    """One in three fails, and of one in three nobody can tell."""
    HealthSample.objects.bulk_create(
        HealthSample(target=target, polled_at=since + number * every, healthy=(True, False, None)[number % 3])
        for number in range(count)
    )


def plan_at(now: datetime, begin: datetime, end: datetime, *targets: str) -> None:
    with machine.travel(now, tick=False):
        plan_window(title=f"{begin}", targets=targets, starts_at=begin, ends_at=end, actor=SHELL)


def end_at(now: datetime, window: MaintenanceWindow) -> None:
    with machine.travel(now, tick=False):
        end_window(window_id=window.pk, actor=SHELL)


def floor(at: datetime, span: str) -> datetime:
    zero = {"second": 0, "microsecond": 0} | ({"minute": 0} if span != "minute" else {})
    return at.astimezone(UTC).replace(**zero | ({"hour": 0} if span == "day" else {}))


def by_hand(span: str, until: datetime) -> dict:
    """Polls, failed, unknown, in maintenance, and answers by time: of every sample before `until`, one by one."""
    windows = list(MaintenanceWindow.objects.all())
    found: dict = defaultdict(lambda: [0, 0, 0, 0, list(NO_LATENCY)])
    for row in HealthSample.objects.filter(polled_at__lt=until):
        sums = found[row.target, floor(row.polled_at, span)]
        sums[0] += 1
        if any(row.target in window.targets and window.covers(row.polled_at) for window in windows):
            sums[3] += 1
        elif row.healthy is None:
            sums[2] += 1
        elif not row.healthy:
            sums[1] += 1
        if row.milliseconds is not None:
            sums[4][bisect_left(LATENCY_BOUNDS, row.milliseconds)] += 1
    return {key: tuple(sums) for key, sums in found.items()}


def stored(span: str) -> dict:
    rows = SPANS[span].objects.all()
    return {
        (row.target, row.bucket): (row.polls, row.failed, row.unknown, row.maintenance, row.latency) for row in rows
    }


def assert_exact(until: datetime) -> None:
    for span in SPANS:
        assert stored(span) == by_hand(span, until), span


def minute_of(at: datetime, target: str = "auth") -> tuple[int, int, int, int]:
    row = HealthMinute.objects.get(target=target, bucket=floor(at, "minute"))
    return row.polls, row.failed, row.unknown, row.maintenance


@contextmanager
def undone():
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def test_a_poll_in_maintenance_is_counted_in_maintenance_alone(plan):
    plan_at(START, START + 90 * SECOND, START + 150 * SECOND, "auth")
    polls(START, 240)
    polls(START, 240, "rag")
    roll_up(HEALTH, START + 4 * MINUTE)
    assert [minute_of(START + number * MINUTE) for number in range(4)] == [
        (60, 20, 20, 0),
        (60, 10, 10, 30),
        (60, 10, 10, 30),
        (60, 20, 20, 0),
    ]
    assert minute_of(START + 90 * SECOND, "rag") == (60, 20, 20, 0)
    assert_exact(START + 4 * MINUTE)


def test_the_first_moment_is_in_and_the_last_is_not(plan):
    begin, end, tick = START + 10 * SECOND, START + 20 * SECOND, timedelta(microseconds=1)
    plan_at(START, begin, end, "auth")
    for at in (begin - tick, begin, end - tick, end):
        poll("auth", at, healthy=False)
    roll_up(HEALTH, START + MINUTE)
    assert minute_of(START) == (4, 2, 0, 2)


def test_windows_that_overlap_count_each_poll_once(plan):
    for number in range(5):
        plan_at(START, START + number * 10 * SECOND, START + (60 + number * 10) * SECOND, "auth", "rag")
    polls(START, 120)
    roll_up(HEALTH, START + 2 * MINUTE)
    assert minute_of(START) == (60, 0, 0, 60)
    assert minute_of(START + MINUTE) == (60, 7, 7, 40)
    assert_exact(START + 2 * MINUTE)


def test_one_that_is_cancelled_counts_nothing_and_one_that_is_ended_counts_until_then(plan):
    plan_at(START, START + MINUTE, START + 4 * MINUTE, "auth")
    plan_at(START, START, START + 4 * MINUTE, "rag")
    for target in ("auth", "rag"):
        polls(START, 240, target)
    first, second = MaintenanceWindow.objects.order_by("pk")
    end_at(START + 59 * SECOND, first)
    roll_up(HEALTH, START + 2 * MINUTE)
    end_at(START + 130 * SECOND, second)
    roll_up(HEALTH, START + 4 * MINUTE)
    assert not HealthMinute.objects.filter(target="auth", maintenance__gt=0).exists()
    assert [minute_of(START + number * MINUTE, "rag")[3] for number in range(4)] == [60, 60, 10, 0]
    assert_exact(START + 4 * MINUTE)


def test_a_worker_that_was_down_for_an_hour_counts_what_was_planned_and_ended_meanwhile(plan):
    polls(START, 60)
    roll_up(HEALTH, START + MINUTE)
    plan_at(START + 10 * MINUTE, START + 10 * MINUTE, START + 50 * MINUTE, "auth")
    plan_at(START + 12 * MINUTE, START + 20 * MINUTE, START + 90 * MINUTE, "rag")
    end_at(START + 30 * MINUTE, MaintenanceWindow.objects.order_by("pk")[1])
    for target in ("auth", "rag"):
        polls(START + MINUTE, 700, target, every=5 * SECOND)
    assert roll_up(HEALTH, START + 70 * MINUTE)
    assert_exact(START + 70 * MINUTE)
    assert sum(row.maintenance for row in HealthDay.objects.filter(target="auth")) == 40 * 12
    assert sum(row.maintenance for row in HealthHour.objects.filter(target="rag")) == 10 * 12


def test_samples_that_come_late_fall_into_the_window_of_their_time(plan):
    plan_at(START, START + 5 * MINUTE, START + 10 * MINUTE, "auth")
    polls(START, 900)
    roll_up(HEALTH, START + HOUR)
    for seconds in (301, 599, 600, 299):
        poll("auth", START + seconds * SECOND + MINUTE / 7, healthy=False)
    assert RollupDue.objects.exists()
    roll_up(HEALTH, START + HOUR)
    assert_exact(START + HOUR)
    assert not RollupDue.objects.exists()


def test_one_that_is_planned_while_a_rollup_is_at_work_is_counted_by_the_next(plan, monkeypatch):
    """After the rollup has asked whether there are windows, and before it counts: with a minute of grace at that."""
    now = START + 3 * MINUTE
    polls(START, 180)
    real = rollups._maintained

    def planned_behind_its_back(*given):
        found = real(*given)
        plan_at(now, now - MINUTE, now + HOUR, "auth")
        return found

    monkeypatch.setattr(rollups, "_maintained", planned_behind_its_back)
    roll_up(HEALTH, now)
    assert not HealthMinute.objects.filter(maintenance__gt=0).exists()
    monkeypatch.undo()
    roll_up(HEALTH, now + MINUTE)
    assert minute_of(now - MINUTE) == (60, 0, 0, 60)
    assert_exact(now + MINUTE)


def test_a_second_run_writes_nothing_in_maintenance_either(plan):
    plan_at(START, START, START + HOUR, "auth")
    polls(START, 600)
    roll_up(HEALTH, START + 10 * MINUTE)

    def versions() -> list[tuple]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT ctid::text, xmin::text FROM migrations_app_healthminute ORDER BY 1, 2")
            return cursor.fetchall()

    before = versions()
    roll_up(HEALTH, START + 11 * MINUTE)
    assert versions() == before
    assert len(before) == 10


# What happens, one after another. Each number is taken modulo what there is to choose from.
STEP = st.tuples(
    st.sampled_from(["late", "plan", "plan", "end", "wait", "wait", "wait", "roll up"]),
    st.integers(0, 2**16),
    st.integers(0, 2**16),
)


class World:
    """Polls, people and rollups under one clock."""

    def __init__(self) -> None:
        self.now = START

    def take(self, what: str, one: int, other: int) -> None:
        getattr(self, f"take_{what.replace(' ', '_')}")(one, other)

    def take_late(self, one: int, other: int) -> None:
        """Of up to two hours ago: from a worker that could not write."""
        poll(TARGETS[one % 3], self.now - (other % 7200) * SECOND, healthy=(True, False, None)[one % 3])

    def take_plan(self, one: int, other: int) -> None:
        begin = self.now + (one % 900 - 60) * SECOND
        end = max(begin, self.now) + (1 + other % 700) * SECOND
        plan_at(self.now, begin, end, *{TARGETS[one % 3], TARGETS[other % 3]})

    def take_end(self, one: int, _: int) -> None:
        windows = list(MaintenanceWindow.objects.order_by("pk"))
        if windows:
            end_at(self.now, windows[one % len(windows)])

    def take_wait(self, one: int, other: int) -> None:
        """Every target is polled meanwhile, thirty times in a long wait."""
        length = (one % 100 if other % 4 else one % 5400) * SECOND
        every = max(7 * SECOND, length / 30)
        HealthSample.objects.bulk_create(
            HealthSample(target=target, polled_at=self.now + number * every, healthy=(True, False, None)[number % 3])
            for number in range(length // every)
            for target in TARGETS
        )
        self.now += length

    def take_roll_up(self, *_: int) -> None:
        roll_up(HEALTH, self.now)


@pytest.mark.django_db
def test_whatever_is_planned_ended_late_or_down_the_sums_are_those_of_a_plain_count(plan):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(STEP, min_size=5, max_size=40))
    def same(steps: list[tuple[str, int, int]]) -> None:
        with undone():
            world = World()
            for what, one, other in steps:
                world.take(what, one, other)
            until = floor(world.now, "minute") + 5 * MINUTE
            while not roll_up(HEALTH, until):
                pass
            assert_exact(until)

    same()


def test_uptime_is_that_of_the_polls_outside_of_maintenance(plan):
    """A target that failed in its window alone was never down; one that was only polled within it has no uptime."""
    today = floor(START, "day")
    plan_at(today, today + HOUR, today + 2 * HOUR, "auth", "rag")
    for number in range(180):
        at = today + number * MINUTE
        poll("auth", at, healthy=not 60 <= number < 120)
        if 60 <= number < 120:
            poll("rag", at, healthy=False)
    roll_up(HEALTH, today + 3 * HOUR)
    refresh_summaries(today + 3 * HOUR)
    found = {row.target: row for row in HealthSummary.objects.all()}
    assert (found["auth"].uptime_24h, found["auth"].days[-1]) == (10_000, 10_000)
    assert (found["rag"].uptime_24h, found["rag"].days[-1]) == (None, None)
    last = bars("auth", now=today + 3 * HOUR)[-1]
    assert (last.polls, last.failed, last.maintenance, last.uptime) == (180, 0, 60, 10_000)


def test_what_is_on_and_what_comes_are_told_by_target_in_one_query_each(plan, django_assert_num_queries):
    plan_at(START, START, START + 2 * HOUR, "auth", "monolith")
    plan_at(START, START, START + 3 * HOUR, "auth")
    plan_at(START, START + HOUR, START + 2 * HOUR, "rag")
    plan_at(START, START + DAY, START + 2 * DAY, "rag")
    long, longer, later, much_later = MaintenanceWindow.objects.order_by("pk")
    with django_assert_num_queries(1):
        assert planned_until(START) == {"auth": longer.until, "monolith": long.until}
    assert planned_until(START + 2 * HOUR) == {"auth": longer.until}
    assert planned_until(START + HOUR) == {"auth": longer.until, "monolith": long.until, "rag": later.until}
    with django_assert_num_queries(1):
        assert announced(START, within=2 * DAY) == [long, longer, later, much_later]
    assert announced(START, within=HOUR) == [long, longer, later]
    assert announced(START + 2 * HOUR, within=HOUR) == [longer]
    end_at(START + MINUTE, longer)
    end_at(START + MINUTE, later)
    assert planned_until(START + 2 * MINUTE) == {"auth": long.until, "monolith": long.until}
    assert planned_until(START + 90 * MINUTE) == {"auth": long.until, "monolith": long.until}
    assert announced(START + 2 * MINUTE, within=2 * DAY) == [long, much_later]
