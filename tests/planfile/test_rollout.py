"""The `rollout` part of a plan file: read, refused with its line, written, compared."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from migrations_app.actor import SYSTEM
from migrations_app.models import Service
from migrations_app.planfile.diff import compare
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.rollout import TEMPLATES, RolloutPart
from migrations_app.planfile.writer import write

from .samples import changed, line_of, only_problem, plan_of

UPSTREAM = "    upstream: 127.0.0.1:3014\n"
LINES = [
    "steps: [{weight: 10, hold: 5m, requests: 50}, {weight: 100}]",
    "error_rate: 2.5",
    "p95: 400",
    "on_failure: pause",
]


def with_rollout(*lines: str) -> str:
    return changed((UPSTREAM, UPSTREAM + "    rollout:\n" + "".join(f"      {line}\n" for line in lines)))


def rollout_of(text: str) -> RolloutPart:
    return plan_of(text).services[0].rollout


def test_all_that_can_be_said_is_read():
    part = rollout_of(with_rollout(*LINES))
    assert [(step.weight, step.hold, step.requests) for step in part.effective] == [
        (10, timedelta(minutes=5), 50),
        (100, timedelta(0), 0),
    ]
    assert (part.error_rate, part.p95, part.on_failure) == (2.5, 400, "pause")


def test_without_it_there_is_the_canary_that_rolls_back():
    part = plan_of().services[0].rollout
    assert [step.weight for step in part.effective] == [1, 5, 25, 50, 100]
    assert (part.error_rate, part.p95, part.on_failure, part.row()) == (5.0, None, "rollback", {})


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_rises_to_all(template):
    steps = rollout_of(with_rollout(f"template: {template}")).effective
    assert RolloutPart(steps=steps).effective == TEMPLATES[template]


@pytest.mark.parametrize(
    ("lines", "path", "reason"),
    [
        (["steps: [{weight: 10}, {weight: 50}]"], "", "the last step is at 50 %; it must be at 100 %"),
        (
            ["steps: [{weight: 50}, {weight: 50}, {weight: 100}]"],
            "",
            "the step to 50 % comes after 50 %; steps rise",
        ),
        (["template: canary", "steps: [{weight: 100}]"], "", "give a template or steps, not both"),
        (["template:"], "template", "has no value; write one, or leave the key out"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(lines, path, reason):
    text = with_rollout(*lines)
    line, found, told = only_problem(text)
    assert (told, found) == (reason, "services[storage].rollout" + (f".{path}" if path else ""))
    assert line in {line_of(text, "rollout:"), line_of(text, lines[0])}


@pytest.mark.parametrize(
    "wrong",
    [
        "steps: [{weight: 0}, {weight: 100}]",
        "steps: [{weight: 101}]",
        "steps: [{weight: 10, hold: 5}, {weight: 100}]",
        "steps: [{weight: 10, requests: -1}, {weight: 100}]",
        "steps: [" + ", ".join(f"{{weight: {n}}}" for n in [*range(1, 21), 100]) + "]",
        "template: sudden",
        "error_rate: 101",
        "p95: 0",
        "on_failure: shrug",
        "retries: 3",
    ],
)
def test_values_outside_of_their_bounds_are_refused(wrong):
    assert only_problem(with_rollout(wrong))[1].startswith("services[storage].rollout")


def test_what_is_written_reads_the_same():
    plan = plan_of(with_rollout(*LINES))
    assert plan_of(write(plan)) == plan


def test_a_change_of_it_is_told_and_reaches_no_gateway():
    difference = compare(plan_of(), plan_of(with_rollout("template: halves")))
    assert difference.lines == ("service 'storage': rollout 1-5-25-50-100 % -> 10-50-100 %",)
    assert not difference.routing


@pytest.mark.django_db
def test_it_is_loaded_and_comes_back():
    plan = plan_of(with_rollout(*LINES))
    load_plan(plan, actor=SYSTEM)
    assert current_plan().services[0].rollout == plan.services[0].rollout
    stored = Service.objects.get(key="storage").rollout
    assert RolloutPart.model_validate_json(json.dumps(stored)) == plan.services[0].rollout
