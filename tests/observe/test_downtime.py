"""The downtime clock: what readings add to it, and that it stays right however often and late it is asked to count."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.weeks import finish_week, roll_back_week
from migrations_app.choices import Phase
from migrations_app.gateways.base import Side, SideTraffic
from migrations_app.models import DowntimeClock, DowntimeSpan, Flag, Gateway, MaintenanceWindow, Plan, Week
from migrations_app.observe import downtime
from migrations_app.observe.downtime import (
    AFTER_ROLLBACK,
    Counted,
    Outage,
    Reading,
    Served,
    count,
    count_downtime,
)
from migrations_app.observe.traffic import store, store_all
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.tasks import read_traffic
from tests.factories import memory_gateway, put_behind, tick_all

NEW, OLD = Side.SERVICE, Side.MONOLITH
SECOND = timedelta(seconds=1)
LONGEST = 10 * SECOND
NOON = datetime.fromisoformat("2026-11-24T12:00:00+00:00")


# -- what readings add up to ------------------------------------------------------------------------------------------


def reading(begin: float, end: float, **served: tuple[int, int]) -> Reading:
    """`new1=(requests, failed)`: to the new side of the service 1."""
    sides = {"new": NEW, "old": OLD}
    return Reading(
        NOON + begin * SECOND,
        NOON + end * SECOND,
        {(int(name[-1]), sides[name[:-1]]): Served(*counts) for name, counts in served.items()},
    )


def counted(*readings: Reading, since: float = 0, share: int = 50, services=(1, 2), planned=()) -> Counted:
    return count(
        readings,
        services,
        NOON + since * SECOND,
        share=share,
        longest=LONGEST,
        is_planned=lambda service, side, _at: (service, side) in planned,
    )


@pytest.mark.parametrize(
    ("served", "seconds"),
    [
        ({"new1": (10, 10)}, 1),
        ({"new1": (10, 5)}, 1),
        ({"new1": (10, 4)}, 0),
        ({"new1": (1000, 1)}, 0),
        ({"new1": (1, 1)}, 1),
        ({"new1": (0, 1)}, 1),
        ({"new1": (10, 0)}, 0),
        ({}, 0),
        ({"new1": (5, 5), "old1": (95, 0)}, 0),
        ({"new1": (50, 50), "old1": (50, 0)}, 1),
        ({"old1": (10, 10)}, 1),
        ({"new3": (10, 10)}, 0),
    ],
    ids=[
        "all failed",
        "half of them",
        "fewer than half",
        "one of a thousand",
        "the only one",
        "one that ended after its reading",
        "none",
        "nobody asked",
        "five per cent of both sides",
        "half of both sides",
        "the old side of a service of the week",
        "a service of another week",
    ],
)
def test_a_second_counts_when_the_share_of_one_services_requests_failed(served, seconds):
    assert counted(reading(0, 1, **served)).down == seconds * SECOND


def test_the_share_is_the_plans():
    assert counted(reading(0, 1, new1=(100, 1)), share=1).down == SECOND
    assert counted(reading(0, 1, new1=(100, 99)), share=100).down == timedelta(0)


def test_each_service_counts_alone_and_the_clock_is_their_union():
    found = counted(reading(0, 1, new1=(9, 9), new2=(1000, 0)), reading(1, 2, new1=(9, 9), new2=(9, 9)))
    assert found.down == 2 * SECOND
    assert [(one.service, one.end - one.begin) for one in found.outages] == [(1, 2 * SECOND), (2, SECOND)]
    assert (found.requests, found.failed) == (1027, 27)


def test_a_reading_that_covers_more_counts_what_it_covers():
    assert counted(reading(0, 3, new1=(3, 3))).down == 3 * SECOND


def test_only_what_lies_after_the_beginning_counts():
    assert counted(reading(0, 1, new1=(3, 3)), since=0.75).down == SECOND / 4


def test_a_reading_that_covers_too_much_tells_nothing_of_when():
    found = counted(reading(0, 11, new1=(10, 10)), reading(11, 12, new1=(1, 0)))
    assert (found.down, found.not_known) == (timedelta(0), 11 * SECOND)
    assert (found.requests, found.failed) == (11, 10)


def test_readings_that_were_lost_are_not_known():
    found = counted(reading(0, 1, new1=(1, 0)), reading(5, 6, new1=(1, 1)))
    assert (found.down, found.not_known) == (SECOND, 4 * SECOND)


def test_a_reading_without_one_before_it_is_not_known():
    first = Reading(None, NOON + 4 * SECOND, {(1, NEW): Served(5, 5)})
    found = counted(first, reading(4, 5, new1=(5, 5)))
    assert (found.down, found.not_known) == (SECOND, 4 * SECOND)


def test_an_outage_goes_on_over_readings_and_ends_with_the_first_good_one():
    found = counted(
        reading(0, 1, new1=(4, 4)), reading(1, 2, new1=(6, 3)), reading(2, 3, new1=(9, 0)), reading(3, 4, new1=(1, 1))
    )
    assert found.outages == (
        Outage(1, NOON, NOON + 2 * SECOND, 10, 7, planned=False),
        Outage(1, NOON + 3 * SECOND, NOON + 4 * SECOND, 1, 1, planned=False),
    )


def test_planned_maintenance_is_counted_apart_and_hides_no_other_service():
    window = {(1, NEW)}
    assert counted(reading(0, 1, new1=(2, 2)), planned=window).planned == SECOND
    assert counted(reading(0, 1, new1=(2, 2)), planned=window).down == timedelta(0)
    both = counted(reading(0, 1, new1=(2, 2), new2=(2, 2)), planned=window)
    assert (both.down, both.planned) == (SECOND, timedelta(0))
    other_side = counted(reading(0, 1, new1=(2, 2), old1=(2, 1)), planned=window)
    assert (other_side.down, other_side.planned) == (SECOND, timedelta(0))


# -- the clock of a week ----------------------------------------------------------------------------------------------


@pytest.fixture
def week(plan):
    """Week 1 began at noon: its three services are on, and the counters were read just then."""
    put_behind(1)
    Week.objects.filter(number=1).update(started_at=NOON, soak_started_at=NOON)
    Flag.objects.filter(week__number=1).update(changed_at=NOON)
    read(0)
    return Week.objects.get(number=1)


def read(at: float, **served: tuple[int, ...]) -> list[int]:
    """A reading so many seconds after noon, with the counters by then: `rag=(requests, errors, failovers, of
    these failed too)`; counted."""
    moment = NOON + at * SECOND
    totals = {(key, NEW): SideTraffic(0, 0) for key in ("rag", "storage", "notification")}
    for key, (requests, errors, *over) in served.items():
        failovers, failed_failovers = (*over, 0, 0)[:2]
        totals[key, NEW] = SideTraffic(requests, errors, failovers=failovers, failed_failovers=failed_failovers)
    store(totals, moment)
    return count_downtime(moment)


def clock() -> DowntimeClock:
    return DowntimeClock.objects.get(week__number=1)


def down() -> float:
    return clock().down.total_seconds()


def test_a_week_that_has_not_begun_has_no_clock_and_costs_one_question(plan):
    with CaptureQueriesContext(connection) as found:
        assert count_downtime() == []
    assert len(found) == 1
    assert not DowntimeClock.objects.exists()


def test_the_clock_begins_with_the_first_move(week):
    assert read(1, rag=(5, 0)) == [1]
    row = clock()
    assert (row.since, row.counted_until, row.running) == (NOON, NOON + SECOND, True)
    assert (row.down, row.requests, row.failed, row.of_services) == (timedelta(0), 5, 0, {})


def test_what_fails_is_counted_once_with_its_span(week):
    read(1, rag=(5, 0))
    read(2, rag=(9, 4))
    read(3, rag=(19, 14), storage=(2, 2))
    read(4, rag=(29, 14), storage=(2, 2))
    assert down() == 2
    assert clock().of_services == {"rag": 2.0, "storage": 1.0}
    spans = DowntimeSpan.objects.order_by("service").values_list(
        "service", "begins_at", "ends_at", "requests", "failed"
    )
    assert list(spans) == [
        ("rag", NOON + SECOND, NOON + 3 * SECOND, 14, 14),
        ("storage", NOON + 2 * SECOND, NOON + 3 * SECOND, 2, 2),
    ]


def test_what_fails_over_is_no_downtime(week):
    read(1, rag=(10, 10, 10))
    assert (down(), clock().failed) == (0, 0)


def test_what_failed_over_and_failed_there_too_is_downtime(week):
    """The service died, and the monolith has the prefix no more: every client meets that."""
    read(1, rag=(10, 10, 10, 4))
    assert (down(), clock().failed) == (0, 4)
    read(2, rag=(20, 20, 20, 14))
    assert (down(), clock().failed) == (1, 14)


def test_counting_again_counts_nothing_again(week):
    read(1, rag=(5, 5))
    for _ in range(3):
        assert count_downtime(NOON + SECOND) == []
    assert (down(), DowntimeSpan.objects.count(), clock().requests) == (1, 1, 5)


def test_counting_late_finds_every_reading(week):
    for second in range(1, 6):
        store({("rag", NEW): SideTraffic(2 * second, 2 * second)}, NOON + second * SECOND)
    count_downtime(NOON + 5 * SECOND)
    assert (down(), DowntimeSpan.objects.count()) == (5, 1)


def test_a_skipped_reading_is_covered_by_the_next(week):
    read(3, rag=(5, 5))
    assert down() == 3


def test_a_gateway_that_is_away_is_not_known_and_not_zero(week):
    read(1, rag=(5, 0))
    for second in range(2, 14):
        count_downtime(NOON + second * SECOND, away=True)
    assert clock().not_known == 12 * SECOND
    read(14, rag=(7, 2))
    row = clock()
    assert (row.down, row.not_known) == (timedelta(0), 13 * SECOND)
    read(15, rag=(9, 4))
    assert (clock().down, clock().not_known) == (SECOND, 13 * SECOND)


def test_one_gateway_of_several_that_is_away_is_not_known_unless_another_tells_of_an_outage(week):
    main = Gateway.objects.get()
    other = Gateway.objects.create(plan=main.plan, key="gw-2", adapter="memory")

    def read_both(second: int, first: tuple[int, int], second_one: tuple[int, int] | None) -> None:
        counters = {main.pk: first, other.pk: second_one}
        found = {key: {("rag", NEW): SideTraffic(*one)} for key, one in counters.items() if one}
        store_all(found, NOON + second * SECOND, away=second_one is None)
        count_downtime(NOON + second * SECOND)

    read_both(1, (0, 0), (0, 0))
    for second in range(2, 15):
        read_both(second, (second, 1 if second >= 5 else 0), None)
    row = clock()
    assert (row.down, row.not_known) == (SECOND, 12 * SECOND)
    read_both(15, (15, 1), (900, 900))  # what failed meanwhile, and nobody knows when
    row = clock()
    assert (row.down, row.not_known, row.failed) == (SECOND, 13 * SECOND, 901)
    read_both(16, (16, 1), (902, 902))
    assert (clock().down, clock().not_known) == (2 * SECOND, 13 * SECOND)


def test_a_short_absence_is_not_known_either(week):
    read(1, rag=(5, 0))
    count_downtime(NOON + 2 * SECOND, away=True)
    read(3, rag=(7, 2))
    assert (clock().down, clock().not_known) == (SECOND, SECOND)


def test_what_no_reading_has_come_for_is_not_known_yet(week):
    read(1, rag=(5, 0))
    assert clock().not_known_at(NOON + 8 * SECOND) == timedelta(0)
    assert clock().not_known_at(NOON + 31 * SECOND) == 30 * SECOND


def test_a_machine_whose_time_was_set_back_counts_on_from_there(week):
    read(60, rag=(1, 0))
    DowntimeClock.objects.update(counted_until=NOON + timedelta(hours=1))
    read(61, rag=(2, 1))
    read(62, rag=(3, 2))
    assert down() == 1


def test_planned_maintenance_is_not_in_it(week):
    read(1, rag=(1, 0))
    MaintenanceWindow.objects.create(
        plan=Plan.objects.get(),
        title="disks",
        targets=["rag"],
        starts_at=NOON + SECOND,
        ends_at=NOON + 3 * SECOND,
        planned_by="somebody",
        planned_at=NOON - timedelta(hours=1),
    )
    read(2, rag=(2, 1))
    read(3, rag=(3, 2))
    row = clock()
    assert (row.down, row.planned, row.of_services) == (SECOND, SECOND, {"rag": 1.0})
    assert [span.planned for span in DowntimeSpan.objects.order_by("begins_at")] == [True, False]


def test_a_rollback_does_not_stop_it_at_once_but_what_the_monolith_does_later_is_not_the_weeks(week, shell):
    read(1, rag=(1, 1))
    roll_back_week(number=1, actor=shell)
    Gateway.objects.update(observed_weights={})
    Flag.objects.filter(week__number=1).update(changed_at=NOON + 2 * SECOND)
    read(2, rag=(2, 2))
    assert (down(), clock().running) == (2, True)
    later = AFTER_ROLLBACK.total_seconds() + 3
    read(later, rag=(3, 2))
    assert clock().running is False
    before = clock()
    read(later + 1, rag=(4, 3))
    assert clock().down == before.down


def test_a_rollback_that_the_gateway_has_not_taken_keeps_it_running(week, shell):
    read(1, rag=(1, 1))
    roll_back_week(number=1, actor=shell)
    Flag.objects.filter(week__number=1).update(changed_at=NOON - AFTER_ROLLBACK - SECOND)
    Gateway.objects.update(observed_weights={"USE_RAG_SERVICE": 100})
    read(2, rag=(2, 2))
    assert (down(), clock().running) == (2, True)
    Gateway.objects.update(observed_weights={"USE_RAG_SERVICE": 0})
    read(3, rag=(3, 3))  # it has taken it somewhere in this reading
    assert (down(), clock().running) == (3, False)
    read(4, rag=(4, 4))
    assert down() == 3


def test_a_rollback_while_nobody_counted_is_found_by_the_next_reading(week, shell):
    """The workers died, it was rolled back without them, and they came back when the five minutes were over."""
    read(1, rag=(1, 1))
    roll_back_week(number=1, actor=shell)
    Gateway.objects.update(observed_weights={})
    Flag.objects.filter(week__number=1).update(changed_at=NOON + 60 * SECOND)
    later = 60 + AFTER_ROLLBACK.total_seconds() + 100
    read(later, rag=(900, 900))
    row = clock()
    assert (row.down, row.not_known, row.running) == (SECOND, (later - 1) * SECOND, False)


def test_after_a_stop_it_goes_on_with_the_next_move(week):
    read(1, rag=(1, 1))
    DowntimeClock.objects.update(running=False)
    Flag.objects.filter(key="USE_RAG_SERVICE").update(changed_at=NOON + 100.5 * SECOND)
    read(100, rag=(1, 1))
    read(101, rag=(2, 2))
    row = clock()
    assert (row.running, row.since, row.not_known) == (True, NOON, timedelta(0))
    assert row.down == 1.5 * SECOND


def test_a_week_that_is_done_is_not_counted_any_more(week, shell):
    read(1, rag=(1, 1))
    Week.objects.filter(number=1).update(soak_started_at=timezone.now() - timedelta(days=30))
    tick_all(1, shell, phase=Phase.DONE)
    finish_week(number=1, actor=shell)
    read(2, rag=(2, 2))
    assert (down(), clock().running) == (1, False)
    assert count_downtime(NOON + 3 * SECOND) == []


def test_the_spans_are_bounded_and_the_sum_is_not(week, monkeypatch):
    monkeypatch.setattr(downtime, "SPANS_KEPT", 20)
    for turn in range(25):
        read(2 * turn + 1, rag=(2 * turn + 1, turn + 1))
        store({("rag", NEW): SideTraffic(2 * turn + 2, turn + 1)}, NOON + (2 * turn + 2) * SECOND)
    count_downtime(NOON + 50 * SECOND)
    assert DowntimeSpan.objects.count() == 20
    assert DowntimeSpan.objects.order_by("begins_at").first().begins_at == NOON + 10 * SECOND
    assert down() == 25


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_count_every_second_once(plan):
    put_behind(1)
    Week.objects.filter(number=1).update(started_at=NOON, soak_started_at=NOON)
    read(0)
    for second in range(1, 9):
        store({("rag", NEW): SideTraffic(second, second)}, NOON + second * SECOND)
    together = Barrier(4)

    def work(_: int) -> list[int]:
        together.wait(timeout=30)
        try:
            return count_downtime(NOON + 8 * SECOND)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(work, range(4)))
    assert sorted(found) == [[], [], [], [1]]
    row = clock()
    assert (row.down, row.requests, row.failed) == (8 * SECOND, 8, 8)
    assert DowntimeSpan.objects.get().length == 8 * SECOND


def test_the_task_that_reads_the_counters_runs_the_clock(plan, settings):
    put_behind(1)
    reconcile_all()
    gateway = memory_gateway()
    read_traffic()
    gateway.serve("/api/rag")
    read_traffic()
    assert clock().requests == 1
    gateway.answers = False
    before = clock()
    read_traffic()
    after = clock()
    assert after.not_known > before.not_known
    assert after.counted_until > before.counted_until
    assert after.down == timedelta(0)
