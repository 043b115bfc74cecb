"""Maintenance windows, held by the database itself to what is announced and to what is summed up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from migrations_app.models import MaintenanceWindow, RollupMark

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def now():
    return timezone.now()


def window(now, **more) -> MaintenanceWindow:
    values = {"title": "new disks", "starts_at": now, "ends_at": now + HOUR, "targets": ["auth"], "plan_id": 1}
    return MaintenanceWindow.objects.create(**values | {"planned_by": "mia", "planned_at": now} | more)


def refused(name: str):
    return pytest.raises(IntegrityError, match=name)


@pytest.mark.parametrize(
    ("wrong", "constraint"),
    [
        ({"targets": []}, "maintenance_is_of_something"),
        ({"ends_at": 0 * MINUTE}, "maintenance_ends_after_its_start"),
        ({"ends_at": -MINUTE}, "maintenance_ends_after_its_start"),
        ({"starts_at": -MINUTE - SECOND}, "maintenance_begins_not_in_the_past"),
        ({"ended_at": MINUTE}, "maintenance_is_ended_early_by_somebody"),
        ({"ended_by": "mia"}, "maintenance_is_ended_early_by_somebody"),
        ({"ended_at": HOUR, "ended_by": "mia"}, "maintenance_is_ended_early_by_somebody"),
    ],
)
def test_what_no_window_can_be_is_not_stored(plan, now, wrong, constraint):
    values = {name: now + value if isinstance(value, timedelta) else value for name, value in wrong.items()}
    with refused(constraint), transaction.atomic():
        window(now, **values)
    assert not MaintenanceWindow.objects.exists()


def test_a_window_may_begin_a_minute_before_it_is_planned(plan, now):
    assert window(now, starts_at=now - MINUTE).until == now + HOUR


def test_no_window_begins_where_polls_are_summed_up_for_good(plan, now):
    RollupMark.objects.create(source="traffic", done_until=now + HOUR)
    RollupMark.objects.create(source="health", done_until=now + 2 * MINUTE)
    window(now)
    RollupMark.objects.update(done_until=now + 2 * MINUTE + SECOND)
    with refused("is summed up"), transaction.atomic():
        window(now)


def test_no_window_is_ended_where_polls_are_summed_up_for_good(plan, now):
    row = window(now)
    RollupMark.objects.create(source="health", done_until=now + 12 * MINUTE)
    with refused("is summed up"), transaction.atomic():
        MaintenanceWindow.objects.update(ended_at=now + 10 * MINUTE - SECOND, ended_by="mia")
    MaintenanceWindow.objects.update(ended_at=now + 10 * MINUTE, ended_by="mia")
    row.refresh_from_db()
    assert (row.until, row.cancelled) == (now + 10 * MINUTE, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"title": "other disks"},
        {"targets": ["auth", "rag"]},
        {"ends_at": 2 * HOUR},
        {"starts_at": MINUTE},
        {"planned_at": -SECOND},
        {"planned_by": "root"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_nothing_of_a_window_changes_but_its_end(plan, now, changed):
    window(now)
    values = {name: now + value if isinstance(value, timedelta) else value for name, value in changed.items()}
    with refused("nothing of it changes but its end, once"), transaction.atomic():
        MaintenanceWindow.objects.update(**values)


def test_it_is_ended_once_and_never_deleted(plan, now):
    row = window(now)
    MaintenanceWindow.objects.update(ended_at=now + MINUTE, ended_by="mia")
    for values in ({"ended_at": now + 2 * MINUTE}, {"ended_by": "root"}, {"ended_at": None, "ended_by": ""}):
        with refused("nothing of it changes but its end, once"), transaction.atomic():
            MaintenanceWindow.objects.update(**values)
    with refused("it is not deleted but ended"), transaction.atomic():
        row.delete()


def test_a_window_covers_its_first_moment_and_not_its_last(plan, now):
    row = window(now)
    moments = (now - SECOND, now, row.ends_at - SECOND, row.ends_at)
    assert [row.covers(at) for at in moments] == [False, True, True, False]
    row.ended_at = now + MINUTE
    assert (row.covers(now), row.covers(now + MINUTE), row.cancelled) == (True, False, False)
    row.ended_at = now - SECOND
    assert (row.covers(now), row.cancelled) == (False, True)
