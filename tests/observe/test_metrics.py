"""What the metrics say of each part, read straight from the database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions import triggers
from migrations_app.actions.approvals import request_approval
from migrations_app.actions.freezes import add_freeze
from migrations_app.actions.overrides import override_gate
from migrations_app.actions.triggers import watch_triggers
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.choices import Health
from migrations_app.errors import GateClosed
from migrations_app.gateways.base import Side
from migrations_app.models import (
    DowntimeClock,
    Flag,
    Gateway,
    HealthSample,
    HealthState,
    Plan,
    Service,
    TrafficCounter,
    TriggerState,
    Week,
)
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.audit_counts import AuditCounts
from migrations_app.observe.health import current_targets, store_of_plan
from migrations_app.observe.lateness import Lateness
from migrations_app.observe.metrics import read
from migrations_app.observe.polls import PollResult
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import memory_gateway, put_behind, tick_all

Told = dict[tuple[str, frozenset[tuple[str, str]]], float]


def told(**options) -> Told:
    """(Name without the prefix, labels) -> value."""
    found: Told = {}
    for family in read(AuditCounts(), **options):
        for sample in family.samples:
            key = sample.name.removeprefix("switchyard_"), frozenset(sample.labels.items())
            assert key not in found, f"{key} is told twice"
            found[key] = float(sample.value)
    return found


def value(found: Told, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def missing(found: Told, name: str) -> bool:
    return not any(key == name for key, _ in found)


@pytest.fixture(autouse=True)
def _quick(settings):
    settings.WORKER_HEAD_START = 0
    settings.CONFIRM_WITHIN = 5.0
    settings.CELERY_BROKER_URL = ""


@pytest.mark.django_db
def test_a_database_without_a_plan_tells_that_there_is_nothing_yet():
    found = told()
    assert missing(found, "plan_generation")
    assert missing(found, "gate_open")
    assert value(found, "targets", state="healthy") == 0
    assert value(found, "rollbacks_total", scope="week") == 0
    assert value(found, "audit_tail_intact") == 1
    assert value(found, "scrape_duration_seconds") > 0


def test_the_gateway_runs_what_is_wanted(plan):
    found, row = told(), Gateway.objects.get()
    assert value(found, "plan_generation") == value(found, "gateway_observed_generation", gateway="main")
    assert value(found, "plan_revision") == plan.revision
    assert value(found, "gateway_generation_lag", gateway="main") == 0
    assert value(found, "gateway_up", gateway="main") == 1
    assert value(found, "gateway_error", gateway="main") == 0
    looked = value(found, "gateway_observed_timestamp_seconds", gateway="main")
    assert looked == pytest.approx(row.observed_at.timestamp())
    applied = value(found, "gateway_last_apply_timestamp_seconds", gateway="main")
    assert applied == pytest.approx(row.last_applied_at.timestamp())
    took = value(found, "gateway_last_apply_duration_seconds", gateway="main")
    assert took == pytest.approx(row.last_apply_ms / 1000)


def test_a_change_that_the_gateway_has_not_taken_is_lag_and_a_difference_of_weights(plan):
    put_behind(1)
    labels = {"flag": "USE_RAG_SERVICE", "service": "rag"}
    before = told()
    assert value(before, "gateway_generation_lag", gateway="main") == 1
    assert value(before, "flag_desired_weight_ratio", **labels, week="1") == 1.0
    assert value(before, "flag_observed_weight_ratio", **labels, gateway="main") == 0.0
    reconcile_all()
    after = told()
    assert value(after, "gateway_generation_lag", gateway="main") == 0
    assert value(after, "flag_observed_weight_ratio", **labels, gateway="main") == 1.0


def test_a_gateway_that_does_not_answer_is_down_and_tells_no_weights(plan):
    memory_gateway().answers = False
    reconcile_all()
    found = told()
    assert value(found, "gateway_up", gateway="main") == 0
    assert value(found, "gateway_error", gateway="main") == 1
    for name in ("gateway_generation_lag", "gateway_observed_generation", "flag_observed_weight_ratio"):
        assert missing(found, name), name


def test_a_target_is_in_one_state_and_the_totals_agree(plan):
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY)
    HealthState.objects.filter(target="auth").update(polled_at=timezone.now() - timedelta(hours=1))
    HealthState.objects.filter(target="storage").update(milliseconds=None)
    found = told()
    states = {"rag": "unhealthy", "auth": "unknown", "storage": "healthy", MONOLITH_TARGET: "healthy"}
    for target, state in states.items():
        told_of = {one.value: value(found, "target_state", target=target, state=one.value) for one in Health}
        assert told_of == {one.value: float(one.value == state) for one in Health}, target
    services = Service.objects.count()
    assert value(found, "targets", state="unhealthy") == 1
    assert value(found, "targets", state="unknown") == 1
    assert value(found, "targets", state="healthy") == services + 1 - 2
    age = timezone.now().timestamp() - value(found, "target_last_poll_timestamp_seconds", target="auth")
    assert age == pytest.approx(3600, abs=60)
    assert value(found, "target_last_poll_duration_seconds", target="rag") == pytest.approx(0.0015)
    assert ("target_last_poll_duration_seconds", frozenset({("target", "storage")})) not in found


def test_what_is_no_longer_in_the_plan_is_not_told(plan):
    now = timezone.now()
    HealthState.objects.create(target="gone", state=Health.HEALTHY, since=now, polled_at=now, milliseconds=1)
    assert not [key for key in told() if ("target", "gone") in key[1]]


def test_polls_are_counted_also_when_they_are_dropped(plan):
    before = value(told(), "polls_total")
    now = timezone.now()
    HealthSample.objects.bulk_create(HealthSample(target="rag", polled_at=now, healthy=True) for _ in range(7))
    assert value(told(), "polls_total") == before + 7
    HealthSample.objects.all().delete()
    assert value(told(), "polls_total") == before + 7


def test_polls_of_a_target_and_how_late_they_began_are_counted(plan):
    monolith = next(one for one in current_targets() if one.key == MONOLITH_TARGET)
    before = value(told(), "target_polls_total", target=MONOLITH_TARGET)
    polled = [
        (monolith, PollResult(MONOLITH_TARGET, timezone.now(), healthy, 200, 1.0, "" if healthy else "it broke"))
        for healthy in (True, False, None)
    ]
    for skipped in (2, 1):
        lateness = Lateness()
        lateness.count([0.004, 0.005, 0.03, 7.0], skipped)
        store_of_plan(polled, lateness)
    found = told()
    assert value(found, "target_polls_total", target=MONOLITH_TARGET) == before + 6
    assert value(found, "target_polls_failed_total", target=MONOLITH_TARGET) == 2
    bounds = ("0.005", "0.025", "0.05", "+Inf")
    late = {bound: value(found, "poll_lateness_seconds_bucket", le=bound) for bound in bounds}
    assert late == {"0.005": 4, "0.025": 4, "0.05": 6, "+Inf": 8}
    assert value(found, "poll_lateness_seconds_sum") == pytest.approx(2 * 7.039)
    assert value(found, "polls_skipped_total") == 3


def test_the_gate_tells_its_lines_by_kind_and_opens_when_all_hold(plan, people):
    found = told()
    lines = value(found, "gate_lines", week="1", kind="manual")
    assert lines > 0
    assert value(found, "gate_lines_held", week="1", kind="manual") == 0
    assert value(found, "gate_open", week="1") == 0
    tick_all(1, people[Role.RELEASE_MANAGER])
    found = told()
    assert value(found, "gate_lines_held", week="1", kind="manual") == lines
    assert value(found, "gate_lines_held", week="1", kind="health") == value(
        found, "gate_lines", week="1", kind="health"
    )
    assert value(found, "gate_open", week="1") == 1
    assert value(found, "gate_open", week="2") == 0


def test_the_soak_runs_down_and_stands_whole_while_its_clock_stands(plan):
    now = timezone.now()
    assert missing(told(now=now), "week_soak_remaining_seconds")
    put_behind(1)
    Week.objects.filter(number=1).update(soak=timedelta(hours=48), soak_started_at=now - timedelta(hours=8))
    found = told(now=now)
    assert value(found, "week_status", week="1", status="soaking") == 1
    assert value(found, "week_status", week="1", status="planned") == 0
    assert value(found, "week_soak_remaining_seconds", week="1") == 40 * 3600
    assert value(told(now=now + timedelta(hours=90)), "week_soak_remaining_seconds", week="1") == 0
    Week.objects.filter(number=1).update(soak_started_at=None)
    assert value(told(now=now), "week_soak_remaining_seconds", week="1") == 48 * 3600


def test_overrides_freezes_and_requests_show_while_they_last(plan, people):
    manager, administrator = people[Role.RELEASE_MANAGER], people[Role.ADMINISTRATOR]
    now = timezone.now()
    assert value(told(), "gate_overridden", week="5") == 0
    override_gate(number=5, lines=["after-4"], minutes=10, actor=administrator, reason="it burns")
    add_freeze(title="now", actor=manager, starts_at=now - timedelta(hours=1), ends_at=now + timedelta(hours=1))
    add_freeze(title="later", actor=manager, starts_at=now + timedelta(days=1), ends_at=now + timedelta(days=2))
    request_approval(number=3, actor=manager)
    found = told()
    assert value(found, "gate_overridden", week="5") == 1
    assert value(found, "gate_overridden", week="4") == 0
    assert value(found, "freezes_active") == 1
    assert value(found, "approval_requests_open") == 1
    later = told(now=now + timedelta(days=30))
    assert value(later, "gate_overridden", week="5") == 0
    assert value(later, "freezes_active") == 0
    assert value(later, "approval_requests_open") == 0


def test_enables_rollbacks_and_refusals_are_counted(plan, people):
    manager = people[Role.RELEASE_MANAGER]
    with pytest.raises(GateClosed):
        enable_week(number=1, actor=manager)
    tick_all(1, manager)
    enable_week(number=1, actor=manager)
    roll_back_week(number=1, actor=manager)
    found = told()
    assert value(found, "refusals_total", by="gate") == 1
    assert value(found, "enables_total", scope="week") == 1
    assert value(found, "rollbacks_total", scope="week") == 1
    assert value(found, "rollbacks_total", scope="service") == 0
    assert value(found, "audit_events_total", kind="week.rolled_back") == 1
    assert value(found, "audit_events_total", kind="gateway.drift_corrected") == 0


def test_requests_are_the_gateways_own_counters(plan):
    rag = Service.objects.get(key="rag")
    TrafficCounter.objects.create(
        gateway=Gateway.objects.get(),
        service=rag,
        side=Side.SERVICE.value,
        requests=120,
        errors=3,
        latency=[],
        read_at=timezone.now(),
    )
    found = told()
    assert value(found, "requests_total", service="rag", side="service", gateway="main") == 120
    assert value(found, "request_errors_total", service="rag", side="service", gateway="main") == 3


def test_each_gateways_counters_are_told_apart(plan):
    """The restart of one is the reset of its own counter: a sum would hide it, or show it as everybody's."""
    rag = Service.objects.get(key="rag")
    other = Gateway.objects.create(plan=plan, key="gw-2", adapter="memory")
    for gateway, requests in ((Gateway.objects.get(key="main"), 120), (other, 7)):
        TrafficCounter.objects.create(
            gateway=gateway, service=rag, side="service", requests=requests, errors=0, read_at=timezone.now()
        )
    found = told()
    assert value(found, "requests_total", service="rag", side="service", gateway="main") == 120
    assert value(found, "requests_total", service="rag", side="service", gateway="gw-2") == 7


