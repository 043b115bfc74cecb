"""Flags that are held on the old side, and panics."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from migrations_app.gateways.errors import (
    FolderUnusable,
    NotConfirmed,
    Obsolete,
    Pinned,
    StaleGeneration,
)
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.gateways.pins import entry_of

_numbers = itertools.count(1)

AUTH, STORAGE = "USE_AUTH_SERVICE", "USE_STORAGE_SERVICE"


def test_a_panic_brings_what_was_applied_last_back_at_the_same_generation(bench, run):
    before = run(auth=100, storage=40)
    done = bench.gateway.panic([AUTH], by="on call", why="it burns")
    assert (done.generation, done.changed) == (before.generation, True)
    assert [bench.ask("/api/auth/x", method)[0] for method in ("GET", "POST")] == ["monolith", "monolith"]
    seen = bench.gateway.observe()
    assert (seen.generation, seen.drift) == (before.generation, ())
    assert (seen.weights[AUTH], seen.weights[STORAGE]) == (0, 40)
    (pin,) = bench.gateway.pins()
    assert (pin.flag, pin.by, pin.why) == (AUTH, "on call", "it burns")
    again = bench.gateway.panic([AUTH], by="on call")
    assert (again.generation, again.changed) == (before.generation, False)


def test_a_panic_takes_writes_back_that_have_a_weight_of_their_own(bench, table):
    wanted = table(auth=0)
    routes = tuple(replace(one, write_weight=100) if one.flag == AUTH else one for one in wanted.routes)
    bench.gateway.apply(bench.gateway.render(replace(wanted, routes=routes)))
    assert bench.ask("/api/auth/x", "POST")[0] == "auth"
    bench.gateway.panic([AUTH], by="on call")
    assert bench.ask("/api/auth/x", "POST")[0] == "monolith"


def test_a_panic_over_everything_pins_every_flag(bench, run):
    run(auth=100, users=100, storage=50)
    bench.gateway.panic(by="on call")
    assert set(bench.gateway.observe().weights.values()) == {0}
    assert [pin.flag for pin in bench.gateway.pins()] == [AUTH, STORAGE, "USE_USERS_SERVICE"]


def test_no_apply_sends_a_pinned_flag_to_the_new_side_until_it_is_lifted(bench, run, table):
    run(auth=100)
    bench.gateway.panic([AUTH], by="on call")
    before = bench.written()
    with pytest.raises(Pinned, match=AUTH):
        run(auth=1)
    wanted = table(auth=0)
    routes = tuple(replace(one, write_weight=1) if one.flag == AUTH else one for one in wanted.routes)
    with pytest.raises(Pinned):
        bench.gateway.apply(bench.gateway.render(replace(wanted, routes=routes)))
    assert bench.written() == before
    run(storage=100)
    assert (bench.ask("/api/auth/x")[0], bench.ask("/api/storage/x")[0]) == ("monolith", "storage")
    bench.gateway.lift([AUTH], by="a manager")
    assert bench.gateway.pins() == ()
    run(auth=100)
    assert bench.ask("/api/auth/x")[0] == "auth"


def test_a_pin_is_no_drift_before_it_is_obeyed_nor_after(bench, run):
    run(auth=100)
    bench.gateway.pin([AUTH], by="a script")
    seen = bench.gateway.observe()
    assert (seen.weights[AUTH], seen.drift) == (100, ())
    bench.gateway.panic([AUTH], by="a script")
    seen = bench.gateway.observe()
    assert (seen.weights[AUTH], seen.drift) == (0, ())
    bench.edit_running()
    assert bench.gateway.observe().drift


def test_a_panic_at_a_gateway_that_is_down_is_what_it_starts_with(bench, run):
    run(auth=100)
    bench.stop()
    with pytest.raises(NotConfirmed):
        bench.gateway.panic([AUTH], by="on call")
    bench.start()
    assert bench.ask("/api/auth/x")[0] == "monolith"


def test_pins_alone_are_obeyed_by_the_next_start(bench, run):
    run(auth=100)
    bench.stop()
    bench.gateway.pin([AUTH], by="a script")
    bench.start()
    assert bench.ask("/api/auth/x")[0] == "monolith"
    assert bench.gateway.observe().drift == ()


def test_what_was_done_with_pins_is_in_the_journal_in_order(bench, run):
    done = run(auth=100)
    begun = len(bench.gateway.journal().lines)
    bench.gateway.panic([STORAGE, AUTH], by="on call", why="a\treason\nof two lines")
    noted = bench.gateway.lift([STORAGE, AUTH], by="a manager")
    told = [entry_of(line.text) for line in bench.gateway.journal().lines[begun:]]
    assert [(one.done, one.flags, one.by, one.generation) for one in told] == [
        ("pinned", (STORAGE, AUTH), "on call", done.generation),
        ("lifted", (STORAGE, AUTH), "a manager", done.generation),
    ]
    assert told[0].why == "a reason of two lines"
    assert noted == bench.gateway.journal().lines[-1]
    assert bench.gateway.journal_size() == bench.gateway.journal().size > 0


def test_what_a_lift_lets_go_stays_on_the_old_side_whatever_starts_or_panics_then(bench, run):
    run(auth=100, storage=40)
    bench.gateway.pin([AUTH], by="a script")
    bench.gateway.lift([AUTH], by="a manager")
    assert bench.gateway.last_applied().weights()[AUTH] == 0
    bench.gateway.panic([STORAGE], by="on call")
    seen = bench.gateway.observe()
    assert (seen.weights[AUTH], seen.weights[STORAGE], seen.drift) == (0, 0, ())


def test_two_panics_at_once_both_come_through(bench, run, monkeypatch):
    run(auth=100, storage=40)
    pins = type(bench.gateway).pins

    def as_the_other_comes(gateway):
        found = pins(gateway)
        if STORAGE not in {pin.flag for pin in found}:
            gateway.pin([STORAGE], by="another")
        return found

    monkeypatch.setattr(type(bench.gateway), "pins", as_the_other_comes)
    assert bench.gateway.panic([AUTH], by="on call").changed
    seen = bench.gateway.observe()
    assert (seen.weights[AUTH], seen.weights[STORAGE]) == (0, 0)


def test_a_panic_wins_over_applies_that_race_with_it(bench, table):
    last = [bench.gateway.render(table(auth=100)) for _ in range(12)]
    bench.gateway.apply(last[0])
    unexpected = []

    def flip():
        for one in last[1:]:
            try:
                bench.gateway.apply(one)
            except Exception as error:  # noqa: BLE001 - the thread must hand over whatever it was
                unexpected.append(error)

    thread = threading.Thread(target=flip)
    thread.start()
    with suppress(NotConfirmed):  # told to whoever is overtaken on a slow machine; what runs in the end counts
        bench.gateway.panic([AUTH], by="on call")
    thread.join()
    assert bench.gateway.observe().weights[AUTH] == 0
    assert [error for error in unexpected if not isinstance(error, Pinned | StaleGeneration | NotConfirmed)] == []


def test_a_gateway_that_nothing_was_applied_to_cannot_be_brought_back_but_named_flags_are_pinned():
    gateway = MemoryGateway()
    with pytest.raises(Obsolete):
        gateway.panic([AUTH], by="on call")
    with pytest.raises(Obsolete):
        gateway.lift([AUTH], by="a manager")
    assert [pin.flag for pin in gateway.pins()] == [AUTH]


def test_a_folder_that_takes_no_pins_is_told_and_traffic_goes_back_all_the_same(module_envoy, table):
    gateway = module_envoy.adapter()
    gateway.apply(gateway.render(table(auth=100)))
    pins, aside = module_envoy.folder / "pins", module_envoy.folder / "aside"
    if pins.exists():
        pins.rename(aside)
    pins.write_text("this is no folder")
    try:
        with pytest.raises(FolderUnusable, match="it runs the old side, but nothing keeps it there"):
            gateway.panic([AUTH], by="on call")
        assert gateway.observe().weights[AUTH] == 0
    finally:
        pins.unlink()
