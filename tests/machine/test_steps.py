"""Flips, steps, rollbacks, triggers, deaths, duplicates and restarts, in any order, against a model of them.

As in `test_machine`, every step is taken in the product, on the real database and the in-memory gateway, and in
`steps_model`. Whatever is done may lose its connection to the database before any of its writes, as a process that
is killed does: then the product must be as the model was at one of its commits, and never in between.

MACHINE_EXAMPLES=2000 makes a longer run, of other examples each time.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import time_machine
from django.db import InterfaceError, OperationalError, connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from migrations_app import tasks
from migrations_app.actions import flags, freezes, prerequisites, rollouts, weeks
from migrations_app.choices import ActorKind
from migrations_app.errors import ActionError
from migrations_app.gateways.base import Rendered
from migrations_app.gateways.errors import GatewayError, StaleGeneration
from migrations_app.models import (
    AuditEvent,
    Confirmation,
    Flag,
    Freeze,
    Gateway,
    Plan,
    Prerequisite,
    Rollout,
    TrafficCounter,
    TriggerState,
    Week,
)
from migrations_app.models.audit import check_chain
from migrations_app.observe.health import PollResult, store
from migrations_app.reconcile.adapters import forget_adapters
from migrations_app.reconcile.desired import desired_table
from migrations_app.reconcile.loop import reconcile, reconcile_all
from tests.factories import memory_gateway
from tests.machine.steps_model import (
    LINE_OF,
    MINUTE,
    SECOND,
    SERVICE,
    STALE,
    WEEKS,
    Proxy,
    Seen,
    Steps,
    table,
)
from tests.machine.steps_plan import document
from tests.machine.world import actor, begin

START = datetime(2026, 11, 24, 9, 0, 30, tzinfo=UTC)
STEP = timedelta(seconds=2)  # what any step takes
MOMENT = timedelta(milliseconds=1)  # between two things of one step

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "0"))
QUICK = settings(max_examples=7, stateful_step_count=30, derandomize=True)
LONG = settings(max_examples=EXAMPLES or 1, stateful_step_count=80, derandomize=False, print_blob=True)

READS = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK")
TOLD = ("flag.", "week.", "rollout.", "trigger.", "gate.refused", "gateway.")
ACTIONS: dict[str, Callable[..., Any]] = {
    "set_weight": lambda flag, **how: flags.set_weight(key=flag, **how),
    "enable_week": weeks.enable_week,
    "roll_back_week": weeks.roll_back_week,
    "roll_back_flag": lambda flag, **how: flags.roll_back_flag(key=flag, **how),
    "start": lambda flag, **how: rollouts.start_rollout(key=flag, **how),
    "step_to": lambda flag, **how: rollouts.step_to(key=flag, **how),
    "back": lambda flag, **how: rollouts.step_back(key=flag, **how),
    "pause": lambda flag, **how: rollouts.pause_rollout(key=flag, **how),
    "resume": lambda flag, **how: rollouts.resume_rollout(key=flag, **how),
    "abort": lambda flag, **how: rollouts.abort_rollout(key=flag, **how),
}

flag_keys = st.sampled_from(list(SERVICE))
services = st.sampled_from(list(SERVICE.values()))
numbers = st.sampled_from(list(WEEKS))
managers = st.sampled_from(["mia", "mia", "max", "max", "mia", "ada"])
anybody = st.sampled_from(["mia", "max", "ada"])
which = st.integers(0, 5)
polled = st.sampled_from([True, True, True, False])
# The number of the statement that writes before which the connection is lost; None for a step in good order.
dies = st.one_of(st.none(), st.integers(1, 16))


class Died(Exception):
    """The connection was lost on the way."""


@contextmanager
def dying(at: int | None) -> Iterator[None]:
    """The block loses its connection to PostgreSQL before its write number `at`. Raises Died when it was lost."""
    if at is None:
        yield
        return
    connection.ensure_connection()
    left, process = at, connection.connection.info.backend_pid

    def count(execute, sql, params, many, context):
        nonlocal left
        left -= not sql.startswith(READS)
        if left == 0 and not connection.connection.closed:
            connection.connection.close()
        return execute(sql, params, many, context)

    try:
        with connection.execute_wrapper(count):
            yield
    except (OperationalError, InterfaceError, psycopg.Error) as error:
        if left > 0:
            raise
        connection.close()
        gone(process)
        raise Died from error
    assert left > 0, "the connection was lost, and nobody noticed"


def gone(process: int) -> None:
    """Until PostgreSQL has let go of what a lost connection held."""
    with connection.cursor() as cursor:
        for _ in range(10_000):
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [process])
            if cursor.fetchone() == (0,):
                return
    raise AssertionError(f"PostgreSQL keeps process {process} of a connection that was lost")


def product() -> dict[str, Any]:
    """What the product tells of itself, as `Steps.told` has it."""
    row = Gateway.objects.get()
    seen = memory_gateway().observe()
    events = [event for event in AuditEvent.objects.order_by("pk") if event.kind.startswith(TOLD)]
    rows = Rollout.objects.order_by("pk").values_list("flag__key", "state", "position", "generation", "since")
    states = TriggerState.objects.values_list("flag__key", "key", "state", "generation", "fired_for", "fired_as")
    counters = TrafficCounter.objects.values_list("service__key", "side", "requests", "errors")
    return {
        "generation": Plan.objects.values_list("generation", flat=True).get(),
        "flags": {key: (weight, of) for key, weight, of in Flag.objects.values_list("key", "weight", "generation")},
        "statuses": dict(Week.objects.values_list("number", "status")),
        "rollouts": list(rows),
        "triggers": {(flag, key): tuple(found) for flag, key, *found in states},
        "events": [_told(event) for event in events],
        "keys": sorted(str(event.request_key) for event in events if event.request_key),
        "confirmed": dict(Confirmation.objects.values_list("generation", "confirmed_at")),
        "seen": (row.observed_generation, row.observed_weights, row.error != "", row.observed_at),
        "failing over": set(row.failing_over),
        "read": {(service or "", side): (requests, errors) for service, side, requests, errors in counters},
        "gateway": {
            "generation": seen.generation,
            "weights": dict(seen.weights),
            "drift": bool(seen.drift),
            "error": seen.error != "",
        },
    }


def _told(event: AuditEvent) -> tuple[Any, ...]:
    after = event.after
    step = after.get("rollout", {}).get("step", after.get("step", 0))
    state = after.get("rollout", {}).get("state", after.get("state", ""))
    weights = tuple(sorted((key, value) for key, value in after.items() if key in SERVICE))
    return event.kind, event.subject, event.actor, weights, after.get("trigger", {}).get("key", ""), step, state


class Traffic(RuleBasedStateMachine):
    seen: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.clock = time_machine.travel(START, tick=False)
        self.traveller = self.clock.start()
        begin(document())
        self.lines = dict(Prerequisite.objects.values_list("key", "pk"))
        self.model = Steps(START)
        self.clicks: list[tuple[str, dict[str, Any]]] = []
        self.kept: list[Rendered] = []
        self.messages: list[tuple[Gateway, Seen]] = []
        self.highest = 0
        self.ill: set[str] = set()

    def teardown(self) -> None:
        self.seen.update(kind for kind, *_ in self.model.events)
        self.clock.stop()

    # -- how a step is taken ----------------------------------------------------------------------------------------

    def pass_time(self, length: timedelta = STEP) -> None:
        self.model.now += length
        self.traveller.move_to(self.model.now)

    def both(self, model: Callable[[], Any], act: Callable[[], Any], at: int | None = None) -> Any:
        """The same in both. Where the product dies at a statement, it is as the model was at one of its commits."""
        before = copy.deepcopy(self.model) if at is not None else self.model
        self.model.recording, self.model.points = at is not None, []
        predicted = model()
        points, self.model.points, self.model.recording = self.model.points, [], False
        try:
            with dying(at):
                got = outcome(act)
        except Died:
            now = product()
            as_now = [point for point in [before, *points] if point.told() == now]
            assert as_now, f"cut off between two commits: {differences(now, [before, *points])}"
            self.model = as_now[-1]
            self.seen["died"] += 1
        else:
            assert got == predicted, f"the model says {predicted}, the product {got}"

    def click(self, name: str, dies_at: int | None, by: str, **what: Any) -> None:
        self.pass_time()
        how = {**what, "by": by, "key": UUID(int=len(self.clicks) + 1)}
        self.clicks.append((name, how))
        self.carry_out(name, how, dies_at)

    def carry_out(self, name: str, how: dict[str, Any], at: int | None) -> None:
        what = {key: value for key, value in how.items() if key not in {"by", "key"}}
        self.both(
            lambda: getattr(self.model, name)(**how),
            lambda: ACTIONS[name](**what, actor=actor(how["by"]), request_key=how["key"]),
            at,
        )

    # -- time, health, gates ----------------------------------------------------------------------------------------

    @initialize(
        prepared=st.sampled_from([True, True, True, True, False]), on=st.sampled_from([0, None, None, None, 100])
    )
    def begin(self, prepared: bool, on: int | None) -> None:
        """All is well; often people have signed everything off, and a weight, or for None a rollout, has begun."""
        self.model.generation = Plan.objects.values_list("generation", flat=True).get()
        for key, generation in Flag.objects.values_list("key", "generation"):
            self.model.flags[key]["generation"] = generation
        self.poll(ill=set())
        if prepared:
            for number in WEEKS:
                self.tick(number=number, signed=True)
        self.beat(dies_at=None)
        for flag in SERVICE:
            if on is None:
                self.start(flag=flag, by="mia", dies_at=None)
            else:
                self.move(flag=flag, weight=on, by="mia", dies_at=None)
        self.beat(dies_at=None)

    @rule(length=st.sampled_from([5 * SECOND, 31 * SECOND, MINUTE, 6 * MINUTE, 11 * MINUTE, STALE]), polled=polled)
    def wait(self, length: timedelta, polled: bool) -> None:
        self.pass_time(length)
        if polled:
            self.poll_now()

    @rule(ill=st.sets(services, max_size=1))
    def poll(self, ill: set[str]) -> None:
        self.pass_time()
        self.ill = ill
        self.poll_now()

    def poll_now(self) -> None:
        self.model.poll(self.ill)
        store([PollResult(name, self.model.now, name not in self.ill, 200, 1.0, "") for name in SERVICE.values()])

    @rule(number=numbers, signed=st.sampled_from([True, True, False]))
    def tick(self, number: int, signed: bool) -> None:
        self.pass_time()
        act = prerequisites.tick if signed else prerequisites.untick
        act(prerequisite_id=self.lines[LINE_OF[number]], actor=actor("mia"))
        (self.model.signed.add if signed else self.model.signed.discard)(LINE_OF[number])

    @rule(minutes=st.sampled_from([0, 2, 2]))
    def freeze(self, minutes: int) -> None:
        """For so long from now on; 0 lifts what is there."""
        self.pass_time()
        for row in Freeze.objects.filter(lifted_at=None, ends_at__gt=self.model.now):
            freezes.lift_freeze(freeze_id=row.pk, actor=actor("mia"))
        self.model.frozen_until = None
        if minutes:
            self.model.frozen_until = ends = self.model.now + minutes * MINUTE
            title = f"freeze {self.model.now:%H:%M:%S}"
            freezes.add_freeze(title=title, starts_at=self.model.now, ends_at=ends, actor=actor("mia"))

    # -- people -----------------------------------------------------------------------------------------------------

    @rule(flag=flag_keys, weight=st.sampled_from([0, 1, 10, 25, 50, 99, 100]), by=managers, dies_at=dies)
    def move(self, flag: str, weight: int, by: str, dies_at: int | None) -> None:
        self.click("set_weight", dies_at, by, flag=flag, weight=weight)

    @rule(number=numbers, act=st.sampled_from(["enable_week", "roll_back_week"]), by=managers, dies_at=dies)
    def move_week(self, number: int, act: str, by: str, dies_at: int | None) -> None:
        self.click(act, dies_at, by, number=number)

    @rule(flag=flag_keys, by=managers, dies_at=dies)
    def start(self, flag: str, by: str, dies_at: int | None) -> None:
        self.click("start", dies_at, by, flag=flag)

    @precondition(lambda self: self.model.rollouts)
    @rule(
        flag=flag_keys,
        act=st.sampled_from(["pause", "resume", "resume", "back", "abort", "roll_back_flag"]),
        by=managers,
        dies_at=dies,
    )
    def see_to_rollout(self, flag: str, act: str, by: str, dies_at: int | None) -> None:
        self.click(act, dies_at, by, flag=flag)

    @precondition(lambda self: self.model.rollouts)
    @rule(flag=flag_keys, position=st.integers(0, 5), looked=st.integers(0, 2), by=managers, dies_at=dies)
    def jump(self, flag: str, position: int, looked: int, by: str, dies_at: int | None) -> None:
        """`looked` is the step that the page showed."""
        self.click("step_to", dies_at, by, flag=flag, position=position, **({"at": looked} if looked else {}))

    @precondition(lambda self: self.clicks)
    @rule(place=which, dies_at=dies)
    def click_again(self, place: int, dies_at: int | None) -> None:
        """A click of before, with its key, for the second or the tenth time."""
        self.pass_time()
        name, how = self.clicks[-1 - place % len(self.clicks)]
        self.carry_out(name, how, dies_at)

    # -- what goes on by itself -------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.proxy.up and self.model.proxy.running)
    @rule(
        service=services,
        requests=st.sampled_from([5, 19, 20, 60, 150]),
        failed=st.sampled_from([0, 0, 0, 10, 100]),
        slow=st.booleans(),
        method=st.sampled_from(["GET", "POST"]),
    )
    def serve(self, service: str, requests: int, failed: int, slow: bool, method: str) -> None:
        """`failed`: per cent, evenly."""
        self.pass_time()
        self.send(service, requests, failed=failed, slow=slow, method=method)

    def send(self, service: str, requests: int, *, failed: int = 0, slow: bool = False, method: str = "GET") -> None:
        gateway, flag = memory_gateway(), next(flag for flag in SERVICE if SERVICE[flag] == service)
        for number in range(requests):
            fails = (number + 1) * failed // 100 > number * failed // 100
            served = gateway.serve(f"/api/{service}", method=method, failed=fails, milliseconds=700 if slow else 9)
            side = served.side.value
            assert (side == "service") == (self.model.proxy.weight(flag) == 100) or self.model.proxy.weight(flag) % 100
            self.model.count(service, side, failed=fails, slow=slow, read=method == "GET")

    @rule(dies_at=dies)
    def look(self, dies_at: int | None) -> None:
        """The task that reads traffic, watches triggers and sees to rollouts."""
        self.pass_time()
        self.both(self.model_look, tasks.read_traffic, dies_at if self.model.proxy.up else None)

    def model_look(self) -> str:
        self.model.look()
        return "None"

    @rule(dies_at=dies)
    def beat(self, dies_at: int | None) -> None:
        """A pass, and then a look; both twice."""
        for number in (dies_at, None):
            self.pass_time()
            self.pass_now(number)
            self.pass_time(MOMENT)
            self.both(self.model_look, tasks.read_traffic)

    def pass_now(self, at: int | None) -> None:
        def passes() -> str:
            self.model.reconcile()
            return "None"

        def act() -> None:
            reconcile_all()

        # A gateway that is away does not show what was written for it: nobody could tell how far a dead pass has come.
        up = self.model.proxy.up
        self.both(passes, act, at if up else None)
        if up and at is None and not self.model.proxy.refuses:
            now = memory_gateway().observe()
            weights = {flag: row["weight"] for flag, row in self.model.flags.items()}
            assert (now.generation, dict(now.weights)) == (self.model.generation, weights)
            assert Gateway.objects.get().error == ""

    @rule(
        how=st.sampled_from(["well", "well", "well", "failing", "slow", "silent"]),
        length=st.sampled_from([10 * SECOND, MINUTE + SECOND, 2 * MINUTE + SECOND, 10 * MINUTE + SECOND]),
        dies_at=dies,
    )
    def a_while(self, how: str, length: timedelta, dies_at: int | None) -> None:
        """All processes work, every service has traffic of one kind; then they look."""
        self.pass_time()
        self.pass_now(None)
        self.pass_time(length)
        self.both(self.model_look, tasks.read_traffic)
        self.poll_now()
        if self.model.proxy.up and self.model.proxy.running and how != "silent":
            for flag, service in SERVICE.items():
                weight = self.model.proxy.weight(flag)
                requests = min(4000, 120 * 100 // weight) if weight else 30
                self.send(service, requests, failed=30 if how == "failing" else 0, slow=how == "slow", method="POST")
        self.pass_time(MOMENT)
        self.pass_now(None)
        self.pass_time(MOMENT)
        self.both(self.model_look, tasks.read_traffic, dies_at if self.model.proxy.up else None)

    @rule(length=st.sampled_from([MINUTE + SECOND, 2 * MINUTE + SECOND, 10 * MINUTE + SECOND]))
    def a_good_while(self, length: timedelta) -> None:
        self.ill = set()
        self.a_while(how="well", length=length, dies_at=None)

    # -- the gateway ------------------------------------------------------------------------------------------------

    @rule(up=st.sampled_from([True, True, False]), refuses=st.sampled_from([True, False, False]))
    def gateway_fares(self, up: bool, refuses: bool) -> None:
        """It goes, comes back, or is started again."""
        gateway, proxy = memory_gateway(), self.model.proxy
        if up and proxy.up:
            gateway.restart()
        gateway.answers, gateway.refuses = up, "it does not like it" if refuses else ""
        if up:
            proxy.restart()
        proxy.up, proxy.refuses = up, refuses

    @rule(down=st.sets(services, max_size=1))
    def services_die_or_come_back(self, down: set[str]) -> None:
        memory_gateway().down = set(down)
        self.model.proxy.down = set(down)

    @precondition(lambda self: self.model.proxy.running)
    @rule(flag=flag_keys, weight=st.sampled_from([0, 30, 100]), content=st.sampled_from(["", "", "junk", "gone"]))
    def somebody_edits(self, flag: str, weight: int, content: str) -> None:
        """What runs, or what lies ready for the next start."""
        proxy = self.model.proxy
        if content:
            memory_gateway().tamper_folder(None if content == "gone" else b"not a table")
            proxy.folder = content
        else:
            memory_gateway().tamper({flag: weight})
            proxy.running = table(proxy.running[0], dict(proxy.running[1]) | {flag: weight})

    @rule(sure=st.sampled_from([True, False, False]))
    def gateway_loses_everything(self, sure: bool) -> None:
        """A new one, with an empty folder."""
        if sure:
            forget_adapters()
            self.model.proxy = Proxy()

    @rule()
    def a_pass_is_held_up(self) -> None:
        """It has read what is wanted, or a message, and goes on much later."""
        plan = Plan.objects.get()
        self.kept.append(memory_gateway().render(desired_table(plan)))
        self.messages.append((Gateway.objects.select_related("plan").get(), copy.deepcopy(self.model.seen)))

    @precondition(lambda self: self.kept)
    @rule(place=which)
    def a_late_pass_applies(self, place: int) -> None:
        """Refused when a newer one is there, whatever it would do."""
        self.pass_time()
        rendered = self.kept[place % len(self.kept)]
        wanted = next(kept for kept in [self.table_of(rendered)])
        came, _ = self.model.proxy.apply(wanted)
        try:
            memory_gateway().apply(rendered)
        except StaleGeneration:
            assert came == "stale"
        except GatewayError:
            assert came in {"rejected", "written"}
        else:
            assert came in {"ran", "changed"}

    def table_of(self, rendered: Rendered) -> Any:
        """The model's word for a table, from the audit log: the weights at its generation."""
        weights = dict.fromkeys(SERVICE, 0)
        for event in AuditEvent.objects.filter(generation__lte=rendered.generation).order_by("pk"):
            if event.kind != "gateway.drift_corrected":
                weights |= {key: weight for key, weight in event.after.items() if key in SERVICE}
        return table(rendered.generation, weights)

    @precondition(lambda self: self.messages)
    @rule(place=which, times=st.integers(1, 3))
    def an_old_message_is_replayed(self, place: int, times: int) -> None:
        row, seen = self.messages[place % len(self.messages)]
        for _ in range(times):
            self.pass_time()

            def passes() -> str:
                self.model.reconcile(seen)
                return "None"

            def act() -> None:
                reconcile(row)

            self.both(passes, act)

    # -- after every step -------------------------------------------------------------------------------------------

    @invariant()
    def the_product_is_as_the_model_says(self) -> None:
        now = product()
        assert now == self.model.told(), differences(now, [self.model])

    @invariant()
    def generations_only_grow_and_one_rollout_is_under_way(self) -> None:
        generation = Plan.objects.values_list("generation", flat=True).get()
        assert generation >= self.highest
        self.highest = generation
        rows = Rollout.objects.filter(ended_at=None).values_list("flag__key", "flag__weight", "weight")
        under_way = [flag for flag, _, _ in rows]
        assert len(under_way) == len(set(under_way))
        assert all(weight == step for _, weight, step in rows)

    @invariant()
    def the_audit_log_is_whole_and_every_rise_is_a_persons(self) -> None:
        """By an open gate; and after a rollback no step goes up by itself before a person has begun anew."""
        assert check_chain().intact
        weights, begun, keys = dict.fromkeys(SERVICE, 0), dict.fromkeys(SERVICE, False), Counter()
        for event in AuditEvent.objects.order_by("pk"):
            if event.request_key:
                keys[event.request_key] += 1
            if event.kind in {"gateway.drift_corrected", "plan.loaded"}:
                continue
            moved = {key: weight for key, weight in event.after.items() if key in SERVICE}
            for key, weight in moved.items():
                person = event.actor_kind != ActorKind.SYSTEM
                if weight > weights[key]:
                    assert event.verdict["open"] is True
                    assert person or (event.kind == "rollout.stepped" and begun[key])
                # A rollout that a person has begun goes on until anything else moves the flag.
                begun[key] = event.kind == "rollout.started" or (begun[key] and event.kind == "rollout.stepped")
            weights |= moved
        assert weights == {flag: row["weight"] for flag, row in self.model.flags.items()}
        assert not [key for key, times in keys.items() if times > 1]


