"""One reading for all who ask at the same time; nobody waits for it longer than they want to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from migrations_app.web import shared_reading
from migrations_app.web.shared_reading import SharedReading


class Slow:
    """A reading that ends when it is told to. Each gives the number of its beginning."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.begun += 1
            number = self.begun
        assert self.go_on.wait(20)
        return number


@pytest.fixture
def slow():
    found = Slow()
    yield found
    found.go_on.set()


def test_all_who_ask_while_it_is_out_get_the_same(slow: Slow):
    reading = SharedReading(slow, keep=60)
    with ThreadPoolExecutor(8) as askers:
        promises = list(askers.map(lambda _: reading.ask(), range(40)))
    slow.go_on.set()
    assert {promise.result(20) for promise in promises} == {1}
    assert slow.begun == 1


def test_it_is_kept_for_a_time(slow: Slow):
    slow.go_on.set()
    reading = SharedReading(slow, keep=60)
    assert [reading.ask().result(20) for _ in range(3)] == [1, 1, 1]


def test_after_that_it_is_made_anew(slow: Slow):
    slow.go_on.set()
    reading = SharedReading(slow, keep=0)
    assert [reading.ask().result(20) for _ in range(3)] == [1, 2, 3]


def test_an_error_is_not_kept_for_long(monkeypatch):
    monkeypatch.setattr(shared_reading, "ERROR_KEPT", 0.0)
    outcomes = iter([ZeroDivisionError(), ZeroDivisionError(), 3, 4])

    def read() -> int:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    reading = SharedReading(read, keep=60)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            reading.ask().result(20)
    assert [reading.ask().result(20) for _ in range(2)] == [3, 3]


def test_nobody_waits_longer_than_they_want_to(slow: Slow):
    promise = SharedReading(slow, keep=60).ask()
    with pytest.raises(TimeoutError):
        promise.result(0.01)


def test_what_it_raises_is_raised_in_all_who_ask_and_kept_as_long():
    begun = []

    def fail() -> None:
        begun.append(1)
        raise LookupError("it is not there")

    reading = SharedReading(fail, keep=60)
    for _ in range(3):
        with pytest.raises(LookupError, match="it is not there"):
            reading.ask().result(20)
    assert len(begun) == 1


def test_one_that_never_ends_is_given_up_and_so_are_no_more_than_a_few(slow: Slow):
    reading = SharedReading(slow, keep=0, patience=0, most=3)
    promises = [reading.ask() for _ in range(10)]
    assert len(set(promises)) == 3
    assert promises[2] is promises[9]
    slow.go_on.set()
    assert {promise.result(20) for promise in promises} == {1, 2, 3}
    assert reading.ask().result(20) == 4
