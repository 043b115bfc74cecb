"""What a gateway refuses is kept: counted, bounded, and without a question when nothing is refused."""

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.models import Gateway, Plan, Refusal, Service
from migrations_app.reconcile import refusals
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.reconcile.refusals import KEPT, LONGEST, note_refusal
from tests.factories import memory_gateway, tick_all

KEY = "USE_RAG_SERVICE"


def turn_on(shell):
    tick_all(1, shell)
    return set_weight(key=KEY, weight=100, actor=shell)


def test_a_refusal_is_one_row_that_counts_its_passes(plan, shell):
    memory_gateway().refuses = "cluster unknown"
    change = turn_on(shell)
    before = timezone.now()
    for _ in range(3):
        reconcile_all()
    row = Refusal.objects.get()
    assert (row.gateway, row.generation, row.reason, row.times) == (
        Gateway.objects.get(),
        change.generation,
        "cluster unknown",
        3,
    )
    assert before <= row.at < row.last_at <= timezone.now()


def test_another_reason_and_another_generation_are_rows_of_their_own(plan, shell):
    adapter = memory_gateway()
    adapter.refuses = "cluster unknown"
    first = turn_on(shell).generation
    reconcile_all()
    adapter.refuses = "no such listener"
    reconcile_all()
    second = roll_back_flag(key=KEY, actor=shell).generation
    reconcile_all()
    found = Refusal.objects.order_by("pk").values_list("generation", "reason", "times")
    assert list(found) == [
        (first, "cluster unknown", 1),
        (first, "no such listener", 1),
        (second, "no such listener", 1),
    ]


def test_a_table_that_cannot_be_rendered_is_a_refusal_too(plan, shell):
    Service.objects.filter(key="template").update(strip="/else")
    turn_on(shell)
    (done,) = reconcile_all()
    assert "strip '/else'" in done.error
    assert Refusal.objects.get().reason == done.error


def test_a_gateway_that_is_away_refuses_nothing(plan, shell):
    memory_gateway().answers = False
    turn_on(shell)
    (done,) = reconcile_all()
    assert "does not answer" in done.error
    assert not Refusal.objects.exists()


def test_when_nothing_is_refused_no_question_names_refusals(plan, shell):
    turn_on(shell)
    with CaptureQueriesContext(connection) as captured:
        assert reconcile_all()[0].changed
        reconcile_all()
    assert captured.captured_queries
    assert not [one for one in captured.captured_queries if "refusal" in one["sql"]]


def test_a_refusal_costs_one_question(plan, django_assert_num_queries):
    gateway = Gateway.objects.get()
    for _ in range(2):
        with django_assert_num_queries(1):
            note_refusal(gateway, 7, "cluster unknown", timezone.now())


def test_only_the_newest_are_kept(plan, monkeypatch):
    monkeypatch.setattr(refusals, "KEPT", 5)
    gateway = Gateway.objects.get()
    for number in range(9):
        note_refusal(gateway, 7, f"reason {number}", timezone.now())
        note_refusal(gateway, 7, "the first one, again and again", timezone.now())
    kept = Refusal.objects.order_by("last_at").values_list("reason", "times")
    assert list(kept) == [
        *((f"reason {number}", 1) for number in (5, 6, 7, 8)),
        ("the first one, again and again", 9),
    ]
    assert KEPT == 100


def test_each_gateway_keeps_its_own(plan, monkeypatch):
    monkeypatch.setattr(refusals, "KEPT", 1)
    other = Gateway.objects.create(plan=Plan.objects.get(), key="second", adapter="memory")
    note_refusal(Gateway.objects.get(key="main"), 7, "cluster unknown", timezone.now())
    note_refusal(other, 7, "cluster unknown", timezone.now())
    assert sorted(Refusal.objects.values_list("gateway__key", flat=True)) == ["main", "second"]


def test_a_very_long_reason_is_cut(plan):
    for _ in range(2):
        note_refusal(Gateway.objects.get(), 7, "ä" * 50_000, timezone.now())
    assert (Refusal.objects.get().reason, Refusal.objects.get().times) == ("ä" * LONGEST, 2)
