"""Which side a day of a product area is told of, with moves in the middle of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from migrations_app.observe.areas import uptime_of_area
from migrations_app.observe.moves import Move
from migrations_app.observe.uptime import DAYS

NOW = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)
TODAY = NOW.replace(hour=0)
NEW, OLD = 9000, 9999
NEWS, OLDS = [NEW] * DAYS, [OLD] * DAYS


def move(back: int, hour: float, before: int, after: int) -> Move:
    """So many days before today, at this hour."""
    return Move(TODAY - timedelta(days=back) + timedelta(hours=hour), before, after, "flag.weight_set", "Ada")


def days(*moves: Move, weight: int | None = None, new=NEWS, old=OLDS, now=NOW) -> list[int | None]:
    last = moves[-1].after if moves else 0
    return uptime_of_area(moves, last if weight is None else weight, new, old, now)


def on(found: list[int | None], back: int) -> int | None:
    return found[DAYS - 1 - back]


@pytest.mark.parametrize(("weight", "told"), [(0, OLD), (100, NEW), (1, NEW), (99, NEW)])
def test_a_flag_that_did_not_move_has_one_answer_for_all_days(weight, told):
    assert days(weight=weight) == [told] * DAYS


def test_before_a_move_it_is_the_old_side_and_after_it_the_new_one():
    found = days(move(10, 9, 0, 100), new=[10_000] * DAYS)
    assert found == [OLD] * 80 + [10_000] * 10


@pytest.mark.parametrize("hour", [0.1, 12, 23.9])
@pytest.mark.parametrize(("before", "after"), [(0, 100), (100, 0)])
def test_a_day_with_a_move_in_the_middle_has_the_worse_of_the_two(hour, before, after):
    served = {0: OLD, 100: NEW}
    found = days(move(5, hour, before, after))
    assert (on(found, 6), on(found, 5), on(found, 4)) == (served[before], NEW, served[after])
    # Also when the new side did better.
    served[100] = 10_000
    found = days(move(5, hour, before, after), new=[10_000] * DAYS)
    assert (on(found, 6), on(found, 5), on(found, 4)) == (served[before], OLD, served[after])


def test_a_move_as_the_day_begins_leaves_nothing_of_it_to_the_other_side():
    found = days(move(5, 0, 0, 100), new=[10_000] * DAYS)
    assert (on(found, 6), on(found, 5)) == (OLD, 10_000)


def test_a_short_trial_that_was_rolled_back_is_not_hidden():
    found = days(move(5, 9, 0, 100), move(5, 9.1, 100, 0))
    assert [on(found, back) for back in (6, 5, 4)] == [OLD, NEW, OLD]


def test_a_day_on_which_both_served_at_the_same_moment_has_the_worse_of_the_two():
    found = days(move(5, 23, 0, 10), move(3, 1, 10, 100))
    assert [on(found, back) for back in (6, 5, 4, 3, 2)] == [OLD, NEW, NEW, NEW, NEW]
    found = days(move(5, 23, 0, 10), move(3, 1, 10, 100), new=[10_000] * DAYS)
    assert [on(found, back) for back in (6, 5, 4, 3, 2)] == [OLD, OLD, OLD, OLD, 10_000]


def test_a_move_of_today_and_one_by_a_clock_that_is_ahead_count():
    assert on(days(move(0, 8, 0, 100)), 0) == NEW
    assert on(days(move(0, 18.001, 0, 100)), 0) == NEW
    assert on(days(weight=100, now=TODAY), 0) == NEW


def test_a_side_of_which_nobody_could_tell_stands_against_nothing():
    unknown = [None] * DAYS
    assert days(weight=50, new=unknown) == [OLD] * DAYS
    assert days(weight=50, old=unknown) == [NEW] * DAYS
    assert days(weight=50, new=unknown, old=unknown) == [None] * DAYS
    # The side that served is the one that is told of, also when nobody could tell.
    assert days(weight=100, new=unknown) == [None] * DAYS


def test_what_the_old_side_never_had_is_told_on_the_days_on_which_the_new_one_served():
    found = days(move(5, 23, 0, 10), move(3, 1, 10, 0), old=None)
    assert [on(found, back) for back in (6, 5, 4, 3, 2)] == [None, NEW, NEW, NEW, None]


def test_each_day_keeps_its_own_figure():
    new, old = list(range(DAYS)), list(range(1000, 1000 + DAYS))
    found = days(move(10, 0, 0, 100), new=new, old=old)
    assert found == [*range(1000, 1079), *range(79, 90)]
