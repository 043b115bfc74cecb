"""The tasks: what each round does, and what keeps the database small."""

from datetime import timedelta

import psycopg
import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone

from migrations_app import tasks
from migrations_app.actions.flags import set_weight
from migrations_app.actions.rollouts import start_rollout
from migrations_app.choices import CheckState, Health
from migrations_app.gates.checks import PROBES
from migrations_app.gates.seen import Finding
from migrations_app.gateways.errors import Unreachable
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import (
    CheckResult,
    Gateway,
    HealthDay,
    HealthMinute,
    HealthSample,
    HealthSummary,
    Prerequisite,
    Service,
    Week,
)
from migrations_app.observe import parts
from migrations_app.reconcile import loop
from tests.factories import load_tracseq, make_healthy, memory_gateway, put_behind, tick_all


def test_old_samples_and_expired_sessions_go_and_young_ones_stay(db, settings, monkeypatch):
    monkeypatch.setattr(parts, "AT_ONCE", 2)
    now = timezone.now()
    ages = [timedelta(days=settings.HEALTH_RAW_DAYS + days) for days in (1, 2, 3, 4, 5)]
    for age in [*ages, timedelta(hours=1)]:
        HealthSample.objects.create(target="auth", polled_at=now - age, healthy=True)
    ends = [now - timedelta(hours=hours) for hours in (1, 2, 3, 4, 5)]
    for number, end in enumerate([*ends, now + timedelta(hours=1)]):
        Session.objects.create(session_key=f"key-{number}", session_data="", expire_date=end)
    tasks.keep_history()
    tasks.forget_old_samples()
    assert [row.polled_at for row in HealthSample.objects.all()] == [now - timedelta(hours=1)]
    assert sum(HealthDay.objects.values_list("polls", flat=True)) >= 5
    assert [row.session_key for row in Session.objects.all()] == ["key-5"]


@pytest.mark.django_db(transaction=True)
def test_history_is_kept_while_no_partition_can_be_made(caplog):
    now = timezone.now() + timedelta(days=50)  # whose partition is not there
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        HealthSample.objects.create(target="auth", polled_at=now, healthy=True)
        other.execute("SELECT count(*) FROM migrations_app_healthsample_default")
        with time_machine.travel(now + timedelta(minutes=2), tick=True):
            tasks.keep_history()
        other.rollback()
    assert "no partitions were made: canceling statement due to lock timeout" in caplog.text
    assert HealthMinute.objects.get().polls == 1


def test_history_is_kept_by_the_task(db):
    now = timezone.now()
    HealthSample.objects.create(target="auth", polled_at=now - timedelta(minutes=2), healthy=True, milliseconds=5)
    tasks.keep_history()
    assert HealthMinute.objects.get().polls == 1
    assert HealthSummary.objects.get().uptime_24h == 10_000


def test_a_gateway_that_cannot_be_cleared_up_is_told_and_does_not_stop_the_others(plan, monkeypatch, caplog):
    Gateway.objects.create(plan=plan, key="second", adapter="memory")
    asked = []

    def housekeep(gateway):
        asked.append(gateway)
        raise Unreachable("the gateway does not answer")

    monkeypatch.setattr(MemoryGateway, "housekeep", housekeep)
    tasks.housekeep()
    assert len(asked) == 2
    assert "gateway second is not cleared up: the gateway does not answer" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_round_of_checks_is_skipped_while_the_last_one_is_out_and_never_otherwise(monkeypatch):
    load_tracseq(adapter="memory", by_hand=True)
    asked = []
    monkeypatch.setitem(PROBES, "probe", lambda *_: (asked.append(1), Finding(CheckState.HELD, "yes", "yes"))[1])
    week = Week.objects.get(number=1)
    Prerequisite.objects.create(week=week, key="probe", title="Probe", kind="automatic", check_name="probe")
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [tasks.CHECK_LOCK])
        tasks.run_checks()
        assert asked == []
        # Its end alone would release the lock too, but some time later.
        other.execute("SELECT pg_advisory_unlock(%s)", [tasks.CHECK_LOCK])
    tasks.run_checks()
    tasks.run_checks()
    assert len(asked) == 2
    assert CheckResult.objects.get(prerequisite__key="probe").state == CheckState.HELD


def test_polls_that_were_written_have_the_soaks_watched(plan, monkeypatch):
    put_behind(1)

    def run(_stopping, *, seconds, after_write):
        assert seconds == tasks.POLL_FOR
        make_healthy(Health.UNHEALTHY, error="refused")
        after_write()

    monkeypatch.setattr("migrations_app.observe.poller.run", run)
    tasks.poll_health()
    assert Week.objects.get(number=1).soak_started_at is None


@pytest.mark.django_db(transaction=True)
def test_while_the_gate_of_a_step_waits_for_its_checks_others_may_read_the_traffic(monkeypatch, shell):
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    Service.objects.filter(key="storage").update(rollout={"steps": [{"weight": 10, "hold": "0s"}, {"weight": 100}]})
    tick_all(1, shell)
    start_rollout(key="USE_STORAGE_SERVICE", actor=shell)
    loop.reconcile_all()
    free = []

    def probe(*_):
        with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
            free.extend(other.execute("SELECT pg_try_advisory_lock(%s)", [tasks.TRAFFIC_LOCK]).fetchone())
        return Finding(CheckState.HELD, "yes", "yes")

    monkeypatch.setitem(PROBES, "probe", probe)
    week = Week.objects.get(number=1)
    Prerequisite.objects.create(week=week, key="probe", title="Probe", kind="automatic", check_name="probe")
    tasks.read_traffic()
    assert free == [True]
    assert memory_gateway().observe().weights["USE_STORAGE_SERVICE"] == 100


def test_what_a_trigger_has_rolled_back_is_at_the_gateway_at_once(plan, shell):
    """No hint is sent by a worker: without its own pass the rollback would wait for beat."""
    Service.objects.filter(key="storage").update(triggers=[{"key": "errors", "when": "errors", "window": "30s"}])
    tick_all(1, shell)
    set_weight(key="USE_STORAGE_SERVICE", weight=100, actor=shell)
    loop.reconcile_all()
    gateway = memory_gateway()
    tasks.read_traffic()
    writes = gateway.writes
    tasks.read_traffic()
    assert gateway.writes == writes
    for failed in (True, True, False):
        for _ in range(20):
            gateway.serve("/api/storage", method="POST", failed=failed)
    tasks.read_traffic()
    assert gateway.observe().weights["USE_STORAGE_SERVICE"] == 0
    assert gateway.observe().generation == Gateway.objects.get().observed_generation
