"""What the plan wants polled, what is kept of each poll, and the states and changes that follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from django.db import connection, transaction
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.choices import Health
from migrations_app.gates.rows import current_health
from migrations_app.models import HealthChange, HealthSample, HealthState, Plan, Service
from migrations_app.observe.health import advance, current_targets, cut_off, store, store_of_plan
from migrations_app.observe.polls import PollResult, Target
from migrations_app.planfile.load import load_plan
from tests.factories import tracseq

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def result(
    healthy: bool | None, seconds: float = 0, *, target: str = "auth", error: str = "no connection"
) -> PollResult:
    at = NOON + timedelta(seconds=seconds)
    return PollResult(target, at, healthy, 200 if healthy else None, 1.0, "" if healthy else error, 0.5, 0.8)


def after(word: str, *, fail_after: int, recover_after: int) -> list[str]:
    """The state after each poll: + is a good one, - a bad one, ? one that nobody can tell."""
    state, states = None, []
    for seconds, sign in enumerate(word):
        told = {"+": True, "-": False, "?": None}[sign]
        state = advance(state, result(told, seconds), fail_after=fail_after, recover_after=recover_after)
        states.append(state.state.value)
    return states


@pytest.mark.parametrize(
    ("word", "fail_after", "recover_after", "states"),
    [
        ("+-+", 1, 1, "healthy unhealthy healthy"),
        ("-+", 1, 1, "unhealthy healthy"),
        ("+--", 2, 1, "healthy healthy unhealthy"),
        ("+-+-+", 2, 1, "healthy healthy healthy healthy healthy"),
        ("+-+--", 2, 1, "healthy healthy healthy healthy unhealthy"),
        ("-+-++", 1, 2, "unhealthy unhealthy unhealthy unhealthy healthy"),
        ("+---+", 3, 1, "healthy healthy healthy unhealthy healthy"),
        # From unknown the same numbers count, each in a row.
        ("-+-+", 2, 2, "unknown unknown unknown unknown"),
        ("--++", 2, 2, "unknown unhealthy unhealthy healthy"),
        ("-++", 2, 2, "unknown unknown healthy"),
        # Nobody can tell: at once, and counted anew afterwards.
        ("+?+", 1, 1, "healthy unknown healthy"),
        ("+??-", 1, 1, "healthy unknown unknown unhealthy"),
        ("+-?--", 2, 1, "healthy healthy unknown unknown unhealthy"),
    ],
)
def test_a_state_changes_after_so_many_polls_in_a_row(word, fail_after, recover_after, states):
    assert after(word, fail_after=fail_after, recover_after=recover_after) == states.split()


def test_a_state_keeps_its_beginning_and_always_has_the_last_polls_error():
    first = advance(None, result(True, 0), fail_after=3)
    second = advance(first, result(False, 1, error="answered 503, expected 200"), fail_after=3)
    assert (second.state, second.since, second.against) == (Health.HEALTHY, NOON, 1)
    assert (second.error, second.polled_at) == ("answered 503, expected 200", NOON + timedelta(seconds=1))


def test_every_result_is_stored_as_it_is(db):
    bad = PollResult("auth", NOON, False, 503, 12.5, "answered 503, expected 200", 0.0, 11.5)
    store([bad, cut_off(result(False, 1))])
    first, second = HealthSample.objects.order_by("polled_at")
    assert (first.target, first.polled_at, first.healthy, first.status_code) == ("auth", NOON, False, 503)
    assert (first.connect_ms, first.first_byte_ms, first.milliseconds) == (0.0, 11.5, 12.5)
    assert first.error == "answered 503, expected 200"
    assert (second.healthy, second.status_code) == (None, None)
    assert second.error == "nothing answers, not even the gateway: no connection"


def test_an_error_is_cut_to_what_the_column_holds(db):
    store([result(False, error="ü" * 400)])
    assert HealthSample.objects.get().error == HealthState.objects.get().error == "ü" * 300


def test_the_state_keeps_its_beginning_and_each_change_is_kept(db):
    for seconds, healthy in enumerate((True, True, False, False)):
        store([result(healthy, seconds)])
    assert HealthSample.objects.count() == 4
    row = HealthState.objects.get(target="auth")
    assert (row.state, row.error) == (Health.UNHEALTHY, "no connection")
    assert row.since == NOON + timedelta(seconds=2)
    assert row.polled_at == NOON + timedelta(seconds=3)
    changes = [(change.was, change.state, change.reason) for change in HealthChange.objects.order_by("at")]
    assert changes == [("unknown", "healthy", ""), ("healthy", "unhealthy", "no connection")]
    assert HealthChange.objects.latest("at").at == row.since


def test_the_numbers_of_the_target_count_over_batches_and_within_one(db):
    patient = {"auth": Target("auth", "http://127.0.0.1:1/", fail_after=3, recover_after=2)}
    store([result(True, 0), result(True, 1)], patient)
    for seconds in (2, 3):
        store([result(False, seconds)], patient)
        assert HealthState.objects.get().state == Health.HEALTHY
    store([result(False, 4)], patient)
    assert HealthState.objects.get().state == Health.UNHEALTHY
    assert store([result(True, 5), result(True, 6)], patient) == 1
    row = HealthState.objects.get()
    assert (row.state, row.since, row.against) == (Health.HEALTHY, NOON + timedelta(seconds=6), 0)
    assert HealthChange.objects.count() == 3


def test_a_change_and_its_samples_are_stored_together_or_not_at_all(db, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(HealthChange.objects, "bulk_create", refuse)
    with pytest.raises(RuntimeError), transaction.atomic():
        store([result(False)])
    assert (HealthSample.objects.count(), HealthState.objects.count()) == (0, 0)


def test_a_state_grows_old_and_unknown(plan, settings):
    now = timezone.now()
    assert current_health(now)["auth"][0] == Health.HEALTHY
    state, why = current_health(now + timedelta(seconds=settings.HEALTH_STALE_AFTER + 5))["auth"]
    assert state == Health.UNKNOWN
    assert why.startswith("the last poll was 3")


def test_a_state_is_trusted_for_two_intervals_where_they_are_long(plan, settings):
    Service.objects.filter(key="auth").update(health={"interval": "60s", "timeout": "5s"})
    now = timezone.now()
    since_noon = (now - NOON).total_seconds()
    store_of_plan([(target, result(True, since_noon, target=target.key)) for target in current_targets()])
    later = now + timedelta(seconds=settings.HEALTH_STALE_AFTER + 5)
    assert current_health(later)["auth"][0] == Health.HEALTHY
    assert current_health(later)["rag"][0] == Health.UNKNOWN
    assert current_health(now + timedelta(seconds=126))["auth"] == (Health.UNKNOWN, "the last poll was 126 s ago")


def test_a_state_that_nobody_can_tell_closes_gates_and_is_not_called_down(plan):
    store([cut_off(result(False, target="auth"))])
    HealthState.objects.update(polled_at=timezone.now())
    assert current_health()["auth"] == (Health.UNKNOWN, "nothing answers, not even the gateway: no connection")


def test_the_targets_are_the_monolith_and_every_service(plan, settings):
    found = {target.key: target for target in current_targets()}
    assert len(found) == 11
    assert found["monolith"].url == "http://127.0.0.1:3000/health"
    assert found["auth"].url == "http://127.0.0.1:3010/health"
    assert {(it.interval, it.timeout) for it in found.values()} == {(settings.HEALTH_INTERVAL, settings.HEALTH_TIMEOUT)}
    assert {(it.status, it.values, it.fail_after, it.recover_after) for it in found.values()} == {((200,), (), 1, 1)}


def test_a_target_is_polled_as_the_plan_says(plan):
    how = {
        "interval": "1s",
        "timeout": "0.5s",
        "status": [200, "3xx"],
        "json": [{"path": "status", "equals": "ok"}],
        "fail_after": 3,
        "recover_after": 2,
    }
    Service.objects.filter(key="auth").update(health=how)
    Plan.objects.update(monolith_health={"fail_after": 5})
    found = {target.key: target for target in current_targets()}
    wanted = (1.0, 0.5, (200, "3xx"), (("status", '"ok"'),), 3, 2)
    auth = found["auth"]
    assert (auth.interval, auth.timeout, auth.status, auth.values, auth.fail_after, auth.recover_after) == wanted
    assert found["monolith"].fail_after == 5


def test_without_a_plan_there_is_nothing_to_poll(db):
    assert current_targets() == []
    assert store_of_plan([]) == []


def test_what_was_seen_at_an_address_that_the_plan_left_meanwhile_is_not_stored(plan):
    polled = [(target, result(False, target=target.key)) for target in current_targets()]
    Service.objects.filter(key="rag").update(port=1)
    Service.objects.filter(key="auth").update(health={"fail_after": 2})
    now = store_of_plan(polled)
    assert {target.key for target in now} == {target.key for target, _ in polled}
    stored = set(HealthSample.objects.values_list("target", flat=True))
    assert stored == {target.key for target in now} - {"rag", "auth"}


@pytest.mark.django_db(transaction=True)
def test_a_poll_that_is_stored_while_the_plan_leaves_its_address_does_not_bring_its_state_back():
    """The load has forgotten the state and is not over yet: the poll waits, and is then held against the new plan."""
    document = tracseq(adapter="memory")
    load_plan(document, actor=SYSTEM, reason="for a test")
    polled = [(target, result(True, target=target.key)) for target in current_targets()]
    store_of_plan(polled)
    services = tuple(
        service.model_copy(update={"health_path": "/ready"}) if service.key == "auth" else service
        for service in document.services
    )

    def write() -> None:
        try:
            store_of_plan(polled)
        finally:
            connection.close()

    with transaction.atomic():
        load_plan(document.model_copy(update={"services": services}), actor=SYSTEM, reason="for a test")
        writer = Thread(target=write)
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
    writer.join()
    assert not HealthState.objects.filter(target="auth").exists()
    assert HealthState.objects.filter(target="rag").exists()
    last = HealthChange.objects.filter(target="auth").latest("id")
    assert (last.was, last.state) == ("healthy", "unknown")
    assert last.reason == "the plan has changed where or how it is polled"


def test_writing_takes_a_fixed_number_of_queries(db, django_assert_max_num_queries):
    for count in (5, 50, 50):
        results = [result(True, target=f"s{n}") for n in range(count)]
        with django_assert_max_num_queries(9):  # one of them tells the pages that are open
            store(results)
    assert HealthSample.objects.count() == 105
