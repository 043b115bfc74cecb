"""The JSON API: who may call it, what it answers, and that no gate is passed through it that is closed."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from migrations_app.actions.tokens import add_token, revoke_token
from migrations_app.choices import AuditKind
from migrations_app.errors import Busy
from migrations_app.models import ApiToken, AuditEvent, Flag, Plan
from migrations_app.models.audit import check_chain
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from migrations_app.web import api, throttle
from migrations_app.web.api_docs import DOCS, markdown, with_table, write
from migrations_app.web.bodies import LARGEST_OF_API
from tests.factories import memory_gateway, put_behind, tick_all

RAG = "USE_RAG_SERVICE"
JSON = "application/json"


class Script:
    """Calls with a token, as a script does: no session, no cookie."""

    def __init__(self, secret: str) -> None:
        self._client, self._headers = Client(enforce_csrf_checks=True), {"Authorization": f"Bearer {secret}"}

    def get(self, path: str, **more):
        return self._client.get(f"/api/{path}", headers=self._headers | more)

    def post(self, path: str, body: object = None, *, content_type: str = JSON, **more):
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.post(
            f"/api/{path}", data, content_type=content_type if data else "", headers=self._headers | more
        )

    def call(self, method: str, path: str):
        return self._client.generic(method, f"/api/{path}", headers=self._headers)


@pytest.fixture
def scripts(plan, people, shell) -> dict[str, Script]:
    return {role: Script(add_token(account=who.name, label="tests", actor=shell)[1]) for role, who in people.items()}


@pytest.fixture
def manager(scripts) -> Script:
    return scripts[Role.RELEASE_MANAGER]


def weights() -> dict[str, int]:
    return dict(Flag.objects.filter(weight__gt=0).values_list("key", "weight"))


def problem(response, status: int, kind: str) -> dict:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "no-store"
    told = response.json()
    assert (told["type"], told["status"]) == (f"urn:switchyard:{kind}", status)
    assert told["title"]
    assert told["detail"]
    return told


def test_the_state_tells_what_is_asked_what_runs_and_what_is_in_the_way(manager):
    put_behind(1)
    told = manager.get("state").json()
    assert (told["plan"]["key"], told["generation"]) == (Plan.objects.get().key, Plan.objects.get().generation)
    weeks = {week["number"]: week for week in told["weeks"]}
    assert (weeks[1]["status"], weeks[2]["status"], weeks[2]["after"]) == ("soaking", "planned", [1])
    gate = weeks[2]["gate"]
    assert gate["open"] is False
    assert {"key", "title", "value", "act", "who"} <= gate["blocking"][0].keys()
    flag = next(flag for flag in told["flags"] if flag["key"] == RAG)
    assert (flag["week"], flag["weight"], flag["health"]) == (1, 100, "healthy")
    # The gateway has not been asked since.
    assert (flag["gateways"], flag["applied"]) == ({"main": 0}, False)
    assert [row["key"] for row in told["gateways"]] == ["main"]


def test_the_state_costs_as_many_queries_whatever_is_on(manager, django_assert_max_num_queries):
    manager.get("state")
    put_behind(1, 2, 3)
    with django_assert_max_num_queries(12):
        assert manager.get("state").status_code == 200


def test_without_a_plan_the_state_says_so(db, people, shell):
    script = Script(add_token(account="viewer", label="x", actor=shell)[1])
    empty = script.get("state").json()
    assert (empty["plan"], empty["monolith"]) == (None, None)
    problem(Script(add_token(account="approver", label="x", actor=shell)[1]).post("rollback"), 404, "not-found")


def test_a_share_is_moved_and_confirmed_by_the_gateway(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    response = manager.post(f"flags/{RAG}/weight", {"weight": 25, "reason": "first quarter"})
    assert response.status_code == 200
    told = response.json()
    assert (told["changed"], told["confirmed"], told["error"], told["command"]) == (True, True, "", "")
    assert told["gateways"] == [{"gateway": "main", "confirmed": True, "error": ""}]
    assert told["milliseconds"] >= 0
    assert told["generation"] == Plan.objects.get().generation
    event = AuditEvent.objects.get(pk=told["event"])
    assert (event.actor, event.reason, event.after) == ("release-manager", "first quarter", {RAG: 25})
    assert event.via == f"token {ApiToken.objects.get(account__username='release-manager').pk}"
    assert (
        weights() == {RAG: 25} == {key: weight for key, weight in memory_gateway().observe().weights.items() if weight}
    )
    assert check_chain().intact


def test_a_closed_gate_refuses_whichever_way_it_is_asked(manager):
    for path, body in ((f"flags/{RAG}/weight", {"weight": 1}), ("weeks/1/enable", None)):
        told = problem(manager.post(path, body), 409, "gate-closed")
        assert told["week"] == 1
        assert told["blocking"][0]["title"] in told["detail"]
        assert AuditEvent.objects.first().kind == AuditKind.ENABLE_REFUSED
    assert weights() == {}
    assert not AuditEvent.objects.filter(kind__in=[AuditKind.WEEK_ENABLED, AuditKind.FLAG_WEIGHT_SET]).exists()


def test_a_pin_is_told_apart_from_a_change_of_somebody_else(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    memory_gateway().pin([RAG], by="somebody")
    reconcile_all()
    told = problem(manager.post(f"flags/{RAG}/weight", {"weight": 25}), 409, "pinned")
    assert "pinned" in told["detail"]


def test_a_week_is_enabled_and_rolled_back_with_what_rests_on_it(manager, people):
    put_behind(1)
    tick_all(2, people[Role.RELEASE_MANAGER])
    assert manager.post("weeks/2/enable", {"reason": "as planned"}).json()["changed"]
    assert len(weights()) == 4
    told = manager.post("weeks/1/rollback", {"with_later": True}).json()
    assert (told["changed"], told["confirmed"]) == (True, True)
    assert weights() == {}
    assert AuditEvent.objects.get(pk=told["event"]).after["weeks"] == [2, 1]


@pytest.mark.parametrize("path", [f"flags/{RAG}/rollback", "weeks/1/rollback", "rollback"])
def test_a_rollback_needs_no_body_no_reason_and_no_gate(manager, path):
    put_behind(1)
    told = manager.post(path).json()
    assert (told["changed"], told["confirmed"]) == (True, True)
    assert RAG not in weights()
    again = manager.post(path).json()
    assert (again["changed"], again["confirmed"], again["milliseconds"]) == (False, True, None)


def test_the_same_key_counts_once(manager):
    put_behind(1)
    key = {"Idempotency-Key": str(uuid4())}
    first = manager.post("rollback", **key).json()
    second = manager.post("rollback", **key).json()
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["event"] == second["event"]
    assert AuditEvent.objects.filter(kind=AuditKind.EVERYTHING_ROLLED_BACK).count() == 1


def test_what_the_gateway_does_not_confirm_is_said_with_the_command(manager, settings):
    put_behind(1)
    settings.CONFIRM_WITHIN = 0.05
    memory_gateway().answers = False
    response = manager.post("rollback")
    told = response.json()
    assert response.status_code == 200
    assert (told["changed"], told["confirmed"], told["command"]) == (True, False, "manage.py reconcile")
    assert told["error"]
    assert weights() == {}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (f"flags/{RAG}/weight", None, "weight"),
        (f"flags/{RAG}/weight", {"weight": 101}, "weight"),
        (f"flags/{RAG}/weight", {"weight": -1}, "weight"),
        (f"flags/{RAG}/weight", {"weight": "5"}, "weight"),
        (f"flags/{RAG}/weight", {"weight": True}, "weight"),
        (f"flags/{RAG}/weight", {"weight": 5.5}, "weight"),
        (f"flags/{RAG}/weight", {"weight": 5, "wieght": 6}, "wieght"),
        ("rollback", {"reason": 5}, "reason"),
        ("rollback", {"reason": "x" * 1001}, "reason"),
        ("rollback", {"reason": "a\x00b"}, "reason"),
        ("rollback", b'{"reason": "\\ud800"}', "body"),
        ("rollback", b"{", "body"),
        ("rollback", b"[]", "body"),
        ("rollback", b"\xff\xfe", "body"),
        ("rollback", b"[" * 5000, "body"),
        ("weeks/1/rollback", {"with_later": "yes"}, "with_later"),
    ],
)
def test_what_makes_no_sense_names_the_field_and_changes_nothing(manager, path, body, field):
    put_behind(1)
    before = weights(), AuditEvent.objects.count()
    told = problem(manager.post(path, body), 422, "invalid")
    assert field in {error["field"] for error in told["errors"]}
    assert (weights(), AuditEvent.objects.count()) == before


def test_a_key_that_is_no_uuid_is_named(manager):
    put_behind(1)
    told = problem(manager.post("rollback", **{"Idempotency-Key": "again"}), 422, "invalid")
    assert told["errors"][0]["field"] == "Idempotency-Key"
    assert weights()


def test_a_high_risk_without_a_reason_names_the_field(manager, people):
    week = Plan.objects.get().weeks.get(number=1)
    week.risk = "high"
    week.save()
    tick_all(1, people[Role.RELEASE_MANAGER])
    told = problem(manager.post("weeks/1/enable"), 422, "invalid")
    assert told["errors"] == [{"field": "reason", "detail": "Say why now: week 1 is of high risk."}]
    assert weights() == {}


def test_what_is_not_there_is_a_problem_too(manager):
    problem(manager.post("flags/USE_NOTHING/rollback"), 404, "not-found")
    problem(manager.post("weeks/99/rollback"), 404, "not-found")
    problem(manager.post("nothing"), 404, "not-found")
    problem(Client().get("/api/weeks/x/enable"), 404, "not-found")
    problem(manager.post("flags/a%00b/rollback"), 404, "not-found")
    problem(manager.post(f"weeks/{10**30}/rollback"), 404, "not-found")


def test_other_methods_are_told_which_it_takes(manager):
    put_behind(1)
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        response = manager.call(method, "rollback")
        assert (response.status_code, response["Allow"]) == (405, "POST")
    response = manager.post("state")
    problem(response, 405, "method-not-allowed")
    assert response["Allow"] == "GET, HEAD"
    assert manager.call("HEAD", "state").status_code == 200
    assert weights()


def test_a_body_that_is_not_json_or_too_large_is_refused(manager):
    put_behind(1)
    for wrong in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
        problem(manager.post("rollback", b"reason=x", content_type=wrong), 415, "not-json")
    problem(manager.post("rollback", b" " * (LARGEST_OF_API + 1)), 413, "too-large")
    problem(manager.post("rollback", b" " * (8 * 1024 * 1024)), 413, "too-large")
    assert weights()
    assert manager.post("rollback", {"reason": "€" * 1000}, content_type="application/json; charset=utf-8").json()[
        "changed"
    ]


def test_no_session_opens_it_and_it_sets_no_cookie(plan, people, manager):
    put_behind(1)
    browser = Client()
    browser.force_login(people[Role.RELEASE_MANAGER].account)
    for response in (browser.post("/api/rollback"), browser.get("/api/state")):
        problem(response, 401, "not-signed-in")
        assert response["WWW-Authenticate"].startswith("Bearer")
    assert weights()
    for response in (manager.get("state"), manager.post("rollback")):
        assert response.status_code == 200
        assert not response.cookies
        assert "Cookie" not in response.get("Vary", "")


def test_a_token_that_is_revoked_expired_or_of_no_active_account_opens_nothing(plan, people, shell, time_machine):
    put_behind(1)
    secrets = [
        add_token(account="release-manager", label=label, actor=shell, expires_in=timedelta(hours=1))
        for label in ("revoked", "expires", "inactive")
    ]
    (revoked, first), (_, second), (_, third) = secrets
    assert {Script(secret).get("state").status_code for _, secret in secrets} == {200}
    revoke_token(token=revoked.pk, actor=shell)
    problem(Script(first).post("rollback"), 401, "not-signed-in")
    time_machine.move_to(timezone.now() + timedelta(hours=1, seconds=1))
    problem(Script(second).post("rollback"), 401, "not-signed-in")
    ApiToken.objects.update(expires_at=None)
    User.objects.filter(username="release-manager").update(is_active=False)
    problem(Script(third).post("rollback"), 401, "not-signed-in")
    assert weights()
    events = AuditEvent.objects.filter(kind=AuditKind.SIGN_IN_FAILED)
    assert f"token {revoked.pk} of account release-manager" in set(events.values_list("subject", flat=True))


def test_its_use_is_kept_to_the_minute(manager, scripts):
    def used():
        return ApiToken.objects.get(account__username="release-manager").last_used_at

    manager.get("state")
    assert (used().second, used().microsecond) == (0, 0)
    assert timezone.now() - used() < timedelta(minutes=2)
    # What is refused as it stands is a use of the token too.
    refused = {
        405: lambda: manager.call("PUT", "rollback"),
        415: lambda: manager.post("rollback", b"x", content_type="text/plain"),
        422: lambda: manager.post("rollback", b"{"),
        403: lambda: scripts[Role.VIEWER].post("rollback"),
    }
    for status, call in refused.items():
        ApiToken.objects.update(last_used_at=None)
        assert call().status_code == status
        assert ApiToken.objects.filter(last_used_at__isnull=False).count() == 1


def test_many_wrong_tokens_are_slowed_and_a_right_one_is_not(manager):
    put_behind(1)
    answers = [Script(f"switchyard_{number}").get("state") for number in range(throttle.LIMIT + 2)]
    assert [answer.status_code for answer in answers] == [401] * throttle.LIMIT + [429] * 2
    problem(answers[-1], 429, "too-many-wrong-tokens")
    assert 0 < int(answers[-1]["Retry-After"]) <= throttle.WINDOW
    assert manager.post("rollback").json()["changed"]
    events = AuditEvent.objects.filter(kind=AuditKind.SIGN_IN_FAILED)
    assert [(event.subject, event.after["failures"]) for event in events] == [("an unknown token", 1)]


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer " + "x" * 5000, "Bearer ü\x7f"])
def test_what_is_no_token_is_told_what_to_send(plan, sent):
    response = Client().post("/api/rollback", headers={"Authorization": sent} if sent else {})
    problem(response, 401, "not-signed-in")


def test_a_busy_plan_and_a_database_that_is_away_ask_to_come_again(manager, monkeypatch):
    def busy(**_click):
        raise Busy("Another change has held the plan for too long.")

    monkeypatch.setattr(api, "roll_back_everything", busy)
    response = manager.post("rollback")
    problem(response, 503, "busy")
    assert response["Retry-After"] == "1"

    def away(**_click):
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(api, "roll_back_everything", away)
    detail = problem(manager.post("rollback"), 503, "database-away")["detail"]
    assert "the connection is closed" in detail
    assert detail.endswith(
        "Whether a change was carried out is not known: send it again with the same Idempotency-Key."
    )


def test_a_fault_of_ours_is_a_problem_too(manager, monkeypatch):
    def broken(**_click):
        raise ZeroDivisionError

    monkeypatch.setattr(api, "roll_back_everything", broken)
    manager._client.raise_request_exception = False
    problem(manager.post("rollback"), 500, "fault")


def test_the_documentation_is_made_of_the_table():
    text = DOCS.read_text()
    assert with_table(text) == text, write.__doc__
    assert markdown() in text
    for endpoint in api.ENDPOINTS:
        assert endpoint.about in text
