"""Tokens: what one side issues the other accepts, and nothing else is accepted by either."""

import base64
import json
import time

import pytest

from demo import passwords
from demo.tokens import TokenError, issue, verify
from tests.demo.conftest import Estate

SECRET = "a secret of these tests"
SIDES = {"monolith": "/api/auth", "auth": "/auth"}


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forgeries(secret: str) -> dict[str, str]:
    """Tokens that must be refused, by what is wrong with them."""
    good = issue("ana.silva", "scientist", secret)
    header, claims, signature = good.split(".")
    admin = {"sub": "ana.silva", "role": "lab_admin", "exp": int(time.time()) + 900, "iss": "tracseq"}
    return {
        "expired": issue("ana.silva", "scientist", secret, now=time.time() - 7200),
        "just expired": issue("ana.silva", "scientist", secret, lifetime=0),
        "of another secret": issue("ana.silva", "scientist", "other"),
        "changed claims": f"{header}.{part(admin)}.{signature}",
        "alg none": f"{part({'alg': 'none'})}.{part(admin)}.",
        "alg none, signed": f"{part({'alg': 'none'})}.{claims}.{signature}",
        "alg HS512": f"{part({'alg': 'HS512'})}.{claims}.{signature}",
        "alg missing": f"{part({})}.{claims}.{signature}",
        "without signature": f"{header}.{claims}.",
        "two parts": f"{header}.{claims}",
        "four parts": f"{good}.x",
        "no base64": f"%.{claims}.{signature}",
        "no object": f"{part([])}.{claims}.{signature}",
        "padded": f"{good}=",
        "nonsense": "x",
    }


def test_a_token_holds_until_it_expires() -> None:
    token = issue("ana.silva", "scientist", SECRET, now=1000, lifetime=60)
    claims = {"sub": "ana.silva", "role": "scientist", "iat": 1000, "exp": 1060, "iss": "tracseq"}
    assert verify(token, SECRET, now=1059.9) == claims
    with pytest.raises(TokenError, match="expired"):
        verify(token, SECRET, now=1060)


@pytest.mark.parametrize("fault", forgeries(SECRET))
def test_a_token_that_does_not_hold_is_refused(fault: str) -> None:
    with pytest.raises(TokenError):
        verify(forgeries(SECRET)[fault], SECRET)


def test_a_password_is_kept_with_a_salt_of_its_own() -> None:
    first, second = passwords.make("secret", b"one"), passwords.make("secret", b"two")
    assert first.rpartition("$")[2] != second.rpartition("$")[2]
    assert passwords.holds("secret", first)
    assert not passwords.holds("Secret", first)


def test_login_takes_the_name_or_the_address(estate: Estate) -> None:
    for body in ({"username": "ana.silva"}, {"username": "ANA.SILVA"}, {"email": "ana.silva@tracseq.example"}):
        answer = estate.post("monolith", "/api/auth/login", json=body | {"password": "tracseq-demo"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["user"]["username"] == "ana.silva"
        assert "password_hash" not in answer.text
        header = json.loads(base64.urlsafe_b64decode(answer.json()["token"].split(".")[0] + "=="))
        assert header == {"alg": "HS256", "typ": "JWT"}


def test_login_refuses_without_saying_what_was_wrong(estate: Estate) -> None:
    inactive = estate.query("monolith", "SELECT username FROM users WHERE NOT active")[0][0]
    wrong = [("ana.silva", "wrong"), ("nobody", "tracseq-demo"), (inactive, "tracseq-demo")]
    texts = set()
    for username, password in wrong:
        answer = estate.post("monolith", "/api/auth/login", json={"username": username, "password": password})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        texts.add(answer.text)
    assert len(texts) == 1
    for body in ({}, {"username": "ana.silva"}, {"username": 1, "password": "x"}):
        assert estate.post("monolith", "/api/auth/login", json=body).status_code == 422


@pytest.mark.parametrize("issuer", SIDES)
@pytest.mark.parametrize("verifier", SIDES)
def test_each_side_accepts_the_tokens_of_both(estate: Estate, migrated, issuer: str, verifier: str) -> None:
    token = estate.login(issuer, f"{SIDES[issuer]}/login").json()["token"]
    headers = {"authorization": f"Bearer {token}"}
    answer = estate.get(verifier, f"{SIDES[verifier]}/verify", headers=headers)
    assert answer.status_code == 200
    assert answer.json()["claims"]["sub"] == "ana.silva"
    me = estate.get(verifier, f"{SIDES[verifier]}/me", headers=headers)
    assert me.json()["item"]["email"] == "ana.silva@tracseq.example"


@pytest.mark.parametrize("side", SIDES)
def test_no_side_accepts_a_forgery(estate: Estate, side: str) -> None:
    for fault, token in forgeries(estate.settings.jwt_secret).items():
        answer = estate.get(side, f"{SIDES[side]}/verify", headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized"), fault
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Basic eA=="}):
        assert estate.get(side, f"{SIDES[side]}/me", headers=headers).status_code == 401


def test_who_writes_is_the_subject_of_the_token(estate: Estate) -> None:
    token = issue("bo.lind", "technician", estate.settings.jwt_secret)
    body = {"barcode": "BY-BO", "name": "Sample of Bo"}
    answer = estate.post("sample", "/samples", json=body, headers={"authorization": f"Bearer {token}"})
    assert answer.json()["item"]["submitted_by"] == "bo.lind"
    estate.query("sample", "DELETE FROM samples WHERE barcode = 'BY-BO'")
    forged = estate.post("sample", "/samples", json=body, headers={"authorization": f"Bearer {token}x"})
    assert forged.status_code == 401
    assert estate.query("sample", "SELECT 1 FROM samples WHERE barcode = 'BY-BO'") == []