def test_client_errors_retries_and_failovers_are_told_once_they_were_read(plan):
    rag, auth = (Service.objects.get(key=key) for key in ("rag", "auth"))
    row = {"gateway": Gateway.objects.get(), "requests": 120, "errors": 3, "latency": [], "read_at": timezone.now()}
    more = {"client_errors": 40, "retries": 5, "failovers": 2, "failed_failovers": 1}
    TrafficCounter.objects.create(service=rag, side=Side.SERVICE.value, **row, **more)
    TrafficCounter.objects.create(service=auth, side=Side.SERVICE.value, **row)  # read by an older version
    TrafficCounter.objects.create(service=None, side=Side.MONOLITH.value, **row, **more)
    found = told()
    for service, side in (("rag", "service"), ("", "monolith")):
        labels = {"service": service, "side": side, "gateway": "main"}
        assert value(found, "requests_total", **labels) == 120
        assert value(found, "request_client_errors_total", **labels) == 40
        assert value(found, "request_retries_total", **labels) == 5
        assert value(found, "request_failovers_total", **labels) == 2
        assert value(found, "request_failed_failovers_total", **labels) == 1
    labels = {"service": "auth", "side": "service", "gateway": "main"}
    assert value(found, "requests_total", **labels) == 120
    with pytest.raises(KeyError):
        value(found, "request_client_errors_total", **labels)


