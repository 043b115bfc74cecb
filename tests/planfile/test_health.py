"""The `health` part of a plan file: read, refused with its line, written, compared, and what a change of it forgets."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from migrations_app.actor import SYSTEM
from migrations_app.models import HealthChange, HealthState, Service
from migrations_app.models import Plan as PlanRow
from migrations_app.planfile.diff import compare
from migrations_app.planfile.export import export_plan
from migrations_app.planfile.health import HealthPart
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.schema import Plan, fingerprint
from migrations_app.planfile.writer import write
from tests.factories import make_healthy

from .samples import SMALL, changed, line_of, only_problem, plan_of

UPSTREAM = "    upstream: 127.0.0.1:3014\n"
LINES = [
    "interval: 2s",
    "timeout: 1.5s",
    "status: [200, 3xx]",
    "json: [{path: status.0, equals: ok}]",
    "fail_after: 3",
    "recover_after: 2",
]
SECONDS = "expected seconds such as 2s or 1.5s"
STATUS = "expected a status from 200 to 599, or 2xx, 3xx, 4xx or 5xx"
NOTHING = "has no value; write one, or leave the key out"


def with_health(*lines: str) -> str:
    return changed((UPSTREAM, UPSTREAM + "    health:\n" + "".join(f"      {line}\n" for line in lines)))


def with_monolith(health: str) -> str:
    return changed(('{address: "127.0.0.1:3000"}', f'{{address: "127.0.0.1:3000", health: {health}}}'))


def health_of(text: str) -> HealthPart:
    return plan_of(text).services[0].health


def test_all_that_can_be_said_is_read():
    health = health_of(with_health(*LINES))
    assert (health.interval, health.timeout) == (timedelta(seconds=2), timedelta(seconds=1.5))
    assert health.status == (200, "3xx")
    assert [(value.path, value.equals) for value in health.json_values] == [("status.0", "ok")]
    assert (health.fail_after, health.recover_after) == (3, 2)


def test_without_it_nothing_is_told_and_one_poll_decides():
    health = plan_of().services[0].health
    assert health == plan_of().monolith.health == HealthPart()
    assert (health.interval, health.timeout, health.status, health.json_values) == (None, None, (200,), ())
    assert (health.fail_after, health.recover_after) == (1, 1)
    assert health.row() == {}


@pytest.mark.parametrize(
    ("good", "wrong", "path", "reason"),
    [
        ("interval: 2s", "interval: 0.9s", "interval", "0.9s is too short; the least is 1s"),
        ("interval: 2s", "interval: 61s", "interval", "61s is too long; the most is 60s"),
        ("interval: 2s", "interval: 2", "interval", SECONDS),
        ("interval: 2s", "interval: 1m", "interval", SECONDS),
        ("interval: 2s", "interval: -2s", "interval", SECONDS),
        ("interval: 2s", "interval: 1e1s", "interval", SECONDS),
        ("interval: 2s", "interval: [2s]", "interval", SECONDS),
        ("interval: 2s", "interval:", "interval", NOTHING),
        ("interval: 2s", "intervall: 2s", "", "unknown key 'intervall'; did you mean 'interval'?"),
        ("timeout: 1.5s", "timeout: 0s", "timeout", "0s is too short; the least is 0.1s"),
        ("timeout: 1.5s", "timeout: 11s", "timeout", "11s is too long; the most is 10s"),
        ("timeout: 1.5s", "timeout:", "timeout", NOTHING),
        ("status: [200, 3xx]", "status: 200", "status", "expected a list, got the number 200"),
        ("status: [200, 3xx]", "status: []", "status", "needs at least one entry"),
        ("status: [200, 3xx]", "status: [199]", "status[199]", STATUS),
        ("status: [200, 3xx]", "status: [600]", "status[600]", STATUS),
        ("status: [200, 3xx]", "status: [1xx]", "status[1xx]", STATUS),
        ("status: [200, 3xx]", "status: ['200']", "status[200]", STATUS),
        ("status: [200, 3xx]", "status: [true]", "status[True]", STATUS),
        ("status: [200, 3xx]", "status: [200.0]", "status[#1]", STATUS),
        ("status: [200, 3xx]", "status: [2xx, 2xx]", "status", "2xx is there twice"),
        ("status: [200, 3xx]", "status:", "status", NOTHING),
        (
            "json: [{path: status.0, equals: ok}]",
            "json: {path: a, equals: 1}",
            "json",
            "expected a list, got a group of keys",
        ),
        (
            "json: [{path: status.0, equals: ok}]",
            "json: [{path: a..b, equals: 1}]",
            "json[#1].path",
            "'a..b' is not a place in JSON; write keys joined by dots, such as data.status",
        ),
        (
            "json: [{path: status.0, equals: ok}]",
            "json: [{path: a, equals: [1]}]",
            "json[#1].equals",
            "expected a text, a number, true, false or null",
        ),
        ("json: [{path: status.0, equals: ok}]", "json: [{path: a}]", "json[#1]", "'equals' is missing"),
        (
            "json: [{path: status.0, equals: ok}]",
            "json: [{path: a, equals: 1}, {path: a, equals: 2}]",
            "json",
            "the place 'a' is there twice; it cannot have two values",
        ),
        (
            "json: [{path: status.0, equals: ok}]",
            "json_values: []",
            "",
            "unknown key 'json_values'; known here: interval, timeout, status, json, fail_after, recover_after",
        ),
        ("fail_after: 3", "fail_after: 0", "fail_after", "0 is too small; the least is 1"),
        ("fail_after: 3", "fail_after: 101", "fail_after", "101 is too large; the most is 100"),
        ("fail_after: 3", "fail_after: 1.5", "fail_after", "expected a whole number, got the number 1.5"),
        ("fail_after: 3", "fail_after: 3s", "fail_after", "expected a whole number, got the text '3s'"),
        ("recover_after: 2", "recover_after: -1", "recover_after", "-1 is too small; the least is 1"),
        ("recover_after: 2", "recover_after:", "recover_after", NOTHING),
        ("recover_after: 2", "recovers_after: 2", "", "unknown key 'recovers_after'; did you mean 'recover_after'?"),
    ],
)
def test_nonsense_is_refused_with_its_line(good, wrong, path, reason):
    text = with_health(*(wrong if line == good else line for line in LINES))
    line = line_of(text, f"      {wrong}")
    assert only_problem(text) == (line, f"services[storage].health{'.' * bool(path)}{path}", reason)


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        ("", NOTHING),
        ("2s", "expected a group of 'key: value' lines, got the text '2s'"),
        ("[]", "expected a group of 'key: value' lines, got a list"),
    ],
)
def test_it_is_a_group_of_keys(health, reason):
    text = changed((UPSTREAM, f"{UPSTREAM}    health: {health}\n"))
    assert only_problem(text) == (line_of(text, "    health:"), "services[storage].health", reason)


def test_the_monolith_has_it_too():
    assert plan_of(with_monolith("{fail_after: 4}")).monolith.health.fail_after == 4
    assert only_problem(with_monolith("{interval: null}"))[1:] == ("monolith.health.interval", NOTHING)
    assert only_problem(with_monolith("{fail_after: 0}"))[1] == "monolith.health.fail_after"


@pytest.mark.parametrize(
    "text", [SMALL, with_health(*LINES), with_health("timeout: 0.25s"), with_monolith("{status: [2xx]}")]
)
def test_what_is_written_and_kept_reads_back_equal(text):
    plan = plan_of(text)
    assert plan_of(write(plan)) == plan
    assert Plan.model_validate_json(json.dumps(plan.model_dump(mode="json"))) == plan
    health = plan.services[0].health
    assert HealthPart.model_validate_json(json.dumps(health.row())) == health


def test_a_difference_is_told_in_words():
    old, new = plan_of(), plan_of(with_health(*LINES))
    difference = compare(old, new)
    assert difference.lines == (
        (
            "service 'storage': health as by default -> interval 2s, timeout 1.5s, status 200 3xx, json status.0='ok', "
            "fail_after 3, recover_after 2"
        ),
    )
    assert not difference.routing
    assert fingerprint(old) != fingerprint(new)


def test_it_is_stored_and_exported(db):
    load_plan(plan_of(with_health(*LINES)), actor=SYSTEM)
    assert Service.objects.get(key="storage").health == {
        "interval": "2s",
        "timeout": "1.5s",
        "status": [200, "3xx"],
        "json": [{"path": "status.0", "equals": "ok"}],
        "fail_after": 3,
        "recover_after": 2,
    }
    assert Service.objects.get(key="auth").health == PlanRow.objects.get().monolith_health == {}
    assert plan_of(export_plan()) == current_plan() == plan_of(with_health(*LINES))


@pytest.mark.parametrize(
    ("text", "forgotten"), [(with_health("fail_after: 2"), "storage"), (with_monolith("{timeout: 1s}"), "monolith")]
)
def test_a_target_that_is_polled_otherwise_is_unknown_until_the_next_poll(db, text, forgotten):
    load_plan(plan_of(), actor=SYSTEM)
    make_healthy()
    load_plan(plan_of(text), actor=SYSTEM)
    assert set(HealthState.objects.values_list("target", flat=True)) == {"monolith", "storage", "auth"} - {forgotten}
    change = HealthChange.objects.get()
    assert (change.target, change.was, change.state) == (forgotten, "healthy", "unknown")
    assert change.reason == "the plan has changed where or how it is polled"
