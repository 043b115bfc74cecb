"""What pages show of triggers of a week, and of traffic by prefix."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import set_weight
from migrations_app.actions.triggers import watch_triggers
from migrations_app.gateways.base import NO_LATENCY, Side
from migrations_app.models import RouteSample, Service, TrafficSample, TriggerState, Week
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.commands.test_commands import as_json
from tests.factories import tick_all
from tests.web.conftest import text_of

ERRORS = {"key": "errors", "when": "errors", "above": 5.0, "window": "30s", "do": "tell"}


@pytest.fixture
def on(manager, people):
    Service.objects.update(triggers=[])
    tick_all(1, people[Role.RELEASE_MANAGER])
    set_weight(key="USE_RAG_SERVICE", weight=25, actor=people[Role.RELEASE_MANAGER])
    reconcile_all()
    return manager


def serve(requests: int, errors: int) -> None:
    service = Service.objects.get(key="rag")
    TrafficSample.objects.create(
        service=service, side="service", read_at=timezone.now(), requests=requests, errors=errors, latency=[]
    )


def count(path: str, side: Side, requests: int, codes: dict[str, int], *, seconds_ago: int = 0) -> None:
    latency = list(NO_LATENCY)
    latency[5] = requests
    RouteSample.objects.create(
        service=Service.objects.get(key="auth"),
        path=path,
        method="",
        side=side.value,
        read_at=timezone.now() - timedelta(seconds=seconds_ago),
        requests=requests,
        codes=codes,
        retries=0,
        latency=latency,
    )


def test_the_page_of_a_week_shows_what_moves_all_of_it_back(on):
    assert "What moves all of it back" not in text_of(on.get("/weeks/1/"))
    Week.objects.filter(number=1).update(triggers=[ERRORS])
    assert "Errors: not watched" in text_of(on.get("/weeks/1/"))
    serve(100, 1)
    watch_triggers()
    for address in ("/weeks/1/", "/weeks/1/live/"):
        said = text_of(on.get(address))
        assert "Errors: within 1.00 % errors of 100 requests at most 5 % in 30 s tells, in the audit log" in said
    serve(100, 99)
    assert watch_triggers() == ["week 1/errors"]
    assert "Errors: past it 50.00 % errors of 200 requests" in text_of(on.get("/weeks/1/"))
    assert "Fired" in text_of(on.get("/weeks/1/"))
    TriggerState.objects.update(judged_at=timezone.now() - timedelta(seconds=40))
    said = text_of(on.get("/weeks/1/"))
    assert "Errors: unknown not looked at for 40 s" in said
    rows = [row for row in as_json("trigger", "list") if row["of"] == "week 1"]
    assert [(row["state"], row["value"]) for row in rows] == [("no_data", "not looked at for 40 s")]


def test_a_week_without_triggers_costs_no_question_more(on):
    def asked() -> int:
        with CaptureQueriesContext(connection) as found:
            on.get("/weeks/1/")
        return len(found)

    asked()
    without = asked()
    Week.objects.filter(number=1).update(triggers=[ERRORS])
    assert asked() == without + 1


def test_the_page_of_a_service_shows_its_last_minute_by_prefix(manager):
    Service.objects.filter(key="auth").update(
        counted=[{"path": "/api/auth/login", "method": ""}, {"path": "/api/auth", "method": ""}]
    )
    said = text_of(manager.get("/services/auth/"))
    assert "By prefix in the last minute" in said
    assert "/api/auth/login none 0 0 0" in said
    count("/api/auth/login", Side.SERVICE, 10, {"401": 3, "403": 1, "404": 1, "503": 2})
    count("/api/auth/login", Side.SERVICE, 10, {"401": 1})
    count("/api/auth/login", Side.MONOLITH, 4, {})
    count("/api/auth", Side.SERVICE, 100, {"500": 1})
    count("/api/auth", Side.SERVICE, 1000, {"500": 1000}, seconds_ago=61)
    RouteSample.objects.filter(side=Side.MONOLITH).update(retries=2)
    for address in ("/services/auth/", "/services/auth/live/"):
        said = text_of(manager.get(address))
        assert "/api/auth/login old 4 (2 twice) 0 0 9.8 ms" in said
        assert "/api/auth/login new 20 2 5 9.8 ms" in said
        # With what is counted below it.
        assert "/api/auth new 120 3 5 9.8 ms" in said


def test_a_service_that_is_not_counted_so_has_no_such_table(manager):
    assert "By prefix" not in text_of(manager.get("/services/rag/"))
