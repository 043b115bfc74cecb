"""Rollouts that go on by themselves: when a step has held, and back, or not on, when it fails."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from migrations_app.actions import advance
from migrations_app.actions.advance import go_on, judge, look_at_rollouts
from migrations_app.actions.freezes import add_freeze
from migrations_app.actions.rollouts import (
    abort_rollout,
    finish_rollout,
    pause_rollout,
    resume_rollout,
    start_rollout,
    under_way,
)
from migrations_app.actor import SYSTEM
from migrations_app.choices import ActorKind, AuditKind, Health, RolloutState
from migrations_app.errors import Stale
from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY, Side
from migrations_app.models import AuditEvent, Flag, Rollout, Service, TrafficSample
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import make_healthy, memory_gateway, on_gateways, tick_all, tracseq

KEY = "USE_STORAGE_SERVICE"
STEPS = [{"weight": 10, "hold": "10m", "requests": 100}, {"weight": 100, "hold": "1m"}]


@pytest.fixture
def started(plan, shell, request):
    """A rollout of two steps, applied; parametrised with more of its part of the plan."""
    part = {"steps": STEPS} | getattr(request, "param", {})
    Service.objects.filter(key="storage").update(rollout=part)
    tick_all(1, shell)
    start_rollout(key=KEY, actor=shell, reason="a quiet morning")
    reconcile_all()
    return under_way(KEY)


def advance_rollouts(now: datetime | None = None) -> list[str]:
    failed, ready = look_at_rollouts(now)
    return [*failed, *go_on(ready)]


def weight() -> int:
    return Flag.objects.get(key=KEY).weight


def serve(requests: int, *, errors: int = 0, side: Side = Side.SERVICE, milliseconds: int = 10) -> None:
    """Traffic of this moment."""
    latency = list(NO_LATENCY)
    latency[LATENCY_BOUNDS.index(milliseconds)] = requests
    service = Service.objects.get(key="storage")
    TrafficSample.objects.create(
        service=service, side=side.value, read_at=timezone.now(), requests=requests, errors=errors, latency=latency
    )


def later(time_machine, **length: float) -> datetime:
    time_machine.move_to(timezone.now() + timedelta(**length))
    make_healthy()
    return timezone.now()


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("-id").first()


def test_it_waits_for_time_and_requests_then_goes_on_and_ends(started, time_machine):
    assert advance_rollouts() == []
    serve(99)
    later(time_machine, minutes=10)
    assert advance_rollouts() == []  # one request is missing
    serve(1)
    assert advance_rollouts() == [KEY]
    assert (weight(), last_event().kind, last_event().actor_kind) == (100, AuditKind.ROLLOUT_STEPPED, ActorKind.SYSTEM)
    assert last_event().reason.startswith("Rollout started by tester: step 1 of 2 (10 %) has held for 10 min")
    assert last_event().verdict["open"] is True
    later(time_machine, minutes=2)
    assert advance_rollouts() == []  # not confirmed by the gateway yet: no time has passed
    reconcile_all()
    later(time_machine, seconds=59)
    assert advance_rollouts() == []
    later(time_machine, seconds=2)
    assert advance_rollouts() == [KEY]
    assert (under_way(KEY), last_event().kind) == (None, AuditKind.ROLLOUT_FINISHED)
    assert (Rollout.objects.get().state, weight()) == (RolloutState.FINISHED, 100)
    assert advance_rollouts() == []


def test_looking_twice_takes_one_step(started, time_machine):
    serve(100)
    now = later(time_machine, minutes=10)
    assert advance_rollouts(now) == [KEY]
    assert advance_rollouts(now) == []
    assert under_way(KEY).position == 1


def test_a_paused_one_stays(started, shell, time_machine):
    serve(100)
    pause_rollout(key=KEY, actor=shell)
    later(time_machine, hours=5)
    assert advance_rollouts() == []
    assert weight() == 10


def test_errors_roll_it_back_and_the_event_has_value_and_limit(started):
    serve(40, errors=3)
    assert advance_rollouts() == [KEY]
    assert weight() == 0
    event = last_event()
    assert (event.kind, event.actor_kind) == (AuditKind.FLAG_ROLLED_BACK, ActorKind.SYSTEM)
    assert event.reason == "At step 1 of 2 (10 %): Errors: 7.50 % of 40 requests (limit: at most 5 %)."
    assert Rollout.objects.get().state == RolloutState.ENDED
    assert advance_rollouts() == []


def test_errors_of_the_old_side_are_not_its_own(started):
    serve(40, errors=40, side=Side.MONOLITH)
    assert advance_rollouts() == []


def test_errors_before_the_step_do_not_count(started, time_machine):
    TrafficSample.objects.create(
        service=Service.objects.get(key="storage"),
        side=Side.SERVICE.value,
        read_at=started.since - timedelta(seconds=5),
        requests=1000,
        errors=1000,
        latency=[],
    )
    assert advance_rollouts() == []
    assert "too few requests to tell: 0" in [line.value for line in judge(started, timezone.now()).lines]


@pytest.mark.parametrize("started", [{"p95": 50}], indirect=True)
def test_response_times_roll_it_back(started):
    serve(100, milliseconds=50)
    assert advance_rollouts() == []
    serve(100, milliseconds=500)
    assert advance_rollouts() == [KEY]
    assert "Response time (p95)" in last_event().reason
    assert weight() == 0


@pytest.mark.parametrize("paused", [False, True])
def test_an_unhealthy_service_rolls_it_back_paused_or_not(started, shell, paused):
    if paused:
        pause_rollout(key=KEY, actor=shell)
    make_healthy(Health.UNHEALTHY, error="answered 503, expected 200")
    assert advance_rollouts() == [KEY]
    assert weight() == 0
    assert "Health: unhealthy: answered 503, expected 200" in last_event().reason


@pytest.mark.parametrize("started", [{"on_failure": "pause"}], indirect=True)
def test_it_pauses_instead_where_the_plan_says_so(started):
    serve(40, errors=3)
    assert advance_rollouts() == [KEY]
    row = under_way(KEY)
    assert (weight(), row.state) == (10, RolloutState.PAUSED)
    assert row.paused_because.startswith("At step 1 of 2 (10 %): Errors: 7.50 %")
    assert last_event().kind == AuditKind.ROLLOUT_PAUSED
    assert advance_rollouts() == []  # and says so once


def test_nobody_can_tell_how_it_is_so_it_waits(started, time_machine):
    serve(100)
    time_machine.move_to(timezone.now() + timedelta(minutes=10))
    assert advance_rollouts() == []
    assert (weight(), under_way(KEY).state) == (10, RolloutState.RUNNING)


def test_a_closed_gate_pauses_it_with_the_reason(started, people, time_machine):
    serve(100)
    now = later(time_machine, minutes=10)
    manager = people[Role.RELEASE_MANAGER]
    add_freeze(title="Sale", actor=manager, starts_at=now, ends_at=now + timedelta(hours=1))
    assert advance_rollouts() == [KEY]
    row = under_way(KEY)
    assert (weight(), row.state) == (10, RolloutState.PAUSED)
    assert "No freeze: Sale" in row.paused_because
    kinds = list(AuditEvent.objects.order_by("-id").values_list("kind", flat=True)[:2])
    assert kinds == [AuditKind.ROLLOUT_PAUSED, AuditKind.ENABLE_REFUSED]


def test_the_time_scale_shortens_the_hold(plan, shell, time_machine):
    plan.time_scale = 60
    plan.save(update_fields=["time_scale"])
    Service.objects.filter(key="storage").update(rollout={"steps": [{"weight": 10, "hold": "10m"}, {"weight": 100}]})
    tick_all(1, shell)
    start_rollout(key=KEY, actor=shell)
    reconcile_all()
    later(time_machine, seconds=9)
    assert advance_rollouts() == []
    later(time_machine, seconds=2)
    assert advance_rollouts() == [KEY]


def test_what_somebody_did_after_the_look_is_not_overtaken(started, shell, time_machine):
    """Its gate may take seconds to be judged, and the plan is not locked meanwhile."""
    serve(100)
    later(time_machine, minutes=10)
    failed, ready = look_at_rollouts()
    assert (failed, ready) == ([], [started])

    def nothing_comes_of_it() -> None:
        before = last_event()
        assert go_on(ready) == []
        with pytest.raises(Stale):
            pause_rollout(key=KEY, actor=SYSTEM, judged=started)
        with pytest.raises(Stale):
            finish_rollout(judged=started)
        assert (weight(), last_event()) == (10, before)

    pause_rollout(key=KEY, actor=shell)
    nothing_comes_of_it()
    resume_rollout(key=KEY, actor=shell)
    nothing_comes_of_it()
    abort_rollout(key=KEY, actor=shell)
    start_rollout(key=KEY, actor=shell)
    nothing_comes_of_it()


def test_one_that_cannot_be_read_does_not_stop_the_others(started, shell, time_machine, caplog):
    other = "USE_RAG_SERVICE"
    Service.objects.filter(key="rag").update(rollout={"steps": [{"weight": 10, "hold": "1m"}, {"weight": 100}]})
    start_rollout(key=other, actor=shell)
    reconcile_all()
    Rollout.objects.filter(pk=started.pk).update(steps=[{"weight": 10, "minutes": 5}])
    later(time_machine, minutes=10)
    assert advance_rollouts() == [other]
    assert f"the rollout of {KEY} cannot be read" in caplog.text


def test_of_several_gateways_all_must_run_a_step_that_goes_up_and_one_is_enough_to_fail_it(plan, shell, time_machine):
    load_plan(on_gateways(tracseq(adapter="memory", by_hand=True), "second"), actor=shell)
    reconcile_all()
    second = memory_gateway("second")
    Service.objects.filter(key="storage").update(rollout={"steps": STEPS})
    tick_all(1, shell)
    second.answers = False
    start_rollout(key=KEY, actor=shell)
    reconcile_all()
    serve(100)
    later(time_machine, minutes=10)
    assert advance_rollouts() == []  # the second one has never confirmed it
    second.answers = True
    reconcile_all()
    later(time_machine, minutes=10)
    second.answers = False
    reconcile_all()
    assert advance_rollouts() == []
    assert judge(under_way(KEY), timezone.now()).lines[0].value == "not run now by second"
    second.answers = True
    reconcile_all()
    assert advance_rollouts() == [KEY]
    second.answers = False
    reconcile_all()
    assert advance_rollouts() == []
    serve(40, errors=30)
    assert advance_rollouts() == [KEY]
    assert (weight(), last_event().kind) == (0, AuditKind.FLAG_ROLLED_BACK)


def test_a_failure_of_an_earlier_step_does_not_roll_back_what_came_after(started, shell, monkeypatch):
    """Somebody has rolled back and started anew between the look and the rollback."""
    judged = advance.judge

    def and_then_somebody_acts(rollout, now):
        verdict = judged(rollout, now)
        abort_rollout(key=KEY, actor=shell)
        start_rollout(key=KEY, actor=shell)
        return verdict

    serve(40, errors=30)
    with monkeypatch.context() as patch:
        patch.setattr(advance, "judge", and_then_somebody_acts)
        assert advance_rollouts() == []
    assert (weight(), under_way(KEY).state) == (10, RolloutState.RUNNING)