def test_the_downtime_of_a_week_is_told_beside_what_it_may_have(plan):
    now = timezone.now()
    found = told(now=now)
    assert missing(found, "week_downtime_seconds")
    assert value(found, "week_downtime_limit_seconds", week="3") == 300
    assert value(found, "week_downtime_limit_seconds", week="1") == 0
    week = Week.objects.get(number=3)
    clock = {"down": timedelta(seconds=41.5), "not_known": timedelta(seconds=2)}
    DowntimeClock.objects.create(week=week, since=now, counted_until=now - timedelta(seconds=30), **clock)
    found = told(now=now)
    assert value(found, "week_downtime_seconds", week="3") == 41.5
    assert value(found, "week_downtime_unknown_seconds", week="3") == 32


def queries() -> int:
    counts = AuditCounts()
    read(counts)
    with CaptureQueriesContext(
        connection,
    ) as captured:
        read(counts)
    return len(captured)


def add_services(number: int) -> None:
    """Polled, with traffic on both sides, all in week 6."""
    plan, week, now = Plan.objects.get(), Week.objects.get(number=6), timezone.now()
    gateway = Gateway.objects.get()
    services = Service.objects.bulk_create(
        Service(plan=plan, key=f"more-{one}", title=f"More {one}", host="127.0.0.1", port=9) for one in range(number)
    )
    Flag.objects.bulk_create(
        Flag(plan=plan, key=f"USE_MORE_{one}", service=service, week=week) for one, service in enumerate(services)
    )
    HealthState.objects.bulk_create(
        HealthState(target=service.key, state=Health.HEALTHY, since=now, polled_at=now) for service in services
    )
    TrafficCounter.objects.bulk_create(
        TrafficCounter(gateway=gateway, service=service, side=side.value, requests=1, errors=0, latency=[], read_at=now)
        for service in services
        for side in Side
    )


