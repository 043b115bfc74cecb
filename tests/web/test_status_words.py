"""The words of the status page, by what is known."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from migrations_app.choices import Health, WeekStatus
from migrations_app.web.status_words import Facts, Standing, area_of, days_in_words

BEFORE = Facts(
    area="Sign-in",
    owner="the identity team",
    runs=0,
    asked=0,
    new=Health.HEALTHY,
    old=Health.HEALTHY,
    new_side_only=False,
    requests=100,
    errors=0,
    changed_at=None,
    week=WeekStatus.PLANNED,
    planned_start=date(2026, 12, 7),
    planned_end=date(2026, 12, 13),
    today=date(2026, 11, 22),
)
MOVED = replace(BEFORE, runs=100, asked=100, changed_at=datetime(2026, 12, 8, 9, tzinfo=UTC), week=WeekStatus.SOAKING)


def test_before_the_move_the_old_system_serves_and_the_date_is_told():
    area = area_of(BEFORE)
    assert (area.standing, area.serves, area.well) == (Standing.WORKING, "The old system", "All checks pass.")
    assert area.changed == "Never moved"
    assert area.coming == "It is planned to move between 7 December and 13 December"
    assert area.say.endswith("pass it on to the identity team.")


def test_after_the_move_the_new_system_serves_and_nothing_is_to_come():
    area = area_of(MOVED)
    assert (area.serves, area.changed) == ("The new system", "Moved to the new system")
    assert area.coming == "Nothing moves; it is being watched"
    assert area_of(replace(MOVED, week=WeekStatus.DONE)).coming == "Nothing: it has moved"


def test_a_split_names_the_share_and_both_sides():
    area = area_of(replace(MOVED, runs=25, asked=25, week=WeekStatus.IN_PROGRESS))
    assert area.serves == "The new system for 25 % of requests, the old system for the others"
    assert area.changed == "Moved to the new system for 25 %"


@pytest.mark.parametrize(
    ("runs", "new", "old", "standing", "words"),
    [
        (0, Health.UNHEALTHY, Health.HEALTHY, Standing.WORKING, "All checks pass."),
        (0, Health.HEALTHY, Health.UNHEALTHY, Standing.DOWN, "The old system fails its checks."),
        (100, Health.UNHEALTHY, Health.HEALTHY, Standing.DOWN, "The new system fails its checks."),
        (100, Health.HEALTHY, Health.UNHEALTHY, Standing.WORKING, "All checks pass."),
        (25, Health.UNHEALTHY, Health.HEALTHY, Standing.TROUBLE, "The new system fails its checks; whom it serves"),
        (25, Health.UNHEALTHY, Health.UNHEALTHY, Standing.DOWN, "Both systems fail their checks."),
        (100, Health.UNKNOWN, Health.HEALTHY, Standing.UNKNOWN, "Nobody has checked it"),
        (25, Health.UNHEALTHY, Health.UNKNOWN, Standing.TROUBLE, "The new system fails its checks; whom it serves"),
    ],
)
def test_only_the_sides_that_serve_count(runs, new, old, standing, words):
    area = area_of(replace(MOVED, runs=runs, asked=runs, new=new, old=old))
    assert area.standing == standing
    assert area.well.startswith(words)


@pytest.mark.parametrize(
    ("requests", "errors", "standing"),
    [(100, 1, Standing.WORKING), (100, 2, Standing.TROUBLE), (9, 9, Standing.WORKING), (10, 1, Standing.TROUBLE)],
)
def test_requests_that_fail_are_trouble_though_all_checks_pass(requests, errors, standing):
    area = area_of(replace(MOVED, requests=requests, errors=errors))
    assert area.standing == standing
    assert ("requests failed in the last minute" in area.well) == (standing == Standing.TROUBLE)


def test_a_gateway_that_does_not_answer_is_told_as_not_known():
    area = area_of(replace(MOVED, runs=None))
    assert (area.standing, area.serves) == (
        Standing.UNKNOWN,
        "It cannot be told just now which system serves it",
    )


def test_a_move_that_the_gateway_has_not_made_yet_is_under_way():
    assert area_of(replace(MOVED, runs=0)).changed == "A move is under way since"


def test_a_rollback_is_told_and_promises_no_date():
    area = area_of(replace(MOVED, runs=0, asked=0, week=WeekStatus.ROLLED_BACK))
    assert (area.changed, area.coming) == (
        "Moved back to the old system",
        "It will be tried again; no new date is known",
    )


def test_a_date_that_has_passed_is_not_promised_again():
    area = area_of(replace(BEFORE, today=date(2026, 12, 14)))
    assert area.coming == "It was to move between 7 December and 13 December, and has not yet"
    one_day = area_of(replace(BEFORE, planned_end=BEFORE.planned_start))
    assert one_day.coming == "It is planned to move on 7 December"


def test_what_the_old_system_never_had_is_served_by_nobody_before_its_move():
    area = area_of(replace(BEFORE, new_side_only=True, old=Health.UNHEALTHY, requests=0))
    assert area.serves == "Nobody yet: the old system never had it"
    assert (area.standing, area.well) == (Standing.WORKING, "It is not in use yet.")


@pytest.mark.parametrize("new", [Health.HEALTHY, Health.UNHEALTHY])
def test_callers_are_told_the_truth_in_each_state(new):
    area = area_of(replace(MOVED, new=new))
    assert ("does not work at the moment" in area.say) == (area.standing == Standing.DOWN)
    assert "the identity team" in area.say


@pytest.mark.parametrize(
    ("today", "coming"),
    [
        (date(2026, 12, 8), "The rest is planned to move between 7 December and 13 December"),
        (date(2026, 12, 14), "The rest was to move between 7 December and 13 December, and has not yet"),
    ],
)
def test_what_has_moved_in_part_is_not_said_to_move_as_a_whole(today, coming):
    assert area_of(replace(MOVED, runs=25, asked=25, week=WeekStatus.IN_PROGRESS, today=today)).coming == coming


@pytest.mark.parametrize(
    ("uptimes", "words"),
    [
        ([None, None, None], "Of the last 3 days nothing is told: it was not in use, or not checked."),
        ([None, 10_000, 10_000], "Checked on 2 of the last 3 days: everything worked."),
        (
            [9_905, 10_000, 9_905],
            "Checked on 3 of the last 3 days: everything worked on 1. The worst was 3 May, with 99.05 %.",
        ),
        (
            [None, None, 0],
            "Checked on 1 of the last 3 days: something failed on each. The worst was 3 May, with 0.00 %.",
        ),
    ],
)
def test_the_days_of_an_area_are_summed_up_in_words(uptimes, words):
    assert days_in_words(uptimes, ["1 May", "2 May", "3 May"]) == words


def test_a_failover_is_told_as_who_serves_and_is_no_trouble_for_callers():
    area = area_of(replace(MOVED, new=Health.UNHEALTHY, failing_over=True))
    assert area.standing == Standing.WORKING
    assert area.serves == "The old system, in the place of the new one"
    assert area.well == "The new system does not answer; the old one does in its place."
    noticed = area_of(replace(MOVED, new=Health.UNHEALTHY, failing_over=True, errors=50))
    assert (noticed.standing, noticed.well) == (Standing.TROUBLE, "50 of 100 requests failed in the last minute.")
    both = area_of(replace(MOVED, new=Health.UNHEALTHY, old=Health.UNHEALTHY, failing_over=True))
    assert both.standing == Standing.DOWN
