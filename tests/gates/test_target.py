"""What people vouched for: one digest over what a week is about to move."""

import pytest

from migrations_app.choices import Phase
from migrations_app.gates.load import snapshots
from migrations_app.gates.target import NOTHING, targets
from migrations_app.models import Flag, Route, Service, Week


def rag() -> Service:
    return Service.objects.get(key="rag")


def change(**columns):
    return lambda: Service.objects.filter(key="rag").update(**columns)


CHANGES = {
    "port": change(port=4000),
    "host": change(host="rag.internal"),
    "strip": change(strip=""),
    "health path": change(health_path="/healthz"),
    "one more route": lambda: Route.objects.create(plan=rag().plan, service=rag(), prefix="/api/documents"),
    "one route less": lambda: Route.objects.filter(service__key="rag").delete(),
    "another prefix": lambda: Route.objects.filter(service__key="rag").update(prefix="/api/documents"),
    "one flag more": lambda: Flag.objects.filter(key="USE_AUTH_SERVICE").update(week=Week.objects.get(number=1)),
    "one flag less": lambda: Flag.objects.filter(key="USE_RAG_SERVICE").update(week=Week.objects.get(number=4)),
    "another name of a flag": lambda: Flag.objects.filter(key="USE_RAG_SERVICE").update(key="USE_DOCUMENTS"),
}
SAME = {
    "title": change(title="Documents"),
    "owner": change(owner="Nobody"),
    "area": change(area="Else"),
    "timeout": change(timeout=3.0),
    "position": change(position=99),
    "title of the week": lambda: Week.objects.filter(number=1).update(title="Another"),
    "a service of another week": lambda: Service.objects.filter(key="auth").update(port=4000),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_changes_with_where_traffic_would_go(plan, name):
    before = targets()[1]
    CHANGES[name]()
    assert targets()[1] != before


@pytest.mark.parametrize("name", SAME)
def test_it_stays_with_what_moves_nothing(plan, name):
    before = targets()[1]
    SAME[name]()
    assert targets()[1] == before


def test_it_does_not_depend_on_the_weight(plan):
    """Else a sign-off would be void as soon as it was used."""
    from tests.factories import put_behind

    before = targets()[1]
    put_behind(1)
    assert targets()[1] == before


def test_a_week_without_flags_has_the_target_of_nothing(plan):
    assert targets([6]) == {6: NOTHING}
    assert targets([99]) == {99: NOTHING}


def test_what_is_signed_and_what_is_judged_are_the_same(plan):
    """`gates.load` digests the rows that it has loaded anyway; a difference would make every sign-off void."""
    Route.objects.create(plan=rag().plan, service=rag(), prefix="/api/documents")
    Route.objects.create(plan=rag().plan, service=rag(), prefix="/api/a-first")
    judged = {number: snapshot.target for number, snapshot in snapshots(Phase.START).items()}
    assert judged == targets() | {6: NOTHING}
    assert judged == targets([1, 2, 3, 4, 5, 6])
    Route.objects.filter(service__key="rag").delete()
    assert snapshots(Phase.DONE, weeks=[1])[1].target == targets([1])[1]
