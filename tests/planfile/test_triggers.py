"""The `triggers` of a plan file: read, refused with their line, written, compared, loaded."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from migrations_app.actor import SYSTEM
from migrations_app.gateways.base import Counted
from migrations_app.models import Plan, Service, Week
from migrations_app.planfile.diff import compare
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.triggers import (
    AnswersTrigger,
    ErrorTrigger,
    FailoverTrigger,
    HealthTrigger,
    LatencyTrigger,
    QueryTrigger,
    from_rows,
    rule_of,
)
from migrations_app.planfile.writer import write
from migrations_app.reconcile.desired import desired_table

from .samples import changed, only_problem, plan_of

UPSTREAM = "    upstream: 127.0.0.1:3014\n"
LINES = [
    "{key: down, when: health, failures: 2}",
    "{key: errors, when: errors, above: 1.5, window: 1m, requests: 50, on_no_data: act, do: pause}",
    "{key: slow, when: latency, above: 800, times: 2.0, dry_run: true}",
    "{key: away, when: failover, do: tell}",
    "{key: login, when: answers, route: /api/storage/login, method: POST, codes: [401, 5xx, 403], above: 20, times: 3}",
    "{key: queue, when: query, url: 'http://127.0.0.1:9000/n.json?a=b', path: data.failed, above: 5, for: 30s}",
    "{key: jobs, when: query, prometheus: 'http://127.0.0.1:9090', query: 'sum(up)', below: 3, on_no_data: tell}",
]


def with_triggers(*lines: str) -> str:
    return changed((UPSTREAM, UPSTREAM + "    triggers:\n" + "".join(f"      - {line}\n" for line in lines)))


def test_all_that_can_be_said_is_read():
    down, errors, slow, away, login, queue, jobs = plan_of(with_triggers(*LINES)).services[0].triggers
    assert down == HealthTrigger(key="down", when="health", failures=2)
    assert isinstance(errors, ErrorTrigger)
    assert (errors.above, errors.window, errors.requests) == (1.5, timedelta(minutes=1), 50)
    assert (errors.on_no_data, errors.do, errors.dry_run) == ("act", "pause", False)
    assert isinstance(slow, LatencyTrigger)
    assert away == FailoverTrigger(key="away", when="failover", do="tell")
    assert (slow.above, slow.times, slow.dry_run, slow.do) == (800, 2.0, True, "rollback")
    assert isinstance(login, AnswersTrigger)
    assert (login.counted, login.codes) == (Counted("/api/storage/login", "POST"), (401, "5xx", 403))
    assert isinstance(queue, QueryTrigger)
    assert (queue.address, queue.window) == ("http://127.0.0.1:9000/n.json?a=b", timedelta(seconds=30))
    assert isinstance(jobs, QueryTrigger)
    assert (jobs.address, jobs.below) == ("http://127.0.0.1:9090/api/v1/query?query=sum%28up%29", 3.0)


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
        ("{key: s, when: latency, times: 2, slower_ms: -1}", "slower_ms"),
        ("{key: a, when: answers, route: /api/storage}", ""),
        ("{key: a, when: answers, above: 5}", "route"),
        ("{key: a, when: answers, route: /api/storage/, above: 5}", "route"),
        ("{key: a, when: answers, route: /api/storage/../x, above: 5}", "route"),
        ("{key: a, when: answers, route: /api/auth/login, above: 5}", "route"),
        ("{key: a, when: answers, route: /api/storages, above: 5}", "route"),
        ("{key: a, when: answers, route: /api/storage, method: post, above: 5}", "method"),
        ("{key: a, when: answers, route: /api/storage, codes: [200], above: 5}", "codes"),
        ("{key: a, when: answers, route: /api/storage, codes: [401, 401], above: 5}", "codes"),
        ("{key: a, when: answers, route: /api/storage, codes: [], above: 5}", "codes"),
        ("{key: a, when: answers, route: /api/storage, above: null, times: 2}", "above"),
        ("{key: q, when: query, url: 'http://h/', path: a}", ""),
        ("{key: q, when: query, url: 'http://h/', above: 1}", ""),
        ("{key: q, when: query, path: a, query: b, prometheus: 'http://h', above: 1}", ""),
        ("{key: q, when: query, url: 'http://h/', path: a, query: b, prometheus: 'http://h', above: 1}", ""),
        ("{key: q, when: query, url: 'ftp://h/', path: a, above: 1}", "url"),
        ("{key: q, when: query, url: 'http://me:secret@h/', path: a, above: 1}", "url"),
        ("{key: q, when: query, url: 'http://h/#x', path: a, above: 1}", "url"),
        ("{key: q, when: query, url: 'http://h/', path: a, above: .nan}", "above"),
        ("{key: q, when: query, url: 'http://h/', path: a, above: 1, for: 0s}", "for"),
        ("{key: q, when: query, url: 'http://h/', path: a, above: 1, window: 5s}", "window"),
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
    difference = compare(plan_of(), plan_of(with_triggers(*LINES[:4])))
    assert difference.lines == (
        "service 'storage': trigger down: rollback by health failures 2 added",
        "service 'storage': trigger errors: pause by errors above 1.5, window 1m, requests 50, on_no_data act added",
        "service 'storage': trigger slow: rollback (dry run) by latency above 800, times 2.0 added",
        "service 'storage': trigger away: tell by failover added",
    )
    assert not difference.routing


def test_what_the_gateway_has_to_count_reaches_it():
    difference = compare(plan_of(), plan_of(with_triggers(LINES[4])))
    (line,) = difference.lines
    told = "route /api/storage/login, method POST, codes 401 5xx 403, above 20.0, times 3.0"
    assert line == f"service 'storage': trigger login: rollback by answers {told} added"
    assert difference.routing


def test_the_gateway_counts_what_triggers_name_and_each_of_several_routes():
    several = changed(("routes: [/api/auth]", "routes: [/api/auth, /api/users]"), text=with_triggers(LINES[4]))
    assert plan_of(several).counted() == {
        "storage": (Counted("/api/storage/login", "POST"),),
        "auth": (Counted("/api/users"), Counted("/api/auth")),
    }
    assert plan_of().counted() == {}


WEEK_LINE = "    risk: high\n"


def with_week_triggers(*lines: str) -> str:
    return changed((WEEK_LINE, WEEK_LINE + "    triggers:\n" + "".join(f"      - {line}\n" for line in lines)))


def test_a_week_has_triggers_of_its_own():
    plan = plan_of(with_week_triggers(LINES[1], LINES[4].replace("storage", "auth")))
    assert [trigger.key for trigger in plan.weeks[1].triggers] == ["errors", "login"]
    assert plan.counted() == {"auth": (Counted("/api/auth/login", "POST"),)}
    assert plan_of(write(plan)) == plan
    assert "week 2: trigger errors" in compare(plan_of(), plan).lines[0]


@pytest.mark.parametrize(
    ("line", "path", "reason"),
    [
        (
            LINES[4],
            "weeks[2].triggers[login].route",
            "no service of the week has a route that /api/storage/login is in",
        ),
        ("{key: e, when: errors, above: 100}", "weeks[2].triggers[e].above", ""),
    ],
)
def test_what_makes_no_sense_for_a_week_is_refused(line, path, reason):
    _, found, said = only_problem(with_week_triggers(line))
    assert found.startswith(path.rpartition(".")[0])
    assert reason in said


def test_a_week_that_moves_nothing_has_none():
    text = changed(
        ("    flags: [USE_AUTH]\n", "    moves_traffic: false\n    triggers: [{key: down, when: health}]\n"),
        ("    flags: [USE_STORAGE]\n", "    flags: [USE_STORAGE, USE_AUTH]\n"),
    )
    _, path, reason = only_problem(text)
    assert (path, reason) == ("weeks[2].triggers", "the week moves no traffic, so there is nothing to move back")


def test_the_port_offset_moves_what_they_ask():
    moved = shift_ports(plan_of(with_triggers(*LINES[5:])), 1000)
    queue, jobs = moved.services[0].triggers
    assert (queue.url, jobs.prometheus) == ("http://127.0.0.1:10000/n.json?a=b", "http://127.0.0.1:10090")
    elsewhere = with_triggers("{key: q, when: query, url: 'https://metrics.example/n', path: a, above: 1}")
    assert shift_ports(plan_of(elsewhere), 1000).services[0].triggers[0].url == "https://metrics.example/n"


@pytest.mark.django_db
def test_those_of_a_week_are_loaded_and_the_gateway_counts_what_they_name():
    plan = plan_of(with_week_triggers(LINES[1], LINES[4].replace("storage", "auth")))
    load_plan(plan_of(), actor=SYSTEM)
    before = Plan.objects.get().generation
    assert load_plan(plan, actor=SYSTEM).generation > before
    assert from_rows(json.dumps(Week.objects.get(number=2).triggers)) == plan.weeks[1].triggers
    assert current_plan() == plan
    assert desired_table(Plan.objects.get()).counted == (Counted("/api/auth/login", "POST"),)
    load_plan(plan_of(), actor=SYSTEM)
    assert desired_table(Plan.objects.get()).counted == ()


@pytest.mark.django_db
def test_they_are_loaded_and_come_back():
    plan = plan_of(with_triggers(*LINES))
    load_plan(plan, actor=SYSTEM)
    assert current_plan().services[0].triggers == plan.services[0].triggers
    stored = Service.objects.get(key="storage").triggers
    assert from_rows(json.dumps(stored)) == plan.services[0].triggers


def test_a_rule_changes_with_whatever_it_says():
    (one,), (other,), (same,) = (
        plan_of(with_triggers(line)).services[0].triggers
        for line in (LINES[4], LINES[4].replace("401, ", ""), LINES[4].replace("{key", "{ key"))
    )
    assert rule_of(one) == rule_of(same) != rule_of(other)
    assert rule_of(one) != rule_of(one.model_copy(update={"dry_run": True}))
