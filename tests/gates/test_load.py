"""Loading what the gates rest on."""

from collections import Counter

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from migrations_app.choices import Health, Phase, PrerequisiteKind
from migrations_app.gates.load import load_gates, verdicts
from migrations_app.models import HealthState, Prerequisite
from tests.factories import approve, make_healthy, put_behind, tick_all


def test_the_whole_plan_has_its_gates(plan, people, shell):
    put_behind(1, 2, 4)
    tick_all(3, shell)
    approve(3, people)
    found = verdicts()
    lines = Counter(Prerequisite.objects.filter(phase=Phase.START).values_list("week__number", flat=True))
    assert {number: verdict.progress for number, verdict in found.items()} == {
        number: f"{lines[number] if number == 3 else 0}/{lines[number]}" for number in (1, 2, 3, 4, 5, 6)
    }
    assert lines[3] == 6
    assert lines[5] == 0
    assert [number for number, verdict in found.items() if verdict.open] == [3, 5]


def test_the_number_of_queries_does_not_grow_with_the_weeks(plan, django_assert_num_queries):
    with django_assert_num_queries(3):
        verdicts(weeks=[1])
    with CaptureQueriesContext(connection) as of_one:
        verdicts(weeks=[3])  # has all that a week can have: weeks before it, and what its risk asks for
    with django_assert_num_queries(len(of_one)):
        verdicts()


@pytest.mark.parametrize("number", range(1, 7))
def test_one_week_is_the_same_as_within_the_plan(plan, noon, number):
    assert verdicts(weeks=[number], now=noon)[number] == verdicts(now=noon)[number]


@pytest.mark.parametrize(
    ("check", "parameters", "told"),
    [
        ("services_healthy", {"services": ["rag", "auth"]}, "Auth service is unhealthy (answered 500)"),
        ("services_healthy", {"services": "auth"}, "cannot tell: its parameters make no sense"),
        ("flags_on", {"weeks": [1, 4]}, "3 of 5 flags fully on"),
        ("flags_on", {"all": True}, "4 of 10 flags fully on"),
        ("flags_on", {"weeks": ["one"]}, "cannot tell: its parameters make no sense"),
    ],
)
def test_what_a_line_names_elsewhere_is_seen_from_its_week_alone(plan, noon, check, parameters, told):
    make_healthy()
    HealthState.objects.filter(target="auth").update(state=Health.UNHEALTHY, error="answered 500")
    put_behind(1, 2)
    line = Prerequisite.objects.filter(week__number=3, phase=Phase.START, kind=PrerequisiteKind.MANUAL).first()
    Prerequisite.objects.filter(pk=line.pk).update(
        kind=PrerequisiteKind.AUTOMATIC, check_name=check, parameters=parameters
    )
    found = verdicts(weeks=[3])[3]
    [value] = [one.value for one in found.lines if one.prerequisite == line.pk]
    assert value.startswith(told)
    assert [one[:6] for one in found.lines] == [one[:6] for one in verdicts()[3].lines]


def test_of_other_weeks_nothing_is_read_and_nothing_is_told(plan):
    make_healthy()
    gates = load_gates(Phase.START, weeks=[2])
    assert (set(gates.weeks), set(gates.flags), set(gates.health)) == (set(range(1, 7)), {2}, {"template", "monolith"})
    of_service = load_gates(Phase.START, service="template", now=gates.now)
    assert (of_service.asked, of_service.verdict(2)) == ([2], gates.verdict(2))
    with pytest.raises(ValueError, match="week 3 was not loaded"):
        gates.verdict(3)
    assert load_gates(Phase.START, service="none").asked == []
