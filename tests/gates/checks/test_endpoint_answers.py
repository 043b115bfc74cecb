"""`endpoint_answers` on the demo's own processes, and on servers that misbehave."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from django.utils import timezone

from demo.estate import MEMBERS
from migrations_app.choices import CheckState
from migrations_app.gates.checks.asker import BODY_LIMIT
from migrations_app.gates.checks.endpoint_answers import endpoint_answers
from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.seen import Finding
from migrations_app.models import Plan, Service
from tests.gates.checks.web import Told, Web, serving

HELD, NOT_HELD, UNKNOWN = CheckState.HELD, CheckState.NOT_HELD, CheckState.UNKNOWN


def check(*, within: float = 20, **parameters: object) -> Finding:
    given = {"target": "auth", "path": "/health"} | parameters
    return endpoint_answers(given, Scene(Plan.objects.get(), 3, "", timezone.now(), within))


def told(found: Finding) -> tuple[CheckState, str, str]:
    assert bool(found.act) == (found.state != HELD)
    return found.state, found.value, found.limit


def point_auth_at(web: Web) -> None:
    Service.objects.filter(key="auth").update(host=web.host, port=web.port)


def asked_of(answer: Told, **parameters: object) -> Finding:
    """The finding when the auth service answers everything so."""
    with serving(lambda asked: answer) as web:
        point_auth_at(web)
        return check(**parameters)


@pytest.fixture
def demo_plan(plan, estate):
    """The plan with the addresses at which the demo's processes really listen."""
    for service in Service.objects.all():
        service.port = estate.settings.port(MEMBERS[service.key])
        service.save(update_fields=["port"])
    Plan.objects.update(monolith_port=estate.settings.port(MEMBERS["monolith"]))
    return estate


@pytest.mark.parametrize(
    ("target", "path", "name"),
    [("monolith", "/health", "monolith"), ("auth", "/auth/health", "auth-service"), ("rag", "/health", "rag-service")],
)
def test_the_demos_processes_answer(demo_plan, target, path, name):
    wanted = {"path": "service", "equals": name}
    assert told(check(target=target, path=path)) == (HELD, "200", "200")
    value = f'200, service is "{name}"'
    assert told(check(target=target, path=path, json=wanted)) == (HELD, value, value)


def test_another_status_or_value_does_not_hold(demo_plan):
    assert told(check(path="/auth/nothing")) == (NOT_HELD, "404", "200")
    assert told(check(path="/auth/nothing", status=404)) == (HELD, "404", "404")
    found = check(path="/auth", json={"path": "users", "equals": 40})
    assert told(found) == (NOT_HELD, "200, users is 0", "200, users is 40")


def test_the_value_follows_the_real_database(demo_plan, migrated):
    assert check(path="/auth", json={"path": "users", "equals": 40}).state == HELD


def test_the_gateway_is_asked_where_it_listens(plan, settings):
    with serving(lambda asked: Told(body=b'{"flags": {"USE_AUTH_SERVICE": true}}')) as web:
        settings.GATEWAY_URL = f"http://{web.address}/"
        found = check(target="gateway", path="/routing-status", json={"path": "flags.USE_AUTH_SERVICE", "equals": True})
    assert found.state == HELD
    assert [(one.method, one.path) for one in web.asked] == [("GET", "/routing-status")]


def test_a_service_that_the_plan_lacks_is_unknown(plan):
    assert told(check(target="nobody")) == (UNKNOWN, "the plan has no service nobody", "200")


BODY = json.dumps(
    {
        "state": {"ok": True, "count": 3, "none": None, "list": [{"name": "a"}, 2.0], "1": "one"},
        "text": "up",
        "version": "1.2.3",
    }
).encode()


