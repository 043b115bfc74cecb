"""Anything that people and the world may do, in any order, against the product and against a model of it.

Every step is taken twice, in the product, on the real database and the in-memory gateway, and in `model`; they must
agree on what came of it, and after it on every weight, every week, and every line of every gate. On top of that the
audit log must be whole and tell of an open gate for each weight that rose.

MACHINE_EXAMPLES=2000 makes a longer run, of other examples each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
import time_machine
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

from migrations_app.actions import approvals, flags, freezes, overrides, prerequisites, weeks
from migrations_app.actions.accounts import set_role
from migrations_app.actions.soaks import watch_soaks
from migrations_app.errors import ActionError
from migrations_app.gates.load import done_verdicts, verdicts
from migrations_app.models import ApprovalRequest, AuditEvent, Flag, Plan, Prerequisite, Week
from migrations_app.models.audit import check_chain
from migrations_app.observe.checks import run_checks
from migrations_app.observe.health import PollResult, store
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import memory_gateway
from tests.machine.model import HOUR, MINUTE, SERVICE, STALE, WEEKS, Model
from tests.machine.plan import Variant
from tests.machine.world import TO_BEGIN_WITH, OldSide, actor, begin, old_side

START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)  # a Tuesday
STEP = timedelta(seconds=2)  # what any step takes; more than clocks may differ by

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "0"))
QUICK = settings(max_examples=14, stateful_step_count=30, derandomize=True)
LONG = settings(max_examples=EXAMPLES or 1, stateful_step_count=60, derandomize=False, print_blob=True)

managers = st.sampled_from(["mia", "max", "mia", "max", "ada", "root"])
approvers = st.sampled_from(["ada", "abe", "ada", "abe", "mia", "root"])
administrators = st.sampled_from(["root", "root", "root", "mia"])
freezers = st.sampled_from(["mia", "root", "ada"])
anybody = st.sampled_from(list(TO_BEGIN_WITH))
numbers = st.sampled_from([1, 2, 3])
flag_keys = st.sampled_from(list(SERVICE))
manual = st.sampled_from(["ready", "standby", "told", "calm", "off"])
reasons = st.sampled_from(["why not", "why not", "why not", ""])
which = st.integers(0, 5)


def outcome(act: Callable[[], Any]) -> tuple[str, Any]:
    """What came of an action, as the model says it, and what it returned."""
    try:
        change = act()
    except ActionError as refusal:
        return type(refusal).__name__, None
    changed = change if isinstance(change, bool) else change.changed
    return ("done" if changed else "same"), change


class Gates(RuleBasedStateMachine):
    """`side` is the one old side of the run; the plan asks it whether it is ready."""

    side: OldSide

    def __init__(self) -> None:
        super().__init__()
        self.clock = time_machine.travel(START, tick=False)
        self.traveller = self.clock.start()
        self.side.state = "held"
        self.model = Model(START, TO_BEGIN_WITH)
        self.workers = True  # whether polls and checks run by themselves
        begin(Variant(self.side.port).document())
        self.lines = dict(Prerequisite.objects.values_list("key", "pk"))
        self.seen_generation = 0

    def teardown(self) -> None:
        self.clock.stop()

    # -- time and the world -------------------------------------------------------------------------------------

    def pass_time(self, length: timedelta = STEP) -> None:
        self.model.now += length
        self.traveller.move_to(self.model.now)

    @initialize(prepared=st.sampled_from([0, 1, 1, 2, 2, 3]))
    def begin(self, prepared: int) -> None:
        """Polls have run; and so far have people come."""
        self.pass_time()
        self.poll_all()
        for number in range(1, prepared + 1):
            self.prepare(number=number)
            if number < prepared:
                self.enable(number=number, by="mia", reason="why not")
                self.wait(length=WEEKS[number]["soak"])

    def poll_all(self, *, watched: bool = True) -> None:
        self.model.poll()
        store(
            [
                PollResult(service, self.model.now, service not in self.model.ill, 200, 1.0, "")
                for service in SERVICE.values()
            ]
        )
        if watched:
            self.model.watch()
            watch_soaks()

    @rule(length=st.sampled_from([MINUTE, 10 * MINUTE, STALE + MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 7 * HOUR]))
    def wait(self, length: timedelta) -> None:
        """With workers, the last poll and the last checks are of just now."""
        self.pass_time(length)
        if self.workers:
            self.poll_all()
            self.model.check(None)
            run_checks()

    @rule(work=st.booleans())
    def workers_stop_or_start(self, work: bool) -> None:
        self.workers = work

    @rule(ill=st.sets(st.sampled_from(list(SERVICE.values())), max_size=2), watched=st.booleans())
    def services_fall_ill_or_recover(self, ill: set[str], watched: bool) -> None:
        """`watched`: the soak clocks are looked after at once, and not only with a later poll."""
        self.pass_time()
        self.model.ill = ill
        self.poll_all(watched=watched)

    @rule(state=st.sampled_from(["held", "not_held", "unknown"]), checked=st.booleans())
    def old_side_changes(self, state: str, checked: bool) -> None:
        self.pass_time()
        self.side.state = self.model.world = state
        if checked:
            self.model.check(None)
            run_checks()

    # -- people ---------------------------------------------------------------------------------------------------

    def agree(self, predicted: str, act: Callable[[], Any]) -> Any:
        got, change = outcome(act)
        assert got == predicted, f"the model says {predicted}, the product {got}"
        return change

    @rule(number=numbers)
    def prepare(self, number: int) -> None:
        """All that people can do to open the gate of a week."""
        if self.model.roles["mia"] != "release manager":
            self.give_role(name="mia", role="release manager")
        if self.model.roles["ada"] != "approver":
            self.give_role(name="ada", role="approver")
        for key in [*WEEKS[number]["manual"], *WEEKS[number]["done"]]:
            self.tick(key=key, by="mia")
        if WEEKS[number]["approvals"]:
            self.ask(number=number, some=None, by="mia")
            last = self.find(len(self.model.requests) - 1)
            for name in ("ada", "abe"):
                self.agree(
                    self.model.give(last, name),
                    lambda name=name: approvals.give_approval(request_id=self.pk(last), actor=actor(name)),
                )

    @rule(key=manual, by=anybody)
    def tick(self, key: str, by: str) -> None:
        self.pass_time()
        self.agree(
            self.model.tick(key, by), lambda: prerequisites.tick(prerequisite_id=self.lines[key], actor=actor(by))
        )

    @rule(key=manual, by=anybody)
    def untick(self, key: str, by: str) -> None:
        self.pass_time()
        self.agree(
            self.model.untick(key, by), lambda: prerequisites.untick(prerequisite_id=self.lines[key], actor=actor(by))
        )

    @rule(number=numbers, some=st.sampled_from([None, None, None, ["USE_BETA"]]), by=managers)
    def ask(self, number: int, some: list[str] | None, by: str) -> None:
        self.pass_time()
        some = some if number == 2 else None
        self.agree(
            self.model.ask(number, some, by),
            lambda: approvals.request_approval(number=number, flags=some, actor=actor(by)),
        )

    def find(self, place: int) -> dict[str, Any]:
        return self.model.requests[place % len(self.model.requests)]

    def pk(self, request: dict[str, Any]) -> int:
        """Both keep the requests in the order in which they were made."""
        place = next(place for place, one in enumerate(self.model.requests) if one is request)
        return ApprovalRequest.objects.order_by("pk").values_list("pk", flat=True)[place]

    @precondition(lambda self: self.model.requests)
    @rule(place=which, by=approvers)
    def give(self, place: int, by: str) -> None:
        self.pass_time()
        request = self.find(place)
        self.agree(
            self.model.give(request, by),
            lambda: approvals.give_approval(request_id=self.pk(request), actor=actor(by)),
        )

    @precondition(lambda self: self.model.requests)
    @rule(place=which, by=approvers, reason=reasons)
    def decline(self, place: int, by: str, reason: str) -> None:
        self.pass_time()
        request = self.find(place)
        self.agree(
            self.model.decline(request, by, reason),
            lambda: approvals.decline_approval(request_id=self.pk(request), actor=actor(by), reason=reason),
        )

    @precondition(lambda self: self.model.requests)
    @rule(place=which, by=anybody)
    def withdraw(self, place: int, by: str) -> None:
        self.pass_time()
        request = self.find(place)
        self.agree(
            self.model.withdraw(request, by),
            lambda: approvals.withdraw_approval(request_id=self.pk(request), actor=actor(by)),
        )

    @rule(
        starts=st.integers(-60, 90),
        lasts=st.sampled_from([10, 30, 60, 240]),
        by=st.sampled_from(["mia", "root", "ada"]),
    )
    def freeze_once(self, starts: int, lasts: int, by: str) -> None:
        self.pass_time()
        begins = self.model.now + starts * MINUTE
        ends = begins + lasts * MINUTE
        predicted, row = self.model.freeze_once(begins, ends, by)
        title = f"freeze {self.model.now:%H:%M:%S}"
        change = self.agree(
            predicted, lambda: freezes.add_freeze(title=title, starts_at=begins, ends_at=ends, actor=actor(by))
        )
        if change:
            self.model.freezes[change.event.after["freeze"]] = row

    @rule(
        days=st.sampled_from(["2", "23", "567", "1234567"]),
        begins=st.sampled_from([time(9, 30), time(12, 0), time(18, 0)]),
        ends=st.sampled_from([time(2, 0), time(11, 0), time(13, 0)]),
    )
    def freeze_weekly(self, days: str, begins: time, ends: time) -> None:
        self.pass_time()
        predicted, row = self.model.freeze_weekly(days, begins, ends, "mia")
        change = self.agree(
            predicted,
            lambda: freezes.add_freeze(
                title=f"freeze {self.model.now:%H:%M:%S}",
                weekdays=days,
                from_time=begins,
                until_time=ends,
                actor=actor("mia"),
            ),
        )
        if change:
            self.model.freezes[change.event.after["freeze"]] = row

    @precondition(lambda self: self.model.freezes)
    @rule(place=which, by=freezers)
    def lift(self, place: int, by: str) -> None:
        self.pass_time()
        key = list(self.model.freezes)[place % len(self.model.freezes)]
        self.agree(self.model.lift(key, by), lambda: freezes.lift_freeze(freeze_id=key, actor=actor(by)))

    @rule(
        number=numbers,
        lines=st.sampled_from(["all", "all", "first", "last", "none of them"]),
        minutes=st.sampled_from([1, 15, 120]),
        by=administrators,
    )
    def override(self, number: int, lines: str, minutes: int, by: str) -> None:
        self.pass_time()
        closed = sorted(key for key, held in self.model.gate(number).items() if not held)
        named = {"all": closed, "first": closed[:1], "last": closed[-1:], "none of them": ["after-9"]}[lines]
        self.agree(
            self.model.override(number, set(named), minutes, by),
            lambda: overrides.override_gate(
                number=number, lines=named, minutes=minutes, actor=actor(by), reason="it burns"
            ),
        )

    @rule(number=numbers, by=administrators)
    def end_override(self, number: int, by: str) -> None:
        self.pass_time()
        self.agree(self.model.end_override(number, by), lambda: overrides.end_override(number=number, actor=actor(by)))

    @rule(name=st.sampled_from(["mia", "ada", "abe"]), role=st.sampled_from(["release manager", "approver", "viewer"]))
    def give_role(self, name: str, role: str) -> None:
        self.pass_time()
        self.agree(self.model.set_role(name, role), lambda: set_role(name=name, role=Role(role), actor=actor("root")))

    @rule(
        change=st.sampled_from(
            [
                {"title": "Another title"},
                {"title": "A plan to be played with"},
                {"alpha": 5001},
                {"alpha": 4001},
                {"alpha_route": "/api/other"},
                {"alpha_route": "/api/alpha"},
                {"beta": 5002},
                {"beta": 4002},
            ]
        )
    )
    def change_plan(self, change: dict[str, Any]) -> None:
        self.pass_time()
        document = Variant(self.side.port, **(self.model.plan | change)).document()
        self.agree(self.model.load(**change), lambda: load_plan(document, actor=actor("root")))

    # -- traffic --------------------------------------------------------------------------------------------------

    @rule(number=numbers, by=managers, reason=reasons)
    def enable(self, number: int, by: str, reason: str) -> None:
        self.pass_time()
        before = AuditEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        predicted = self.model.enable_week(number, by, reason)
        self.agree(predicted, lambda: weeks.enable_week(number=number, actor=actor(by), reason=reason))
        if predicted == "GateClosed":
            event = AuditEvent.objects.get(pk__gt=before)
            assert (event.kind, event.verdict["open"]) == ("gate.refused", False)

    @rule(key=flag_keys, weight=st.sampled_from([0, 30, 100, 100]), by=managers, reason=reasons)
    def set_weight(self, key: str, weight: int, by: str, reason: str) -> None:
        self.pass_time()
        self.agree(
            self.model.set_weight(key, weight, by, reason),
            lambda: flags.set_weight(key=key, weight=weight, actor=actor(by), reason=reason),
        )

    @rule(number=numbers, by=anybody)
    def roll_back_week(self, number: int, by: str) -> None:
        """Refused to nobody who may, whatever else is the matter."""
        self.pass_time()
        self.agree(
            self.model.roll_back(WEEKS[number]["flags"], by),
            lambda: weeks.roll_back_week(number=number, actor=actor(by)),
        )

    @rule(key=flag_keys, by=anybody)
    def roll_back_flag(self, key: str, by: str) -> None:
        self.pass_time()
        self.agree(self.model.roll_back([key], by), lambda: flags.roll_back_flag(key=key, actor=actor(by)))

    @rule(number=numbers, by=st.sampled_from(["mia", "max", "root"]))
    def finish(self, number: int, by: str) -> None:
        self.pass_time()
        self.agree(self.model.finish(number, by), lambda: weeks.finish_week(number=number, actor=actor(by)))

    @rule(up=st.sampled_from([True, True, False]))
    def reconcile(self, up: bool) -> None:
        """The gateway runs what is wanted, or is away and says so."""
        self.pass_time()
        gateway = memory_gateway()
        gateway.answers = up
        (done,) = reconcile_all()
        if up:
            seen = gateway.observe()
            assert done.error == ""
            assert (seen.generation, dict(seen.weights)) == (self.model.generation, self.model.weights)
        else:
            assert done.error != ""

    # -- after every step -----------------------------------------------------------------------------------------

    @invariant()
    def weights_are_what_open_gates_let_through(self) -> None:
        weights = dict(Flag.objects.values_list("key", "weight"))
        assert weights == self.model.weights
        assert all(weight <= self.model.passed[key] for key, weight in weights.items())

    @invariant()
    def weeks_are_where_the_model_has_them(self) -> None:
        for row in Week.objects.all():
            week = self.model.weeks[row.number]
            assert (row.status, row.started_at is not None) == (week["status"], week["started"]), row
            assert row.soak_started_at == week["soak_from"], row

    @invariant()
    def every_line_of_every_gate_is_as_the_model_says(self) -> None:
        for number, verdict in verdicts().items():
            held = {line.key: line.held for line in verdict.lines}
            assert held == self.model.gate(number)
            glass = self.model.broken_glass(number)
            assert {line.key for line in verdict.overridden} == {key for key in glass if held.get(key) is False}
            assert verdict.open == (not self.model.blocking(number))
        for number, verdict in done_verdicts().items():
            assert {line.key: line.held for line in verdict.lines} == self.model.done_gate(number)

    @invariant()
    def generations_only_grow(self) -> None:
        generation = Plan.objects.values_list("generation", flat=True).get()
        assert generation >= self.seen_generation
        assert generation == self.model.generation
        self.seen_generation = generation

    @invariant()
    def the_audit_log_is_whole_and_every_rise_has_its_open_gate(self) -> None:
        assert check_chain().intact
        weights, generation = dict.fromkeys(SERVICE, 0), 0
        for event in AuditEvent.objects.filter(generation__isnull=False).order_by("id"):
            assert event.generation > generation or generation == 0
            generation = event.generation
            if event.kind == "plan.loaded":
                continue
            if any(weight > weights[key] for key, weight in event.after.items()):
                assert event.verdict["open"] is True
            weights |= event.after
        assert weights == self.model.weights


@pytest.fixture
def side(transactional_db, settings) -> Iterator[OldSide]:
    settings.HEALTH_STALE_AFTER = settings.CHECK_STALE_AFTER = STALE.total_seconds()
    settings.CELERY_BROKER_URL = ""
    with old_side() as made:
        yield made


def test_the_product_does_what_the_model_says_whatever_is_done_in_whatever_order(side: OldSide):
    Gates.side = side
    profile = LONG if EXAMPLES else QUICK
    run_state_machine_as_test(
        Gates,
        settings=settings(
            profile,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )


def test_an_override_of_a_week_that_moved_and_moved_back_opens_nothing_again(side: OldSide):
    """It was for another week than the one of the plan between: as with a sign-off, what is void stays void."""
    begin(Variant(side.port).document())
    overrides.override_gate(number=1, lines=["ready"], minutes=60, actor=actor("root"), reason="it burns")
    assert {line.key for line in verdicts()[1].overridden} == {"ready"}
    for alpha in (5001, 4001):
        load_plan(Variant(side.port, alpha=alpha).document(), actor=actor("root"))
        assert verdicts()[1].overridden == ()
    told = [
        event.after.get("overrides_ended") for event in AuditEvent.objects.filter(kind="plan.loaded").order_by("pk")
    ]
    assert told == [None, ["week 1: ready, by root"], None]
