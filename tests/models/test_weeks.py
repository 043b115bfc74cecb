"""The states of a week, held to by the database itself, whoever writes to it."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from migrations_app.choices import WeekStatus
from migrations_app.models import Plan, Week
from tests.factories import put_behind

PLANNED, IN_PROGRESS, SOAKING, DONE, ROLLED_BACK = (
    WeekStatus.PLANNED,
    WeekStatus.IN_PROGRESS,
    WeekStatus.SOAKING,
    WeekStatus.DONE,
    WeekStatus.ROLLED_BACK,
)
POSSIBLE = {
    # The last: services that were on the new side before this database knew of them.
    PLANNED: {IN_PROGRESS, SOAKING, ROLLED_BACK},
    IN_PROGRESS: {SOAKING, ROLLED_BACK},
    SOAKING: {IN_PROGRESS, DONE, ROLLED_BACK},
    DONE: {IN_PROGRESS, ROLLED_BACK},
    ROLLED_BACK: {IN_PROGRESS, SOAKING},
}


def columns(status: WeekStatus) -> dict[str, object]:
    """All that a week of this status has, its soak long over."""
    now = timezone.now()
    return {
        "status": status,
        "started_at": None if status == PLANNED else now - timedelta(days=30),
        "soak_started_at": now - timedelta(days=20) if status in {SOAKING, DONE} else None,
        "done_at": now if status == DONE else None,
        "done_by": "rita" if status == DONE else "",
    }


def put(number: int, status: WeekStatus) -> None:
    """Bring a week to a status past the trigger, as only a superuser can."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        Week.objects.filter(number=number).update(**columns(status))
        cursor.execute("SET LOCAL session_replication_role = origin")


@pytest.mark.parametrize(("old", "new"), list(product(WeekStatus, WeekStatus)), ids=lambda status: status.value)
def test_a_week_goes_only_where_a_week_can_go(plan, old, new):
    put(6, old)  # has no flags, which have a test of their own
    if new == old or new in POSSIBLE[old]:
        Week.objects.filter(number=6).update(**columns(new))
        assert Week.objects.get(number=6).status == new
    else:
        with pytest.raises(IntegrityError, match=f"it cannot go from {old} to {new}"), transaction.atomic():
            Week.objects.filter(number=6).update(**columns(new))
        assert Week.objects.get(number=6).status == old


def test_there_is_no_other_status(plan):
    with pytest.raises(IntegrityError, match="it cannot go from planned to paused"), transaction.atomic():
        Week.objects.filter(number=6).update(status="paused")


@pytest.mark.parametrize("status", [SOAKING, DONE])
def test_a_week_neither_soaks_nor_is_done_while_a_flag_of_it_is_off(plan, status):
    put(1, IN_PROGRESS if status == SOAKING else SOAKING)
    with pytest.raises(IntegrityError, match="while a flag of it is not fully on"), transaction.atomic():
        Week.objects.filter(number=1).update(**columns(status))
    put_behind(2)
    assert Week.objects.get(number=2).status == SOAKING


@pytest.mark.parametrize(
    ("soaked", "scale", "allowed"),
    [
        (None, 1, False),
        (timedelta(hours=48) - timedelta(milliseconds=1), 1, False),
        (timedelta(hours=48), 1, True),
        (timedelta(seconds=48) - timedelta(milliseconds=1), 3600, False),
        (timedelta(seconds=48), 3600, True),
    ],
)
def test_a_week_is_not_done_before_its_soak_is_over(plan, soaked, scale, allowed):
    Plan.objects.update(time_scale=scale)
    Week.objects.filter(number=6).update(soak=timedelta(hours=48))
    put(6, SOAKING)
    now = timezone.now()
    Week.objects.filter(number=6).update(soak_started_at=now - soaked if soaked else None)
    done = {"status": DONE, "done_at": now, "done_by": "rita"}
    if allowed:
        Week.objects.filter(number=6).update(**done)
        assert Week.objects.get(number=6).status == DONE
    else:
        with pytest.raises(IntegrityError, match="it cannot be done before its soak is over"), transaction.atomic():
            Week.objects.filter(number=6).update(**done)


@pytest.mark.parametrize(
    ("status", "wrong", "constraint"),
    [
        (IN_PROGRESS, {"started_at": None}, "week_started_has_a_time"),
        (IN_PROGRESS, {"soak_started_at": timezone.now()}, "week_soaks_only_while_all_is_on"),
        (ROLLED_BACK, {"soak_started_at": timezone.now()}, "week_soaks_only_while_all_is_on"),
        (DONE, {"done_at": None}, "week_done_has_a_time_and_a_person"),
        (DONE, {"done_by": ""}, "week_done_has_a_time_and_a_person"),
        (SOAKING, {"done_by": "rita"}, "week_done_has_a_time_and_a_person"),
        (PLANNED, {"approvals_needed": 1, "approver_role": ""}, "week_approvals_name_a_role"),
    ],
)
def test_what_a_status_says_has_its_times_and_people(plan, status, wrong, constraint):
    put(6, status)
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Week.objects.filter(number=6).update(**wrong)
