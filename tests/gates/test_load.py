"""Loading what the gates rest on."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from migrations_app.gates.load import verdicts
from tests.factories import approve, put_behind, tick_all


def test_the_whole_plan_has_its_gates(plan, people, shell):
    put_behind(1, 2, 4)
    tick_all(3, shell)
    approve(3, people)
    found = verdicts()
    assert {number: verdict.progress for number, verdict in found.items()} == {
        1: "0/1",
        2: "0/2",
        3: "6/6",
        4: "0/1",
        5: "0/0",
        6: "0/1",
    }
    assert [number for number, verdict in found.items() if verdict.open] == [3, 5]


def test_the_number_of_queries_does_not_grow_with_the_weeks(plan, django_assert_num_queries):
    with django_assert_num_queries(4):
        verdicts(weeks=[1])
    with CaptureQueriesContext(connection) as of_one:
        verdicts(weeks=[3])  # has all that a week can have: weeks before it, and what its risk asks for
    with django_assert_num_queries(len(of_one)):
        verdicts()


@pytest.mark.parametrize("number", [1, 3, 6])
def test_one_week_is_the_same_as_within_the_plan(plan, noon, number):
    assert verdicts(weeks=[number], now=noon)[number] == verdicts(now=noon)[number]
