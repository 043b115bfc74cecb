"""The soak clock: when it starts, what stops it, and what starts it anew."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.soaks import watch_soaks
from migrations_app.actions.weeks import enable_week, finish_week, roll_back_week
from migrations_app.choices import AuditKind, Health, Phase, WeekStatus
from migrations_app.errors import GateClosed
from migrations_app.gates.load import done_verdicts, verdicts
from migrations_app.models import AuditEvent, HealthChange, HealthState, Plan, Week
from migrations_app.observe.health import store
from migrations_app.observe.polls import PollResult, Target
from tests.factories import load_tracseq, make_healthy, put_behind, tick_all
from tests.faults.system import in_threads

RAG = "USE_RAG_SERVICE"
SECOND = timedelta(seconds=1)


def poll(at: datetime, *, ill: str = "") -> None:
    """A round of the health poller, in which one service of week 1 answers with an error."""
    store(
        [
            PollResult(key, at, healthy=key != ill, milliseconds=1.0, error="answered 500" if key == ill else "")
            for key in ("monolith", "notification", "storage", "rag")
        ]
    )


def fell_ill(target: str, at: datetime) -> None:
    HealthChange.objects.create(target=target, at=at, was="healthy", state="unhealthy", reason="no connection")


def week() -> Week:
    return Week.objects.get(number=1)


def restarts() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(kind=AuditKind.WEEK_SOAK_RESTARTED).order_by("id"))


@pytest.fixture
def started(plan, shell, time_machine) -> datetime:
    """Week 1 is all on since this moment, and the clock of the host stands there."""
    now = timezone.now()
    time_machine.move_to(now, tick=False)
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    assert week().soak_started_at == now
    return now


def test_a_week_that_stays_healthy_soaks_without_a_word(started, time_machine):
    version, events = week().version, AuditEvent.objects.count()
    for seconds in range(2, 60, 2):
        time_machine.move_to(started + seconds * SECOND, tick=False)
        poll(timezone.now())
        assert watch_soaks() == []
    assert (week().soak_started_at, week().version, AuditEvent.objects.count()) == (started, version, events)


def test_an_unhealthy_service_stops_the_clock_and_its_recovery_starts_it_anew(started, time_machine):
    version = week().version
    poll(started + 10 * SECOND, ill="rag")
    assert watch_soaks(started + 10 * SECOND) == [1]
    assert (week().soak_started_at, week().soak_stopped_because) == (None, "RAG service was unhealthy")
    assert week().version == version + 1
    line = done_verdicts(weeks=[1])[1].lines[0]
    assert line.value == "soaking, the clock stands: RAG service was unhealthy"
    # It lasts: no second event, and the clock stands.
    for seconds in (12, 14, 16):
        poll(started + seconds * SECOND, ill="rag")
        assert watch_soaks(started + seconds * SECOND) == []
    poll(started + 18 * SECOND)
    assert watch_soaks(started + 18 * SECOND) == [1]
    assert (week().soak_started_at, week().soak_stopped_because) == (started + 18 * SECOND, "")
    assert watch_soaks(started + 20 * SECOND) == []
    (event,) = restarts()
    assert (event.actor, event.subject, event.reason) == ("switchyard", "week 1", "RAG service was unhealthy")
    assert event.before == {"soak_started_at": started.isoformat()}
    assert event.after == {"soak_started_at": None}
    assert week().status == WeekStatus.SOAKING


def test_a_spell_that_was_over_before_anybody_looked_counts_too(started):
    poll(started + 10 * SECOND, ill="storage")
    poll(started + 12 * SECOND)
    assert watch_soaks(started + 13 * SECOND) == [1]
    assert (week().soak_started_at, week().soak_stopped_because) == (started + 13 * SECOND, "")
    (event,) = restarts()
    assert event.reason == "Storage service was unhealthy"
    assert event.after == {"soak_started_at": (started + 13 * SECOND).isoformat()}
    assert watch_soaks(started + 15 * SECOND) == [], "the same spell counts once"


def test_a_spell_before_the_week_was_on_does_not_count(plan, shell, time_machine):
    now = timezone.now()
    time_machine.move_to(now, tick=False)
    poll(now - 10 * SECOND, ill="rag")
    poll(now - 8 * SECOND)
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    for seconds in (0, 0.5, 1, 2):
        assert watch_soaks(now + seconds * SECOND) == []
    assert week().soak_started_at == now


def test_the_illness_of_another_weeks_service_or_of_the_monolith_does_not_count(started):
    HealthState.objects.filter(target__in=["auth", "monolith"]).update(state=Health.UNHEALTHY)
    fell_ill("auth", started + 5 * SECOND)
    assert watch_soaks(started + 6 * SECOND) == []


def test_the_clock_does_not_start_while_nobody_knows_how_the_services_are(started):
    poll(started + 10 * SECOND, ill="rag")
    watch_soaks(started + 10 * SECOND)
    HealthState.objects.filter(target="rag").update(state=Health.UNKNOWN)
    assert watch_soaks(started + 12 * SECOND) == []
    HealthState.objects.filter(target="rag").delete()
    assert watch_soaks(started + 14 * SECOND) == []
    assert week().soak_started_at is None


def test_a_rollback_ends_the_soak_and_enabling_again_begins_it_anew(started, shell, time_machine):
    time_machine.move_to(started + timedelta(hours=40), tick=False)
    make_healthy()
    roll_back_week(number=1, actor=shell)
    assert (week().status, week().soak_started_at) == (WeekStatus.ROLLED_BACK, None)
    assert watch_soaks() == []
    time_machine.move_to(started + timedelta(hours=41), tick=False)
    make_healthy()
    enable_week(number=1, actor=shell)
    assert (week().status, week().soak_started_at) == (WeekStatus.SOAKING, timezone.now())
    (order,) = [line for line in verdicts(weeks=[2])[2].lines if line.key == "after-1"]
    assert (order.held, order.value) == (False, "soaking, 0 s of 48 h")


def test_a_rollback_in_the_middle_of_a_spell_leaves_no_clock_that_stands(started, shell):
    poll(started + 10 * SECOND, ill="rag")
    watch_soaks(started + 10 * SECOND)
    roll_back_week(number=1, actor=shell)
    assert (week().status, week().soak_stopped_because) == (WeekStatus.ROLLED_BACK, "")
    poll(started + 12 * SECOND)
    assert watch_soaks(started + 12 * SECOND) == []


def test_the_last_flag_that_goes_fully_on_starts_the_clock(plan, shell, time_machine):
    now = timezone.now()
    tick_all(1, shell)
    moves = [
        ("USE_NOTIFICATION_SERVICE", 100),
        ("USE_STORAGE_SERVICE", 100),
        (RAG, 50),
        (RAG, 100),
        (RAG, 99),
        (RAG, 100),
    ]
    clocks = []
    for seconds, (key, weight) in enumerate(moves):
        time_machine.move_to(now + seconds * SECOND, tick=False)
        set_weight(key=key, weight=weight, actor=shell)
        row = week()
        clocks.append((row.soak_started_at - now) // SECOND if row.soak_started_at else row.status)
    assert clocks == [WeekStatus.IN_PROGRESS] * 3 + [3, WeekStatus.IN_PROGRESS, 5]
    roll_back_flag(key=RAG, actor=shell)
    assert (week().status, week().soak_started_at) == (WeekStatus.IN_PROGRESS, None)


def test_a_week_that_is_done_has_no_clock_any_more(plan, shell):
    put_behind(1)
    tick_all(1, shell, phase=Phase.DONE)
    finish_week(number=1, actor=shell)
    before = week().soak_started_at
    poll(timezone.now(), ill="rag")
    assert watch_soaks() == []
    assert (week().status, week().soak_started_at) == (WeekStatus.DONE, before)


def test_a_week_without_services_soaks_whatever_happens(plan):
    put_behind(6)
    make_healthy(Health.UNHEALTHY, error="down")
    assert watch_soaks() == []
    assert Week.objects.get(number=6).soak_started_at is not None


def test_a_spell_on_the_last_second_keeps_the_week_from_being_done(plan, shell):
    put_behind(1)
    tick_all(1, shell, phase=Phase.DONE)
    now = timezone.now()
    poll(now, ill="rag")
    poll(now + SECOND / 1000)
    watch_soaks()
    with pytest.raises(GateClosed) as refusal:
        finish_week(number=1, actor=shell)
    assert [line.key for line in refusal.value.verdict.blocking] == ["soak"]


def test_the_clock_of_the_host_an_hour_forth_loses_no_spell(started, time_machine):
    later = started + timedelta(hours=1)
    time_machine.move_to(later, tick=False)
    poll(later, ill="rag")
    assert watch_soaks() == [1]
    poll(later + 2 * SECOND)
    assert watch_soaks(later + 2 * SECOND) == [1]
    assert week().soak_started_at == later + 2 * SECOND


@pytest.mark.parametrize("over", [True, False])
def test_the_clock_of_the_host_an_hour_back_loses_no_spell(started, time_machine, over):
    earlier = started - timedelta(hours=1)
    time_machine.move_to(earlier, tick=False)
    poll(earlier)
    assert watch_soaks() == [], "to be put back is no spell"
    poll(earlier + 2 * SECOND, ill="rag")
    if over:
        poll(earlier + 4 * SECOND)
    assert watch_soaks(earlier + 5 * SECOND) == [1]
    assert week().soak_started_at == (earlier + 5 * SECOND if over else None)
    if over:
        assert watch_soaks(earlier + 7 * SECOND) == []
    assert len(restarts()) == 1


def test_a_demo_soaks_in_its_own_time(plan, shell, time_machine):
    Plan.objects.update(time_scale=3600)
    now = timezone.now()
    time_machine.move_to(now, tick=False)
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    tick_all(1, shell, phase=Phase.DONE)
    time_machine.move_to(now + 47 * SECOND, tick=False)
    make_healthy()
    with pytest.raises(GateClosed):
        finish_week(number=1, actor=shell)
    time_machine.move_to(now + 48 * SECOND, tick=False)
    assert finish_week(number=1, actor=shell).changed


def test_a_spell_counts_however_long_nobody_looked_and_a_look_asks_as_many_questions(started):
    for hours in (5, 10, 15):
        poll(started + timedelta(hours=hours))
    poll(started + timedelta(hours=20), ill="rag")
    poll(started + timedelta(hours=20, seconds=2))
    with CaptureQueriesContext(connection) as asked:
        assert watch_soaks(started + timedelta(hours=40)) == [1]
    assert len(asked) <= 12
    assert week().soak_started_at == started + timedelta(hours=40)
    with CaptureQueriesContext(connection) as asked:
        assert watch_soaks(started + timedelta(hours=41)) == []
    assert len(asked) <= 8


def test_bad_polls_that_are_too_few_to_change_the_state_are_no_spell(started):
    patient = {"rag": Target("rag", "http://127.0.0.1/health", fail_after=3)}
    ill = {"healthy": False, "error": "answered 500"}
    for seconds in (10, 12):
        store([PollResult("rag", started + seconds * SECOND, **ill)], patient)
        assert watch_soaks(started + seconds * SECOND) == []
    store([PollResult("rag", started + 14 * SECOND, **ill)], patient)
    assert watch_soaks(started + 14 * SECOND) == [1]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("over", [True, False])
def test_two_watchers_at_once_make_one_event(shell, over):
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    since = timezone.now() - timedelta(minutes=1)
    for round_number in range(10):
        Week.objects.filter(number=1).update(soak_started_at=since, soak_stopped_because="")
        HealthChange.objects.all().delete()
        poll(timezone.now() - 10 * SECOND, ill="rag")
        if over:
            poll(timezone.now() - 5 * SECOND)
        assert in_threads(watch_soaks, watch_soaks, watch_soaks) == []
        assert len(restarts()) == round_number + 1
        assert (week().soak_started_at is not None) is over


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("clock", ["stands", "is to be stopped"])
def test_a_watcher_beside_a_rollback_neither_starts_a_clock_of_a_week_that_is_off_nor_gets_in_its_way(shell, clock):
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    tick_all(1, shell)
    for _ in range(15):
        enable_week(number=1, actor=shell)
        if clock == "stands":
            Week.objects.filter(number=1).update(soak_started_at=None, soak_stopped_because="it was ill")
        else:
            Week.objects.filter(number=1).update(soak_started_at=timezone.now() - timedelta(minutes=1))
            fell_ill("rag", timezone.now() - 10 * SECOND)
        assert in_threads(watch_soaks, lambda: roll_back_week(number=1, actor=shell), watch_soaks) == []
        assert (week().status, week().soak_started_at) == (WeekStatus.ROLLED_BACK, None)
