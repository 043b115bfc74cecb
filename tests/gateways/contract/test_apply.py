"""Applying a table, and reading back what runs."""

from __future__ import annotations

import itertools
import random
import threading
from dataclasses import replace

import pytest

from migrations_app.gateways.base import (
    Rendered,
)
from migrations_app.gateways.errors import (
    InvalidTable,
    NotConfirmed,
    Rejected,
    StaleGeneration,
    Unreachable,
)

_numbers = itertools.count(1)


def test_apply_tells_what_it_did_and_observe_agrees(bench, run, table):
    applied = run(auth=100, storage=40)
    assert applied.changed
    assert applied.milliseconds > 0
    seen = bench.gateway.observe()
    assert seen.generation == applied.generation
    assert seen.weights == {"USE_AUTH_SERVICE": 100, "USE_USERS_SERVICE": 0, "USE_STORAGE_SERVICE": 40}
    assert (seen.drift, seen.error) == ((), "")


def test_rendering_is_pure(bench, table):
    made = table(auth=10)
    assert bench.gateway.render(made) == bench.gateway.render(made)


def test_applying_the_same_again_writes_nothing(bench, table):
    rendered = bench.gateway.render(table(auth=100))
    assert bench.gateway.apply(rendered).changed
    before = bench.written()
    again = bench.gateway.apply(rendered)
    assert (again.generation, again.changed) == (rendered.generation, False)
    assert bench.written() == before


def test_a_lower_generation_is_refused_and_nothing_is_written(bench, table):
    old, new = bench.gateway.render(table(auth=100)), bench.gateway.render(table())
    bench.gateway.apply(new)
    before = bench.written()
    with pytest.raises(StaleGeneration) as refused:
        bench.gateway.apply(old)
    assert (refused.value.offered, refused.value.current) == (old.generation, new.generation)
    assert bench.written() == before
    assert bench.ask("/api/auth")[0] == "monolith"


def test_the_same_generation_with_other_content_is_written(bench, table):
    made = table(auth=100)
    bench.gateway.apply(bench.gateway.render(made))
    other = table(generation=made.generation, auth=0)
    assert bench.gateway.apply(bench.gateway.render(other)).changed
    assert bench.ask("/api/auth")[0] == "monolith"


def test_a_change_of_what_runs_is_named_and_healed(bench, table):
    rendered = bench.gateway.render(table(auth=100))
    bench.gateway.apply(rendered)
    bench.edit_running()
    assert bench.ask("/api/storage")[0] == "storage"
    seen = bench.gateway.observe()
    assert any("route /api/storage runs" in sentence for sentence in seen.drift)
    assert seen.weights["USE_STORAGE_SERVICE"] == 100
    assert bench.gateway.apply(rendered).changed
    assert bench.ask("/api/storage")[0] == "monolith"
    assert bench.gateway.observe().drift == ()


@pytest.mark.parametrize("accident", ["edit_folder", "delete_folder"])
def test_a_change_of_what_lies_ready_is_named_and_healed_before_a_restart(bench, table, accident):
    rendered = bench.gateway.render(table(auth=100))
    bench.gateway.apply(rendered)
    getattr(bench, accident)()
    assert bench.ask("/api/storage")[0] == "monolith"
    seen = bench.gateway.observe()
    assert any("the file" in sentence for sentence in seen.drift)
    assert seen.generation == rendered.generation
    healed = bench.gateway.apply(rendered)
    assert healed.changed
    assert any("the file" in sentence for sentence in healed.replaced)
    assert bench.gateway.observe().drift == ()
    bench.stop()
    bench.start()
    assert bench.ask("/api/storage")[0] == "monolith"
    assert bench.ask("/api/auth")[0] == "auth"


@pytest.mark.parametrize("accident", ["edit_folder", "delete_folder"])
def test_a_change_tells_which_edit_it_replaced(bench, table, accident):
    first, second, third = (bench.gateway.render(table(auth=weight)) for weight in (100, 30, 70))
    assert bench.gateway.apply(first).replaced == ()
    getattr(bench, accident)()
    assert any("the file" in sentence for sentence in bench.gateway.apply(second).replaced)
    assert bench.gateway.apply(third).replaced == ()


