"""The page of one service and that of the gateway."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.approvals import request_approval
from migrations_app.choices import AuditKind, Health
from migrations_app.gates.load import verdicts
from migrations_app.models import AuditEvent, Gateway, HealthChange, HealthDay, HealthSample, HealthState, Service
from migrations_app.observe.rollups import HEALTH, roll_up
from migrations_app.observe.traffic import read_once
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from migrations_app.web.board import load_board
from migrations_app.web.enabling import Enabling
from tests.factories import approve, memory_gateway, put_behind, tick_all
from tests.web.conftest import HTMX, text_of
from tests.web.test_timeline import grow


def test_a_service_shows_routes_flag_owner_and_both_sides(manager):
    said = text_of(manager.get("/services/auth/"))
    for words in ("Auth service", "Identity team", "/api/auth", "USE_AUTH_SERVICE", "127.0.0.1:3010", "127.0.0.1:3000"):
        assert words in said


def test_a_service_that_was_never_polled_says_what_to_think_of_it(manager):
    assert "No poll yet." in text_of(manager.get("/services/auth/"))


def test_the_last_polls_are_listed_with_their_errors(manager):
    for index in range(20):
        HealthSample.objects.create(
            target="auth",
            polled_at=timezone.now(),
            healthy=False,
            status_code=500,
            milliseconds=index,
            error=f"fault {index}!",
        )
    said = text_of(manager.get("/services/auth/"))
    assert "fault 19!" in said
    assert "fault 12!" in said
    assert "fault 11!" not in said


def test_a_poll_of_which_nobody_can_tell_is_not_listed_as_unhealthy(manager):
    HealthSample.objects.create(target="auth", polled_at=timezone.now(), healthy=None, error="nothing answers")
    polls = text_of(manager.get("/services/auth/")).split("Last polls")[1].split("Routes")[0]
    assert "Unknown none nothing answers" in polls
    assert "Unhealthy" not in polls


def test_a_service_that_the_monolith_never_had_says_so(manager):
    assert "never had this" in text_of(manager.get("/services/reports/"))


def test_an_unknown_service_is_404(manager):
    assert manager.get("/services/nothing/").status_code == 404
    assert manager.get("/services/nothing/live/").status_code == 404


def test_what_is_asked_stands_beside_what_runs(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    manager.post("/flags/USE_RAG_SERVICE/enable/")
    assert "Applied asked 100 %, runs 100 %" in text_of(manager.get("/weeks/1/"))
    memory_gateway().answers = False
    manager.post("/flags/USE_RAG_SERVICE/rollback/")
    said = text_of(manager.get("/weeks/1/"))
    assert "Not applied asked 0 %, runs ?" in said
    assert "the gateway does not answer" in said


def test_a_refused_table_is_never_shown_as_applied(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    memory_gateway().refuses = "cluster unknown"
    assert manager.post("/flags/USE_RAG_SERVICE/enable/", headers=HTMX).status_code == 202
    said = text_of(manager.get("/services/rag/"))
    assert "100 % on the new side" in said
    assert "0 % not applied" in said
    assert "cluster unknown" in said


def test_the_gateway_page_has_generations_weights_and_the_command_by_hand(manager):
    said = text_of(manager.get("/gateway/"))
    assert re.search(r"Asked generation 1 Runs generation 1", said)
    assert "USE_AUTH_SERVICE" in said
    assert "manage.py reconcile" in said


def test_the_gateway_page_tells_an_outage(manager):
    memory_gateway().answers = False
    reconcile_all()
    said = text_of(manager.get("/gateway/"))
    assert "nobody knows" in said
    assert "The gateway: does not answer." in said


def test_a_gateway_that_no_worker_has_seen_is_neither_applied_nor_alarming(manager):
    Gateway.objects.update(observed_at=None, observed_generation=None, observed_weights={}, error="")
    said = text_of(manager.get("/gateway/"))
    assert "not seen yet" in said
    assert "Applied" not in said


def errors_of(client, key):
    return text_of(client.get(f"/services/{key}/")).split("Last errors")[1].split("Last polls")[0].strip()


def test_the_last_errors_are_told_with_their_reasons_and_how_often(manager):
    assert errors_of(manager, "auth") == "No poll that is kept has failed."
    now = timezone.now()
    for second in range(30):
        HealthSample.objects.create(
            target="auth",
            polled_at=now - timedelta(seconds=second),
            healthy=not 5 <= second < 17,
            error="answered 500, expected 200" if 5 <= second < 17 else "",
        )
    told = errors_of(manager, "auth")
    assert re.search(r"[\d:]{8} to [\w ]+[\d:]{8} 12 times answered 500, expected 200$", told)
    HealthSample.objects.create(target="auth", polled_at=now, healthy=False, error="connection refused")
    assert "once connection refused" in errors_of(manager, "auth")
    assert errors_of(manager, "rag") == "No poll that is kept has failed."


def says_of(client, key):
    return text_of(client.get(f"/services/{key}/")).split("What the gateway says")[1].split("Routes")[0].strip()


def test_the_gateway_is_asked_what_it_runs_of_this_service_and_why_not(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    assert re.search(r"Asked 0 % generation 1 Runs 0 % generation 1 Seen .* State Applied$", says_of(manager, "rag"))
    memory_gateway().refuses = "cluster unknown"
    manager.post("/flags/USE_RAG_SERVICE/enable/")
    said = says_of(manager, "rag")
    assert re.search(r"Asked 100 % generation 2 Runs 0 % generation 1 .* State Not applied .*cluster unknown", said)
    live = manager.get("/services/rag/live/", headers=HTMX).content.decode()
    assert 'id="service-gateways" aria-labelledby="says-title" hx-swap-oob="true"' in live
    memory_gateway().answers = False
    reconcile_all()
    assert "Runs nobody knows" in says_of(manager, "rag")


MOST_QUERIES = 12  # of a service's page, session and account included


@pytest.mark.parametrize("key", ["rag", "auth"], ids=["of a week without approvals", "of one that waits for some"])
def test_the_queries_of_a_page_do_not_grow_with_services_history_and_events(clients, people, key):
    client = clients[Role.RELEASE_MANAGER]

    def queries(path=f"/services/{key}/"):
        with CaptureQueriesContext(connection) as found:
            assert client.get(path).status_code == 200
        return len(found)

    if key == "auth":
        row = Service.objects.get(key=key).flag
        request_approval(number=row.week.number, flags=[row.key], actor=people[Role.RELEASE_MANAGER])
    queries()
    small = queries()
    grow(weeks=4, services=20)
    now = timezone.now()
    for back in range(200):
        HealthSample.objects.create(
            target=key,
            polled_at=now - timedelta(minutes=back),
            healthy=back % 2 == 0,
            error="" if back % 2 == 0 else "x",
        )
        HealthChange.objects.create(target=key, at=now - timedelta(hours=back), was="healthy", state="unhealthy")
        AuditEvent.objects.create(
            at=now, kind=AuditKind.FLAG_ROLLED_BACK, actor="a", actor_kind="account", subject="USE_RAG_SERVICE",
            week_number=1, before={}, after={"USE_RAG_SERVICE": 0}, previous_digest=f"{back}", digest=f"{back + 1}",
        )  # fmt: skip
    for back in range(90):
        HealthDay.objects.create(
            target=key, bucket=now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=back),
            polls=9, failed=0, unknown=0, total_us=1, latency=[0] * 23,
        )  # fmt: skip
    roll_up(HEALTH, now, within=60)
    assert queries() == small
    assert queries(f"/services/{key}/?range=90d") == small
    assert small <= MOST_QUERIES


def test_a_button_of_one_service_is_open_just_when_a_click_would_pass(manager, people):
    """The gate that the page shows is judged as the action judges: by the flag alone, with its own approval."""

    def compared():
        board = load_board()
        found = {}
        for week in board.weeks:
            for row in week.services:
                judged = verdicts(weeks=[week.week.number], flags=[row.row.key], now=board.now)[week.week.number]
                assert week.verdict_on(row) == judged
                assert Enabling.of_service(week, row).open == judged.open
                found[row.row.service] = judged.open
            assert week.verdict == verdicts(weeks=[week.week.number], now=board.now)[week.week.number]
        return found

    assert not any(compared().values())
    tick_all(1, people[Role.RELEASE_MANAGER])
    assert compared()["rag"]
    HealthState.objects.filter(target="storage").update(state=Health.UNHEALTHY, error="answered 500")
    found = compared()
    assert found["rag"]
    put_behind(1, 2)
    tick_all(3, people[Role.RELEASE_MANAGER])
    approve(3, people)
    compared()


def test_a_failover_is_told_for_what_it_is(manager, people):
    put_behind(1)
    reconcile_all()
    memory_gateway().down = {"rag"}
    read_once()
    assert Gateway.objects.get().failing_over == {"rag": "it takes no connections"}
    said = text_of(manager.get("/services/rag/"))
    assert "failing over The monolith answers in its place: it takes no connections." in said
    assert "Old side, in its place (100 %)" in text_of(manager.get("/services/"))
    memory_gateway().down = set()
    read_once()
    assert "failing over" not in text_of(manager.get("/services/rag/"))
