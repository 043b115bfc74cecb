"""Traffic moves a hundred times under load, and nobody notices."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

from migrations_app.actions.confirm import confirm
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.models import Confirmation
from tests.faults.load import Answer, load_on
from tests.faults.promises import hold
from tests.faults.system import OPERATOR, System, wait_for

FLIPS = 100
# Envoy hands a table to its two worker threads one after the other; only one of them answers the read-back.
LAG = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Table:
    """A table of week 1, and the moments between which it began to be in force."""

    on: bool
    asked: float
    confirmed: float


def wrong(answers: list[Answer], tables: list[Table], lag: float) -> list[Answer]:
    """Answers from a side that no table in force while the gateway chose had allowed."""
    spans = [(one.asked, other.confirmed + lag, one.on) for one, other in pairwise(tables)]
    spans.append((tables[-1].asked, float("inf"), tables[-1].on))
    return [
        answer
        for answer in answers
        if not any(
            begin <= answer.came and answer.sent <= end and answer.who == (answer.service if on else "monolith")
            for begin, end, on in spans
        )
    ]


def test_a_hundred_flips_under_load_lose_no_request_and_serve_from_the_side_that_is_applied(system: System):
    tables = [Table(False, 0.0, 0.0)]
    slowest = 0.0
    with load_on(system.envoy.port, pause=0.006) as load:
        wait_for(lambda: load.count("slow read") and load.count("slow write"), "slow requests are in flight")
        for number in range(FLIPS):
            on, asked = number % 2 == 0, time.monotonic()
            change = (enable_week if on else roll_back_week)(number=1, actor=OPERATOR)
            outcome = confirm(change.generation, event=change.event, head_start=0.0)
            tables.append(Table(on, asked, time.monotonic()))
            assert (change.changed, outcome.confirmed) == (True, True), outcome
            slowest = max(slowest, outcome.milliseconds)
            served = len(load.answers)
            wait_for(lambda served=served: len(load.answers) >= served + 12, "12 requests were answered by this table")
    assert wrong(load.answers, tables, LAG) == []
    assert load.count() >= 2000
    assert load.count("write") >= 300
    assert load.count("slow read") + load.count("slow write") >= 30
    assert {answer.who for answer in load.answers} == {"monolith", "notification", "storage", "rag"}
    assert Confirmation.objects.count() == FLIPS + 1
    hold(system, load=load)
    late = len(wrong(load.answers, tables, 0))
    print(f"{load.count()} requests, slowest flip {slowest:.0f} ms, {late} answers within the lag")
