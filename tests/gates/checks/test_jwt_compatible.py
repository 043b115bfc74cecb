"""`jwt_compatible` on the demo's own monolith and auth service, and on sides that are wrong in one thing each."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from django.utils import timezone

from demo.estate import MEMBERS
from demo.fault import put
from demo.faults import Fault
from demo.jwt_secret import set_secret
from demo.seed import PASSWORD
from demo.tokens import TokenError, issue, verify
from migrations_app.choices import CheckState
from migrations_app.gates.checks.jwt_compatible import HELD as ALL_WELL
from migrations_app.gates.checks.jwt_compatible import LIMIT, jwt_compatible
from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.seen import Finding
from migrations_app.models import Plan, Service
from tests.demo.conftest import Estate
from tests.gates.checks.web import Asked, Told, Web, serving

HELD, NOT_HELD, UNKNOWN = CheckState.HELD, CheckState.NOT_HELD, CheckState.UNKNOWN
PARAMETERS = {"service": "auth", "account": "demo", "secret": "jwt"}
SECRET = "the secret of both sides"


def check(*, within: float = 20, **changed: object) -> Finding:
    found = jwt_compatible(PARAMETERS | changed, Scene(Plan.objects.get(), 3, "", timezone.now(), within))
    assert found.limit == LIMIT
    assert bool(found.act) == (found.state != HELD)
    return found


def told(found: Finding) -> tuple[CheckState, str]:
    return found.state, found.value


# -- On the demo's processes ------------------------------------------------------------------------------------------


@pytest.fixture
def demo(plan, settings, estate: Estate, migrated) -> Estate:
    """The plan at the addresses of a demo whose users have been migrated."""
    Service.objects.filter(key="auth").update(port=estate.settings.port(MEMBERS["auth"]))
    Plan.objects.update(monolith_port=estate.settings.port(MEMBERS["monolith"]))
    settings.CHECK_ACCOUNTS = {"demo": f"ana.silva:{PASSWORD}"}
    settings.CHECK_SECRETS = {"jwt": estate.settings.jwt_secret}
    return estate


def test_the_demo_is_compatible_once_its_users_are_migrated(demo):
    assert told(check()) == (HELD, ALL_WELL)


def test_before_the_users_are_migrated_the_new_side_signs_nobody_in(demo):
    demo.query("auth", "TRUNCATE users")
    assert told(check()) == (NOT_HELD, "the auth service does not sign the account demo in: 401")


def test_a_wrong_password_is_said_by_the_first_side_and_not_shown(demo, settings):
    settings.CHECK_ACCOUNTS = {"demo": "ana.silva:hunter2"}
    found = check()
    assert told(found) == (NOT_HELD, "the monolith does not sign the account demo in: 401")
    assert "CHECK_ACCOUNT_DEMO" in found.act
    assert "hunter2" not in str(found)


def test_a_wrong_secret_is_found_before_it_makes_everything_look_refused(demo, settings):
    settings.CHECK_SECRETS = {"jwt": "another secret"}
    found = check()
    assert told(found) == (NOT_HELD, "the monolith refuses a token signed with CHECK_SECRET_JWT: 401")
    assert "another secret" not in str(found)


@pytest.mark.parametrize("name", ["auth", "monolith"])
def test_a_changed_secret_on_either_side_is_noticed_until_it_is_restored(demo, name):
    assert set_secret(name, "changed", demo.settings) is None
    try:
        assert told(check()) == (NOT_HELD, "the auth service refuses the monolith's token: 401")
    finally:
        assert set_secret(name, "own", demo.settings) is None
    assert check().state == HELD


@pytest.mark.parametrize(("name", "who"), [("auth", "the auth service"), ("monolith", "the monolith")])
@pytest.mark.parametrize(("fault", "why"), [("down", "takes no connection"), ("errors", "answers 500 to a sign-in")])
def test_a_side_that_does_not_answer_is_unknown(demo, name, who, fault, why):
    assert put(name, Fault(fault, 10_000), demo.settings) is None
    assert told(check()) == (UNKNOWN, f"{who} {why}")


def test_a_side_that_hangs_is_unknown_in_time(demo):
    assert put("auth", Fault("hang"), demo.settings) is None
    assert told(check(within=1)) == (UNKNOWN, "the auth service gives no complete answer within 0.9 s")


# -- On sides of our own ----------------------------------------------------------------------------------------------


class Side:
    """Signs in and verifies as the demo does. Each attribute is one thing that can be wrong with it."""

    def __init__(self, secret: str = SECRET) -> None:
        self.secret = secret
        self.signing_in: Callable[[], Told] = self.good_sign_in
        self.verifying: Callable[[str], int] = self.good_verify
        self.web = Web("", 0, [])

    def answer(self, asked: Asked) -> Told:
        if asked.method == "POST":
            return self.signing_in()
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        return Told(self.verifying(token) if scheme == "Bearer" else 401)

    def good_sign_in(self) -> Told:
        return Told(body=json.dumps({"token": issue("ana", "user", self.secret)}).encode())

    def good_verify(self, token: str) -> int:
        try:
            verify(token, self.secret)
        except TokenError:
            return 401
        return 200


@pytest.fixture
def sides(plan, settings) -> Iterator[SimpleNamespace]:
    """Two sides that agree, at the addresses of the plan."""
    settings.CHECK_ACCOUNTS = {"demo": "ana:pass:word"}
    settings.CHECK_SECRETS = {"jwt": SECRET}
    old, new = Side(), Side()
    with contextlib.ExitStack() as stack:
        for side in (old, new):
            side.web = stack.enter_context(serving(side.answer))
        Plan.objects.update(monolith_host=old.web.host, monolith_port=old.web.port)
        Service.objects.filter(key="auth").update(host=new.web.host, port=new.web.port)
        yield SimpleNamespace(old=old, new=new)


def claims(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def without_time(side: Side, token: str) -> int:
    """Verifies, but does not look at `exp`."""
    try:
        verify(token, side.secret, now=0)
    except TokenError:
        return 401
    return 200


def without_signature(token: str) -> int:
    """Verifies nothing but the time."""
    if token.endswith("."):
        return 401
    return 200 if claims(token)["exp"] > timezone.now().timestamp() else 401


def test_two_sides_that_agree_hold(sides):
    assert told(check()) == (HELD, ALL_WELL)
    assert [(one.method, one.path) for one in sides.old.web.asked[:1]] == [("POST", "/api/auth/login")]
    assert {one.path for one in sides.old.web.asked[1:]} == {"/api/auth/me"}
    assert json.loads(sides.old.web.asked[0].body) == {"username": "ana", "password": "pass:word"}
    assert {one.path for one in sides.new.web.asked} == {"/auth/login", "/auth/me"}


def test_strip_and_paths_are_the_plans(sides):
    Service.objects.filter(key="auth").update(strip="")
    assert check(sign_in="/api/v2/in", verify="/apis/me").state == HELD
    assert {one.path for one in sides.new.web.asked} == {"/api/v2/in", "/apis/me"}
    sides.new.web.asked.clear()
    Service.objects.filter(key="auth").update(strip="/api")
    assert check(sign_in="/api/v2/in", verify="/apis/me").state == HELD
    assert {one.path for one in sides.new.web.asked} == {"/v2/in", "/apis/me"}


def test_another_secret_on_one_side(sides):
    sides.new.secret = "another"
    assert told(check()) == (NOT_HELD, "the auth service refuses the monolith's token: 401")


def test_only_one_way(sides):
    token = issue("ana", "user of the new side", SECRET)
    sides.new.signing_in = lambda: Told(body=json.dumps({"token": token}).encode())
    sides.old.verifying = lambda token: 403 if claims(token)["role"] != "user" else sides.old.good_verify(token)
    assert told(check()) == (NOT_HELD, "the monolith refuses the auth service's token: 403")


def test_a_verify_path_that_refuses_everything_is_no_proof(sides):
    sides.new.verifying = lambda token: 401
    assert told(check()) == (NOT_HELD, "the auth service refuses the token that it gave itself: 401")


@pytest.mark.parametrize(("which", "who"), [("old", "the monolith"), ("new", "the auth service")])
def test_who_accepts_what_it_must_refuse_is_named(sides, which, who):
    side = getattr(sides, which)
    side.verifying = lambda token: without_time(side, token)
    assert told(check()) == (NOT_HELD, f"{who} accepts an expired token: 200")
    side.verifying = without_signature
    assert told(check()) == (NOT_HELD, f"{who} accepts a forged token: 200")
    side.verifying = lambda token: 200 if token.endswith(".") else side.good_verify(token)
    assert told(check()) == (NOT_HELD, f"{who} accepts a token without a signature: 200")


@pytest.mark.parametrize("status", [204, 302, 404, 422])
def test_only_401_and_403_refuse(sides, status):
    sides.new.verifying = lambda token: 200 if sides.new.good_verify(token) == 200 else status
    assert told(check()) == (NOT_HELD, f"the auth service does not refuse an expired token: {status}")


def test_a_crash_at_a_bad_token_is_unknown(sides):
    sides.new.verifying = lambda token: 200 if sides.new.good_verify(token) == 200 else 503
    assert told(check()) == (UNKNOWN, "the auth service answers 503 to an expired token")


def test_the_claims_are_those_of_the_real_token(sides):
    seen: list[dict[str, object]] = []

    def verifying(token: str) -> int:
        seen.append(claims(token))
        return sides.new.good_verify(token)

    sides.new.verifying = verifying
    assert check().state == HELD
    now = timezone.now().timestamp()
    assert len(seen) == 6
    for one in seen:
        assert (one["sub"], one["role"], one["iss"]) == ("ana", "user", "tracseq")
        assert set(one) == {"sub", "role", "iss", "iat", "exp"}
        assert one["exp"] - one["iat"] == 3600
    assert sum(one["exp"] < now - 1800 for one in seen) == 1


def test_a_cookie_of_the_sign_in_is_not_sent_along(sides):
    good = sides.new.good_sign_in()
    sides.new.signing_in = lambda: Told(body=good.body, headers={"set-cookie": "session=open; Path=/"})
    assert check().state == HELD
    assert [
        one for side in (sides.old, sides.new) for one in side.web.asked if "cookie" in map(str.lower, one.headers)
    ] == []


def test_a_sign_in_that_redirects_is_not_followed(sides):
    with serving(lambda asked: Told()) as elsewhere:
        sides.new.signing_in = lambda: Told(307, headers={"location": f"http://{elsewhere.address}/"})
        assert told(check()) == (NOT_HELD, "the auth service does not sign the account demo in: 307")
        assert elsewhere.asked == []


@pytest.mark.parametrize("name", ["token", "access_token", "accessToken", "jwt"])
def test_the_token_may_go_by_several_names(sides, name):
    sides.old.signing_in = lambda: Told(201, json.dumps({name: issue("ana", "user", SECRET)}).encode())
    assert check().state == HELD


OTHER_ALGORITHM = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'"x.y.z"',
        b'{"token": 3}',
        b'{"token": "opaque"}',
        b'{"token": "W10.W10.c2ln"}',
        b'{"token": "aaaa.bbbb.cccc"}',
        b'{"token": "e30.e30.c2ln\\r\\nhost: elsewhere"}',
        b'{"token": "' + b"e" * 30_000 + b'"}',
    ],
)
def test_a_sign_in_without_a_jwt(sides, body):
    sides.new.signing_in = lambda: Told(body=body)
    assert told(check()) == (NOT_HELD, "the auth service answers a sign-in without a JWT in its JSON")


def test_another_algorithm_cannot_be_checked(sides):
    sides.old.signing_in = lambda: Told(body=json.dumps({"token": OTHER_ALGORITHM}).encode())
    assert told(check()) == (UNKNOWN, "the monolith signs its tokens otherwise than with HS256")


def test_an_answer_without_end_is_unknown(sides):
    sides.new.signing_in = lambda: Told(body=b"x" * 4096, endless=True)
    assert told(check()) == (UNKNOWN, "the auth service answers with more than 64 kB")


def test_a_side_that_hangs_at_the_second_step_is_unknown_in_time(sides):
    with serving(lambda asked: sides.new.good_sign_in() if asked.method == "POST" else Told(hang=True)) as web:
        Service.objects.filter(key="auth").update(port=web.port)
        assert told(check(within=1)) == (UNKNOWN, "the auth service gives no complete answer within 0.9 s")


@pytest.mark.parametrize(
    ("accounts", "value"),
    [
        ({}, "CHECK_ACCOUNT_DEMO is not set as user:password"),
        ({"demo": "secretword"}, "CHECK_ACCOUNT_DEMO is not set as user:password"),
        ({"demo": ":secretword"}, "CHECK_ACCOUNT_DEMO is not set as user:password"),
        ({"demo": "secretword:"}, "CHECK_ACCOUNT_DEMO is not set as user:password"),
    ],
)
def test_an_account_that_is_not_set_is_unknown(sides, settings, accounts, value):
    settings.CHECK_ACCOUNTS = accounts
    found = check()
    assert told(found) == (UNKNOWN, value)
    assert "secretword" not in str(found)
    assert sides.old.web.asked == []


def test_a_secret_that_is_not_set_is_unknown(sides, settings):
    settings.CHECK_SECRETS = {}
    assert told(check()) == (UNKNOWN, "CHECK_SECRET_JWT is not set")


def test_a_service_that_the_plan_lacks_is_unknown(sides):
    assert told(check(service="nobody")) == (UNKNOWN, "the plan has no service nobody")


def test_no_secret_reaches_a_finding_or_the_log(sides, settings, caplog):
    caplog.set_level("DEBUG")
    settings.CHECK_ACCOUNTS = {"demo": "ana:hunter2"}
    hidden = ["hunter2", SECRET]
    shown = []
    for side in (sides.old, sides.new):
        good_sign_in, good_verify = side.signing_in, side.verifying
        for signing_in in (lambda: Told(401), lambda: Told(500), lambda: Told(body=b"x"), lambda: Told(hang=True)):
            side.signing_in = signing_in
            shown.append(check(within=1))
        side.signing_in = good_sign_in
        for status in (200, 302, 401, 500):
            side.verifying = lambda token, status=status: status
            shown.append(check())
        side.verifying = good_verify
    shown.append(check())
    tokens = [one.headers["authorization"].split()[1] for one in sides.old.web.asked if "authorization" in one.headers]
    assert tokens
    text = f"{shown} {caplog.text}"
    assert [one for one in [*hidden, *tokens] if one in text] == []