def test_as_many_queries_for_500_services_as_for_10(plan, people):
    """With all there is: an override, a freeze and a request for approval are only asked about where there are some."""
    override_gate(number=5, lines=["after-4"], minutes=10, actor=people[Role.ADMINISTRATOR], reason="it burns")
    now = timezone.now()
    add_freeze(title="now", actor=people[Role.RELEASE_MANAGER], starts_at=now, ends_at=now + timedelta(hours=1))
    request_approval(number=3, actor=people[Role.RELEASE_MANAGER])
    few = queries()
    add_services(490)
    assert Service.objects.count() == 500
    assert queries() == few
    assert few < 20


def test_triggers_that_are_watched_tell_whether_they_are_past_their_limit(plan):
    assert missing(told(), "trigger_breached")
    Week.objects.filter(number=1).update(triggers=[{"key": "slow", "when": "latency", "above": 100}])
    put_behind(1)
    reconcile_all()
    down = {"target": "rag", "healthy": False, "error": "answered 503"}
    HealthSample.objects.bulk_create(HealthSample(polled_at=timezone.now(), **down) for _ in range(2))
    watch_triggers()
    found = told()
    rag = {"subject": "USE_RAG_SERVICE", "trigger": "down"}
    assert (value(found, "trigger_breached", **rag), value(found, "trigger_unknown", **rag)) == (0, 0)
    assert value(found, "trigger_unknown", subject="week 1", trigger="slow") == 1
    HealthSample.objects.create(polled_at=timezone.now(), **down)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triggers, "_fire", lambda look: False)
        watch_triggers()
    found = told()
    assert value(found, "trigger_breached", **rag) == 1
    judged = TriggerState.objects.get(flag__key="USE_RAG_SERVICE", key="down").judged_at
    assert value(found, "trigger_judged_timestamp_seconds", **rag) == judged.timestamp()
    # Nobody looks any more: what was found then says nothing of now.
    found = told(now=timezone.now() + timedelta(seconds=40))
    assert (value(found, "trigger_breached", **rag), value(found, "trigger_unknown", **rag)) == (0, 1)
    # Moved, and not looked at since.
    TriggerState.objects.update(generation=F("generation") - 1)
    found, moved = told(), Flag.objects.get(key="USE_RAG_SERVICE").changed_at
    assert value(found, "trigger_unknown", **rag) == 1
    assert value(found, "trigger_judged_timestamp_seconds", **rag) == moved.timestamp()
    # What was rolled back is watched no more.
    assert watch_triggers() == ["USE_RAG_SERVICE/down"]
    assert ("trigger_breached", frozenset(rag.items())) not in told()
