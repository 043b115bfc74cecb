"""The page of one service and that of the gateway."""

import re

from django.utils import timezone

from migrations_app.models import Gateway, HealthSample
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import memory_gateway, tick_all
from tests.web.conftest import HTMX, text_of


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
