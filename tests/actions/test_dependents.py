"""Weeks that rest on a week, and rolling them back with it."""

from uuid import uuid4

import pytest

from migrations_app.actions.dependents import last_first, resting_on, reverse_order, still_on_after, weeks_in_words
from migrations_app.actions.weeks import roll_back_week
from migrations_app.choices import AuditKind, WeekStatus
from migrations_app.models import AuditEvent, Flag, Plan, Week
from tests.factories import put_behind

BEFORE = {2: [1], 3: [2], 5: [1, 3], 6: [4]}


@pytest.mark.parametrize(
    ("number", "expected"), [(1, {2, 3, 5}), (2, {3, 5}), (3, {5}), (4, {6}), (5, set()), (9, set())]
)
def test_weeks_rest_on_one_however_far(number, expected):
    assert resting_on(number, BEFORE) == expected


def test_a_circle_ends():
    assert resting_on(1, {1: [2], 2: [1]}) == {2}
    assert reverse_order({1, 2}, {1: [2], 2: [1]}) == [2, 1]


def test_the_order_is_that_in_which_they_would_fall():
    assert reverse_order(range(1, 7), BEFORE) == [6, 5, 4, 3, 2, 1]
    # The number does not decide: here week 1 rests on week 3.
    assert reverse_order([1, 2, 3], {1: [3], 2: [1]}) == [2, 1, 3]


@pytest.mark.parametrize(
    ("numbers", "words"), [([4], "week 4"), ([4, 3], "weeks 4 and 3"), ([5, 4, 3], "weeks 5, 4 and 3")]
)
def test_weeks_are_told_in_words(numbers, words):
    assert weeks_in_words(numbers) == words


def on_weeks() -> set[int]:
    return set(Flag.objects.filter(weight__gt=0).values_list("week__number", flat=True))


def test_a_week_goes_back_with_what_rests_on_it_at_one_generation(plan, shell):
    put_behind(1, 2, 3)
    assert still_on_after(1) == [3, 2]
    events, generation = AuditEvent.objects.count(), Plan.objects.get().generation
    change = roll_back_week(number=1, actor=shell, with_later=True)
    assert (change.title, change.generation) == ("Week 1 with what rests on it", generation + 1)
    assert on_weeks() == set()
    assert AuditEvent.objects.count() == events + 1
    event = change.event
    assert (event.kind, event.subject, event.week_number) == (AuditKind.WEEK_ROLLED_BACK, "week 1", 1)
    assert event.after["weeks"] == [3, 2, 1]
    assert event.after["USE_AUTH_SERVICE"] == 0
    assert set(Week.objects.filter(number__lte=3).values_list("status", flat=True)) == {WeekStatus.ROLLED_BACK}
    assert set(Week.objects.filter(number__gt=3).values_list("status", flat=True)) == {WeekStatus.PLANNED}


def test_without_being_asked_later_weeks_stay(plan, shell):
    put_behind(1, 2)
    change = roll_back_week(number=1, actor=shell)
    assert on_weeks() == {2}
    assert "weeks" not in change.event.after
    assert still_on_after(1) == [2]


def test_what_rests_on_a_week_goes_back_though_the_week_is_off_already(plan, shell):
    put_behind(1, 2)
    roll_back_week(number=1, actor=shell)
    version = Week.objects.get(number=1).version
    change = roll_back_week(number=1, actor=shell, with_later=True)
    assert change.event.after == {"USE_TEMPLATE_SERVICE": 0, "weeks": [2]}
    assert on_weeks() == set()
    assert Week.objects.get(number=1).version == version


def test_earlier_weeks_and_the_same_click_again_change_nothing(plan, shell):
    put_behind(1, 2)
    key = uuid4()
    first = roll_back_week(number=2, actor=shell, with_later=True, request_key=key)
    assert on_weeks() == {1}
    again = roll_back_week(number=2, actor=shell, with_later=True, request_key=key)
    assert (again.changed, again.event) == (False, first.event)


def test_all_weeks_stand_last_first(plan):
    assert [week.number for week in last_first()] == [6, 5, 4, 3, 2, 1]
