"""`downtime` of a week and `point_of_no_return` of a service in a plan file, from the text to the rows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from migrations_app.actor import SYSTEM
from migrations_app.models import Plan, Service, Week
from migrations_app.planfile.conflicts import conflicts
from migrations_app.planfile.diff import compare
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.writer import write
from migrations_app.reconcile.desired import desired_table

from .samples import changed, only_problem, plan_of

SOAK, FLAG = "    soak: 48h\n", "    flag: USE_AUTH\n"
PAST = FLAG + "    point_of_no_return: users have set new passwords\n"


def with_downtime(text: str) -> str:
    return changed((SOAK, f"{SOAK}    downtime: {text}\n"))


@pytest.mark.parametrize(
    ("text", "under", "share"),
    [("{under: 5m}", 300, 50), ("{under: 0s}", 0, 50), ("{under: 90s, share: 10}", 90, 10)],
)
def test_a_target_is_read_loaded_and_written(db, text, under, share):
    document = plan_of(with_downtime(text))
    load_plan(document, actor=SYSTEM)
    week = Week.objects.get(number=1)
    assert (week.downtime_under, week.downtime_share) == (timedelta(seconds=under), share)
    assert current_plan() == document == plan_of(write(document))


def test_without_one_there_is_no_target_and_half_of_the_requests_counts(db):
    load_plan(plan_of(), actor=SYSTEM)
    week = Week.objects.get(number=1)
    assert (week.downtime_under, week.downtime_share) == (None, 50)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ("{share: 10}", "weeks[1].downtime"),
        ("{under: soon}", "weeks[1].downtime.under"),
        ("{under: 5m, share: 0}", "weeks[1].downtime.share"),
        ("{under: 5m, share: 101}", "weeks[1].downtime.share"),
        ("{under: 5m, of: auth}", "weeks[1].downtime"),
        ("", "weeks[1].downtime"),
    ],
)
def test_what_is_wrong_with_it_is_told_with_its_place(wrong, place):
    assert only_problem(with_downtime(wrong))[1] == place


def test_a_begun_week_keeps_its_target_and_may_be_given_one():
    five, none = plan_of(with_downtime("{under: 5m}")), plan_of(with_downtime("{under: 0s}"))
    (told,) = conflicts(five, none, started=[1], on=[])
    assert told.startswith(
        "Week 1 has been started: its downtime cannot change from under 5m, from 50 % failed on to none"
    )
    assert conflicts(five, plan_of(), started=[1], on=[])[0].endswith("from 50 % failed on to no target.")
    assert conflicts(plan_of(), none, started=[1], on=[]) == []
    assert conflicts(five, none, started=[], on=[]) == []


def test_people_read_what_has_changed():
    lines = compare(plan_of(), plan_of(with_downtime("{under: 5m, share: 20}"))).lines
    assert lines == ("week 1: downtime nothing -> under 5m, from 20 % failed on",)


def test_a_check_of_downtime_needs_a_target():
    lines = "[{title: Little downtime., check: downtime}]"
    text = changed(("[Storage is on the new side.]", lines))
    assert "the week has no 'downtime' to go by" in only_problem(text)[2]
    assert plan_of(text.replace("check: downtime", "check: downtime, parameters: {under: 5m}"))
    assert plan_of(text.replace(SOAK, f"{SOAK}    downtime: {{under: 5m}}\n"))


def test_past_a_point_of_no_return_nothing_fails_over(db):
    load_plan(plan_of(), actor=SYSTEM)
    before = Plan.objects.get().generation
    document = plan_of(changed((FLAG, PAST)))
    loaded = load_plan(document, actor=SYSTEM)
    assert loaded.difference.lines == ("service 'auth': point_of_no_return nothing -> 'users have set new passwords'",)
    assert loaded.generation > before
    routes = desired_table(Plan.objects.get()).routes
    assert {route.service: route.failover for route in routes} == {"auth": False, "storage": True}
    assert Service.objects.get(key="auth").point_of_no_return == "users have set new passwords"
    assert current_plan() == document == plan_of(write(document))


def test_failover_cannot_be_asked_for_past_it_and_the_line_is_named():
    text = changed((FLAG, PAST + "    failover: true\n"))
    said = "is true, but line 17 says that past a point the old side cannot serve it"
    assert only_problem(text) == (18, "services[auth].failover", said)
    assert plan_of(text.replace("failover: true", "failover: false"))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("    point_of_no_return: users have set new passwords\n", "it has a point_of_no_return"),
        ("    failover: false\n", "its failover is false"),
        ("    new_side_only: true\n", "the monolith never had it"),
    ],
)
def test_no_trigger_waits_for_a_failover_that_never_comes(more, why):
    triggers = "    triggers:\n      - {key: away, when: failover}\n"
    assert plan_of(changed((FLAG, FLAG + triggers)))
    told = f"failover never comes about: {why}, so the monolith never answers in its place"
    found = only_problem(changed((FLAG, FLAG + more + triggers)))
    assert found[1:] == ("services[auth].triggers[away].when", told)


def test_nor_does_one_of_a_week_none_of_whose_services_fails_over():
    week = "    risk: high\n"
    triggers = (week, week + "    triggers: [{key: away, when: failover}]\n")
    assert plan_of(changed(triggers))
    found = only_problem(changed(triggers, (FLAG, FLAG + "    failover: false\n")))
    told = "failover never comes about: no service of the week fails over"
    assert found[1:] == ("weeks[2].triggers[away].when", told)


@pytest.mark.parametrize("wrong", ["", '""', "[moved]", "x" * 201])
def test_it_is_a_sentence(wrong):
    text = changed((FLAG, FLAG + f"    point_of_no_return: {wrong}\n"))
    assert only_problem(text)[1] == "services[auth].point_of_no_return"
