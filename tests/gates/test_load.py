"""Loading what the gates rest on."""

from collections import Counter

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from migrations_app.choices import Phase
from migrations_app.gates.load import verdicts
from migrations_app.models import Prerequisite
from tests.factories import approve, put_behind, tick_all


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


@pytest.mark.parametrize("number", [1, 3, 6])
def test_one_week_is_the_same_as_within_the_plan(plan, noon, number):
    assert verdicts(weeks=[number], now=noon)[number] == verdicts(now=noon)[number]