def test_a_change_of_an_address_is_applied(bench, table, estate):
    made = table(auth=100)
    bench.gateway.apply(bench.gateway.render(made))
    moved = replace(table(auth=100), routes=(replace(made.routes[0], upstream=estate["storage"].address),))
    bench.gateway.apply(bench.gateway.render(moved))
    assert bench.ask("/api/auth/x") == ("storage", "/auth/x")
    assert bench.ask("/api/storage/x") == ("monolith", "/api/storage/x")
    assert bench.gateway.observe().drift == ()


def test_an_outage_is_told_and_what_was_written_meanwhile_runs_after_it(bench, run, table):
    run()
    bench.stop()
    seen = bench.gateway.observe()
    assert seen.generation is None
    assert "does not answer" in seen.error
    with pytest.raises(Unreachable):
        bench.gateway.traffic()
    rendered = bench.gateway.render(table(auth=100))
    with pytest.raises(NotConfirmed, match="does not answer"):
        bench.gateway.apply(rendered)
    bench.start()
    assert bench.ask("/api/auth")[0] == "auth"
    assert bench.gateway.observe().generation == rendered.generation
    assert not bench.gateway.apply(rendered).changed


def test_the_last_table_outlives_a_restart_without_us(bench, run):
    run(auth=100)
    bench.stop()
    bench.start()
    assert bench.ask("/api/auth/login") == ("auth", "/auth/login")


def test_files_that_are_no_table_are_rejected_and_nothing_changes(bench, run, table):
    run(auth=100)
    before = bench.written()
    good = bench.gateway.render(table())
    for content in (b"", b"{", b"[]", b'{"resources":[]}'):
        with pytest.raises(Rejected):
            bench.gateway.apply(Rendered(good.generation, dict.fromkeys(good.files, content)))
    assert bench.written() == before
    assert bench.ask("/api/auth")[0] == "auth"
    assert bench.gateway.observe().drift == ()


def test_a_table_that_cannot_be_expressed_is_refused_by_render(bench, table):
    made = table()
    broken = replace(made, routes=(replace(made.routes[0], weight=101),))
    with pytest.raises(InvalidTable, match=r"route /api/auth: weight 101"):
        bench.gateway.render(broken)


def test_check_takes_what_apply_takes_and_changes_nothing(bench, run, table):
    run(auth=100)
    before = bench.written()
    for weights in ({"auth": 0}, {"auth": 30, "storage": 100}):
        bench.gateway.check(bench.gateway.render(table(**weights)))
    assert bench.written() == before
    assert bench.ask("/api/auth/x")[0] == "auth"
    assert bench.gateway.observe().drift == ()


def test_check_refuses_what_the_gateway_would_refuse(bench, run, table):
    run(auth=100)
    before = bench.written()
    good = bench.gateway.render(table())
    with pytest.raises(Rejected, match="not a routing table of ours"):
        bench.gateway.check(Rendered(good.generation, dict.fromkeys(good.files, b"{}")))
    with pytest.raises(Rejected):
        bench.gateway.check(bench.refused(good))
    assert bench.written() == before
    assert bench.ask("/api/auth/x")[0] == "auth"


def test_check_needs_no_gateway_that_answers(bench, run, table):
    run()
    bench.stop()
    bench.gateway.check(bench.gateway.render(table(auth=100)))


def test_threads_that_race_end_at_the_highest_generation(bench, table):
    rendered = [bench.gateway.render(table(auth=weight)) for weight in range(0, 100, 4)]
    unexpected = []

    def worker(seed):
        for one in random.Random(seed).sample(rendered, len(rendered)):
            try:
                bench.gateway.apply(one)
            except StaleGeneration:
                pass
            except Exception as error:  # noqa: BLE001 - the thread must hand over whatever it was
                unexpected.append(error)

    threads = [threading.Thread(target=worker, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    seen = bench.gateway.observe()
    assert (seen.generation, seen.weights["USE_AUTH_SERVICE"], seen.drift) == (rendered[-1].generation, 96, ())


def test_capabilities_are_declared(bench):
    found = bench.gateway.capabilities
    assert (found.split, found.traffic, found.survives_restart, found.validates) == (True, True, True, True)
    assert (found.failover, found.sticky, found.testers) == (True, True, True)


AUTH, STORAGE = "USE_AUTH_SERVICE", "USE_STORAGE_SERVICE"