@pytest.mark.parametrize(
    ("path", "equals", "held", "shown"),
    [
        ("text", "up", True, '"up"'),
        ("text", "down", False, '"up"'),
        ("version", "1.2.3", True, '"1.2.3"'),
        ("version", "1.2.4", False, "other text"),
        ("state.ok", True, True, "true"),
        ("state.ok", 1, False, "true"),
        ("state.count", 3, True, "3"),
        ("state.count", 3.0, True, "3"),
        ("state.count", "3", False, "3"),
        ("state.none", None, True, "null"),
        ("state.none", False, False, "null"),
        ("state.list.0.name", "a", True, '"a"'),
        ("state.list.1", 2, True, "2.0"),
        ("state.1", "one", True, '"one"'),
        ("state", "x", False, "an object"),
        ("state.list", "x", False, "a list"),
    ],
)
def test_a_value_in_the_json(plan, path, equals, held, shown):
    found = asked_of(Told(body=BODY), json={"path": path, "equals": equals})
    assert (found.state, found.value) == (HELD if held else NOT_HELD, f"200, {path} is {shown}")


@pytest.mark.parametrize("path", ["none", "state.none.x", "state.list.2", "state.list.-1", "state.list.x", "text.0"])
def test_a_value_that_is_not_there(plan, path):
    found = asked_of(Told(body=BODY), json={"path": path, "equals": None})
    assert (found.state, found.value) == (NOT_HELD, f"200, without {path}")


@pytest.mark.parametrize("body", [b"", b"up", b"[" * 60_000, b"\xff", b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_does_not_hold(plan, body):
    found = asked_of(Told(body=body), json={"path": "a", "equals": 1})
    assert (found.state, found.value) == (NOT_HELD, "200, and no JSON")


def test_a_status_that_is_wrong_is_not_made_good_by_a_value(plan):
    found = asked_of(Told(500, BODY), json={"path": "text", "equals": "up"})
    assert (found.state, found.value) == (NOT_HELD, '500, text is "up"')


def test_what_is_shown_of_a_value_can_be_stored_and_shown(plan):
    nasty = json.dumps({"a": "\x00\ud800\x1b[2J\u202e" + "x" * 500}).encode()
    found = asked_of(Told(body=nasty), json={"path": "a", "equals": "b"})
    assert found.value.isprintable()
    assert len(found.value) < 130
    found.value.encode()


def test_a_redirect_is_not_followed(plan):
    with serving(lambda asked: Told(body=b"here")) as elsewhere:
        found = asked_of(Told(302, headers={"location": f"http://{elsewhere.address}/health"}))
        assert told(found) == (NOT_HELD, "302", "200")
        assert elsewhere.asked == []


def test_no_proxy_of_the_environment_is_asked(plan, monkeypatch):
    with serving(lambda asked: Told()) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.address}")
        assert asked_of(Told()).state == HELD
        assert proxy.asked == []


def test_an_answer_without_end_is_cut_off(plan):
    found = asked_of(Told(body=b"x" * 4096, endless=True))
    assert told(found) == (UNKNOWN, "the auth service answers with more than 64 kB", "200")


def test_an_answer_of_the_greatest_size_is_read(plan):
    body = b'{"a": "' + b"x" * (BODY_LIMIT - 9) + b'"}'
    assert len(body) == BODY_LIMIT
    assert asked_of(Told(body=body), json={"path": "a", "equals": "b"}).state == NOT_HELD
    assert asked_of(Told(body=body + b" "), json={"path": "a", "equals": "b"}).state == UNKNOWN


def test_a_server_that_hangs_is_given_up(plan):
    found = asked_of(Told(hang=True), within=0.5)
    assert told(found) == (UNKNOWN, "the auth service gives no complete answer within 0.5 s", "200")


def test_a_server_that_stops_in_the_middle_is_given_up(plan):
    found = asked_of(Told(headers={"content-length": "100"}), within=0.5)
    assert found.state == UNKNOWN


def test_nobody_at_the_address_is_unknown(plan):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    Service.objects.filter(key="auth").update(host="127.0.0.1", port=port)
    assert told(check()) == (UNKNOWN, "the auth service takes no connection", "200")


@pytest.mark.parametrize("answer", [b"not http\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
def test_an_answer_that_is_not_http_is_unknown(plan, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Service.objects.filter(key="auth").update(host="127.0.0.1", port=listener.getsockname()[1])

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        found = check()
        thread.join(10)
    assert found.state == UNKNOWN
    assert found.value.startswith("the auth service gives no answer (")