def outcome(act: Callable[[], Any]) -> str:
    """What came of an action, as the model says it."""
    try:
        change = act()
    except ActionError as refusal:
        return type(refusal).__name__
    if change is None:
        return "None"
    return "done" if change.changed else "same"


def differences(now: dict[str, Any], models: list[Steps]) -> str:
    """What the product tells otherwise than the one of these that comes nearest."""

    def of(model: Steps) -> list[str]:
        told = model.told()
        return [f"{name}: product {now[name]}, model {told[name]}" for name in now if told[name] != now[name]]

    return "\n".join(min(map(of, models), key=len))


@pytest.fixture
def world(transactional_db, settings) -> None:
    settings.HEALTH_STALE_AFTER = STALE.total_seconds()
    settings.CELERY_BROKER_URL = ""


def test_traffic_moves_as_the_model_says_whatever_is_done_and_dies_in_whatever_order(world):
    run_state_machine_as_test(
        Traffic,
        settings=settings(
            LONG if EXAMPLES else QUICK,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    # It is worth something only while much happens in it.
    assert Traffic.seen["died"] > 5
    assert len(Traffic.seen) > 8


def test_a_look_that_dies_at_any_of_its_writes_leaves_nothing_half_done(world):
    """One that has triggers pause a rollout, tell and roll back, and a step that fails. The next look does the rest."""
    machine = Traffic()
    try:
        machine.begin(prepared=True, on=0)
        for number in itertools.count(1):
            for flag in ("USE_ALPHA", "USE_BETA"):
                machine.start(flag=flag, by="mia", dies_at=None)
            machine.move(flag="USE_GAMMA", weight=50, by="mia", dies_at=None)
            machine.pass_now(None)
            machine.look(dies_at=None)  # what comes from here on is of these weights alone
            machine.pass_time()
            machine.send("alpha", 400, failed=10, method="POST")
            machine.send("beta", 120, slow=True)
            machine.send("gamma", 100, failed=70, method="POST")
            begun, deaths = len(machine.model.events), Traffic.seen["died"]
            machine.look(dies_at=number)
            machine.pass_now(None)
            machine.look(dies_at=None)
            assert [(kind, flag, trigger) for kind, flag, _, _, trigger, _, _ in machine.model.events[begun:]] == [
                ("rollout.paused", "USE_BETA", ""),
                ("trigger.fired", "USE_GAMMA", "trial"),
                ("flag.rolled_back", "USE_GAMMA", "silent"),
                ("flag.rolled_back", "USE_ALPHA", ""),
            ]
            machine.the_product_is_as_the_model_says()
            if Traffic.seen["died"] == deaths:
                break
            machine.click("abort", None, "mia", flag="USE_BETA")
        machine.the_audit_log_is_whole_and_every_rise_is_a_persons()
        assert number > 20
    finally:
        machine.teardown()
