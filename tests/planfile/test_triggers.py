"""The `triggers` of a plan file: read, refused with their line, written, compared, loaded."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from migrations_app.actor import SYSTEM
from migrations_app.models import Service
from migrations_app.planfile.diff import compare
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.triggers import ErrorTrigger, FailoverTrigger, HealthTrigger, LatencyTrigger, from_rows
from migrations_app.planfile.writer import write

from .samples import changed, only_problem, plan_of

UPSTREAM = "    upstream: 127.0.0.1:3014\n"
LINES = [
    "{key: down, when: health, failures: 2}",
    "{key: errors, when: errors, above: 1.5, window: 1m, requests: 50, on_no_data: act, do: pause}",
    "{key: slow, when: latency, above: 800, times: 2.0, dry_run: true}",
    "{key: away, when: failover, do: tell}",
]


def with_triggers(*lines: str) -> str:
    return changed((UPSTREAM, UPSTREAM + "    triggers:\n" + "".join(f"      - {line}\n" for line in lines)))


def test_all_that_can_be_said_is_read():
    down, errors, slow, away = plan_of(with_triggers(*LINES)).services[0].triggers
    assert down == HealthTrigger(key="down", when="health", failures=2)
    assert isinstance(errors, ErrorTrigger)
    assert (errors.above, errors.window, errors.requests) == (1.5, timedelta(minutes=1), 50)
    assert (errors.on_no_data, errors.do, errors.dry_run) == ("act", "pause", False)
    assert isinstance(slow, LatencyTrigger)
    assert away == FailoverTrigger(key="away", when="failover", do="tell")
    assert (slow.above, slow.times, slow.dry_run, slow.do) == (800, 2.0, True, "rollback")


def test_without_any_nothing_goes_back_by_itself():
    assert plan_of().services[0].triggers == ()


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ("{key: down, when: weather}", ""),
        ("{key: down}", ""),
        ("{key: Down, when: health}", "key"),
        ("{key: down, when: health, failures: 0}", "failures"),
        ("{key: down, when: health, window: 1m}", "window"),
        ("{key: e, when: errors, above: 100}", "above"),
        ("{key: e, when: errors, window: 2h}", "window"),
        ("{key: e, when: errors, window: 0s}", "window"),
        ("{key: e, when: errors, requests: 0}", "requests"),
        ("{key: e, when: errors, on_no_data: panic}", "on_no_data"),
        ("{key: e, when: errors, do: dance}", "do"),
        ("{key: s, when: latency}", ""),
        ("{key: s, when: latency, times: 1}", "times"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, path):
    line, found, reason = only_problem(with_triggers(wrong))
    assert line > 0
    assert reason
    assert found.startswith("services[storage].triggers")
    assert path in found or path in reason


def test_a_key_is_there_once():
    _, path, reason = only_problem(with_triggers(LINES[0], LINES[0]))
    assert (path, reason) == ("services[storage].triggers", "the trigger 'down' is there twice")


def test_what_is_written_reads_the_same():
    plan = plan_of(with_triggers(*LINES))
    assert plan_of(write(plan)) == plan


def test_a_change_of_them_is_told_and_reaches_no_gateway():
    difference = compare(plan_of(), plan_of(with_triggers(*LINES)))
    assert difference.lines == (
        "service 'storage': trigger down: rollback by health failures 2 added",
        "service 'storage': trigger errors: pause by errors above 1.5, window 1m, requests 50, on_no_data act added",
        "service 'storage': trigger slow: rollback (dry run) by latency above 800, times 2.0 added",
        "service 'storage': trigger away: tell by failover added",
    )
    assert not difference.routing


@pytest.mark.django_db
def test_they_are_loaded_and_come_back():
    plan = plan_of(with_triggers(*LINES))
    load_plan(plan, actor=SYSTEM)
    assert current_plan().services[0].triggers == plan.services[0].triggers
    stored = Service.objects.get(key="storage").triggers
    assert from_rows(json.dumps(stored)) == plan.services[0].triggers
