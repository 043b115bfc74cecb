"""Numbers that others tell: what is asked, what of the answer counts, and what is no answer."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import set_weight
from migrations_app.models import QueryAnswer, Service, Week
from migrations_app.observe.queries import ask_queries, asked_of
from migrations_app.planfile.triggers import from_rows
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import tick_all

from .web import head, serving

KEY = "USE_STORAGE_SERVICE"


@pytest.fixture
def on(plan, shell):
    Service.objects.update(triggers=[])
    Week.objects.update(triggers=[])
    tick_all(1, shell)
    set_weight(key=KEY, weight=25, actor=shell)
    reconcile_all()


def watched_by(*rows, key="storage"):
    Service.objects.filter(key=key).update(triggers=list(rows))


def number(port, path="failed", **more):
    return {"key": "n", "when": "query", "url": f"http://127.0.0.1:{port}/n?a=b", "path": path, "above": 5.0} | more


def prometheus(port, query="up == 0", **more):
    return {"key": "n", "when": "query", "prometheus": f"http://127.0.0.1:{port}", "query": query, "above": 5.0} | more


def json_of(body, status="200 OK"):
    return head(status, len(body)), body.encode()


def answer():
    row = QueryAnswer.objects.get()
    return row.value, row.error


@pytest.mark.parametrize(
    ("body", "value", "error"),
    [
        ('{"failed": 3}', 3.0, ""),
        ('{"failed": 2.5e3}', 2500.0, ""),
        ('{"failed": "7.5"}', 7.5, ""),
        ('{"failed": NaN}', None, "failed is NaN, not a number"),
        ('{"failed": "Infinity"}', None, 'failed is "Infinity", not a number'),
        ('{"failed": "key=3f9a"}', None, "failed is text, not a number"),
        (f'{{"failed": 1{"0" * 400}}}', None, "failed is too large a number"),
        ('{"failed": true}', None, "failed is true, not a number"),
        ('{"failed": null}', None, "failed is null, not a number"),
        ('{"failed": [1]}', None, "failed is a list, not a number"),
        ('{"other": 1}', None, "the answer has no failed"),
        ("failed", None, "the answer is no JSON"),
    ],
)
def test_a_number_in_json(on, body, value, error):
    with serving(*json_of(body)) as port:
        watched_by(number(port))
        assert ask_queries() == 1
    assert answer() == (value, error)


@pytest.mark.parametrize(
    ("result", "value", "error"),
    [
        ('"data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "0.5"]}]}', 0.5, ""),
        ('"data": {"resultType": "scalar", "result": [1, "7"]}', 7.0, ""),
        ('"data": {"resultType": "vector", "result": []}', None, "the query gives nothing"),
        (
            '"data": {"resultType": "vector", "result": [{"value": [1, "1"]}, {"value": [1, "2"]}]}',
            None,
            "the query gives 2 series; it must give one",
        ),
        (
            '"data": {"resultType": "vector", "result": [{"value": [1, "NaN"]}]}',
            None,
            'its value is "NaN", not a number',
        ),
        ('"data": {"resultType": "matrix", "result": []}', None, "the query gives a matrix, not a number"),
        ('"data": {"resultType": "key=3f9a", "result": []}', None, "the query gives nothing, not a number"),
        ('"data": {"resultType": "vector", "result": [{}]}', None, "its value is missing, not a number"),
        ('"data": {}', None, "the query gives nothing, not a number"),
    ],
)
def test_a_query_of_prometheus(on, result, value, error):
    requests = []
    with serving(*json_of(f'{{"status": "success", {result}}}'), asked=requests.append) as port:
        watched_by(prometheus(port, 'rate(errors{job="a b"}[1m])'))
        ask_queries()
    assert answer() == (value, error)
    path = requests[0].split(b" ")[1]
    assert path == b"/api/v1/query?query=rate%28errors%7Bjob%3D%22a+b%22%7D%5B1m%5D%29"


def test_prometheus_that_refuses_is_no_answer(on):
    with serving(*json_of('{"status": "error", "error": "parse error"}')) as port:
        watched_by(prometheus(port))
        ask_queries()
    assert answer() == (None, 'Prometheus says: "parse error"')


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        (json_of("{}", "500 Oops"), "answered 500, expected 2xx"),
        (json_of("{}", "302 Found\r\nlocation: http://127.0.0.1/"), "answered 302, expected 2xx"),
        ((head("200 OK", 70_000), b" " * 70_000), "the answer is longer than 64 kB"),
        ((b"nonsense\r\n\r\n",), None),
    ],
)
def test_what_is_no_answer_says_why(on, pieces, error):
    with serving(*pieces) as port:
        watched_by(number(port))
        ask_queries()
    value, said = answer()
    assert value is None
    assert said == error if error else said


def test_an_address_outside_the_allowed_networks_is_never_asked(on, settings):
    settings.HEALTH_NETWORKS = ["10.0.0.0/8"]
    requests = []
    with serving(*json_of('{"failed": 3}'), asked=requests.append) as port:
        watched_by(number(port))
        ask_queries()
    assert requests == []
    assert "HEALTH_NETWORKS" in answer()[1]


def test_the_metadata_of_a_cloud_is_never_asked(on, settings):
    settings.HEALTH_NETWORKS = ["0.0.0.0/0"]
    watched_by(number(80) | {"url": "http://169.254.169.254/latest"})
    ask_queries()
    assert "cloud metadata" in answer()[1]


def test_how_long_it_is_past_the_limit_is_counted_from_the_first_answer(on):
    begun = timezone.now()
    moments = [begun + timedelta(seconds=second) for second in range(5)]
    expected = []
    for moment, value in zip(moments, (9, 9, 1, 9, 9), strict=True):
        with serving(*json_of(f'{{"failed": {value}}}')) as port:
            # The same question, at whatever port the server is now.
            watched_by(number(port))
            QueryAnswer.objects.update(asked=asked_at(port))
            ask_queries(moment)
        expected.append(QueryAnswer.objects.get().past_since)
    assert expected == [moments[0], moments[0], None, moments[3], moments[3]]


def test_what_was_past_the_limit_before_a_gap_begins_anew(on):
    """Nobody knows what it was meanwhile: the worker was away, or a clock was put back."""
    begun = timezone.now()
    with serving(*json_of('{"failed": 9}')) as port:
        watched_by(number(port))
        for away in (timedelta(0), timedelta(seconds=16), -timedelta(hours=1)):
            ask_queries(begun + away)
            assert QueryAnswer.objects.get().past_since == begun + away


def asked_at(port):
    (trigger,) = from_rows(json.dumps([number(port)]))
    return asked_of(trigger)


def test_an_answer_to_another_question_does_not_count(on):
    now = timezone.now()
    for second, above in ((0, 5.0), (1, 6.0)):
        with serving(*json_of('{"failed": 9}')) as port:
            watched_by(number(port, above=above))
            ask_queries(now + timedelta(seconds=second))
    assert QueryAnswer.objects.get().past_since == now + timedelta(seconds=1)


def test_nobody_is_asked_for_what_is_off_and_it_costs_one_question(plan):
    watched_by(number(1))
    with CaptureQueriesContext(connection) as asked:
        assert ask_queries() == 0
    assert len(asked) == 1


@pytest.mark.django_db
def test_all_are_asked_at_once(on, settings):
    """Each server answers only once the other was asked too: in a row neither would ever get an answer."""
    settings.QUERY_WITHIN = 30.0
    both = threading.Barrier(2)
    pieces = json_of('{"failed": 3}')
    with (
        serving(*pieces, asked=lambda _: both.wait(30)) as first,
        serving(*pieces, asked=lambda _: both.wait(30)) as second,
    ):
        watched_by(number(first), number(second) | {"key": "m"})
        assert ask_queries() == 2
    assert set(QueryAnswer.objects.values_list("value", flat=True)) == {3.0}
