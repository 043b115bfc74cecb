"""`jwt_compatible`: each side accepts the other's tokens, and both refuse expired and forged ones.

An account signs in on both sides. Expired and forged tokens carry the claims of the token that the asked side itself
gave. So that nothing is refused for another reason than the one that is looked at, a token with the same claims that is
good, and signed with the same secret as the expired one, must be accepted first.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.conf import settings

from migrations_app.choices import CheckState
from migrations_app.gates.parameters import JwtCompatible
from migrations_app.gates.seen import Finding
from migrations_app.models import Service

from .asker import Answer, Asker, NoJson, url_of_monolith, url_of_service
from .probe import Scene

LIMIT = "both accept each other's tokens, and refuse expired and forged ones"
HELD = "tokens are accepted both ways, expired and forged ones refused"
ACCEPTED = frozenset({HTTPStatus.OK})
REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
HOUR = 3600  # seconds
_TOKEN = re.compile(r"[A-Za-z0-9_-]{2,8000}\.[A-Za-z0-9_-]{2,8000}\.[A-Za-z0-9_-]{2,2000}")
_NAMES = ("token", "access_token", "accessToken", "jwt")  # where the answer to a sign-in has the token


class _Wrong(Exception):
    """The first thing that is wrong, as the finding's state, value and act. Holds no token and no secret."""

    def __init__(self, value: str, act: str, state: CheckState = CheckState.NOT_HELD) -> None:
        super().__init__(value)
        self.state, self.value, self.act = state, value, act


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two, in words, and where it is asked."""

    name: str
    sign_in: str
    verify: str


@dataclass(frozen=True, slots=True)
class _Token:
    """A token that a side gave: header and claims, decoded."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Case:
    """A token that a side is shown, whether it must be accepted, and what to do when it is not as it must be."""

    side: _Side
    token: str
    what: str  # as in `the monolith refuses <what>`
    accepted: bool
    act: str


def jwt_compatible(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`service: auth`, `account` and `secret`: names of CHECK_ACCOUNT_... and CHECK_SECRET_..."""
    asked = JwtCompatible.of(parameters)
    try:
        sides = _sides(asked, scene)
        account = _account(asked.account)
        secret = settings.CHECK_SECRETS.get(asked.secret)
        if not secret:
            raise _unset(f"CHECK_SECRET_{asked.secret.upper()}")
        asyncio.run(_refuse_wrong(asked, sides, account, secret, scene.within * 0.9))
    except _Wrong as wrong:
        return Finding(wrong.state, wrong.value, LIMIT, wrong.act)
    return Finding(CheckState.HELD, HELD, LIMIT)


def _sides(asked: JwtCompatible, scene: Scene) -> tuple[_Side, _Side]:
    """The monolith and the service. Raises _Wrong."""
    service = Service.objects.filter(plan=scene.plan, key=asked.service).first()
    if service is None:
        told = f"the plan has no service {asked.service}"
        raise _Wrong(told, "Load a plan that has it.", CheckState.UNKNOWN)
    paths = (asked.sign_in, asked.verify)
    old = (url_of_monolith(scene.plan, path) for path in paths)
    new = (url_of_service(service, _stripped(path, service.strip)) for path in paths)
    return _Side("the monolith", *old), _Side(f"the {service.key} service", *new)


def _stripped(path: str, strip: str) -> str:
    """The path as the service sees it, by whole segments."""
    return path.removeprefix(strip) if path.startswith(f"{strip}/") else path


def _account(name: str) -> tuple[str, str]:
    """Name and password. Raises _Wrong."""
    user, colon, password = settings.CHECK_ACCOUNTS.get(name, "").partition(":")
    if not (user and colon and password):
        raise _unset(f"CHECK_ACCOUNT_{name.upper()}", " as user:password")
    return user, password


def _unset(setting: str, how: str = "") -> _Wrong:
    act = f"Set it in the environment of web and workers{how}, and start them again."
    return _Wrong(f"{setting} is not set{how}", act, CheckState.UNKNOWN)


async def _refuse_wrong(
    asked: JwtCompatible, sides: tuple[_Side, _Side], account: tuple[str, str], secret: str, seconds: float
) -> None:
    async with Asker(seconds) as asker:
        body = {"username": account[0], "password": account[1]}
        answers = await asyncio.gather(*(asker.ask("POST", side.sign_in, body=body) for side in sides))
        tokens = [_token(side, answer, asked.account) for side, answer in zip(sides, answers, strict=True)]
        cases = [*_real(sides, tokens), *_made(sides, tokens, secret, asked.secret)]
        headers = [{"authorization": f"Bearer {case.token}"} for case in cases]
        verdicts = await asyncio.gather(
            *(asker.ask("GET", case.side.verify, headers=header) for case, header in zip(cases, headers, strict=True))
        )
    for case, verdict in zip(cases, verdicts, strict=True):
        _refuse(case, verdict)


def _token(side: _Side, answer: Answer, account: str) -> _Token:
    """The token that a sign-in gave. Raises _Wrong."""
    _refuse_no_answer(side, answer, "a sign-in")
    if answer.status not in {HTTPStatus.OK, HTTPStatus.CREATED}:
        act = f"Bring its users up to date, or correct CHECK_ACCOUNT_{account.upper()}."
        raise _Wrong(f"{side.name} does not sign the account {account} in: {answer.status}", act)
    try:
        found = answer.json()
    except NoJson:
        found = None
    texts = [found.get(name) for name in _NAMES] if isinstance(found, dict) else []
    text = next((text for text in texts if isinstance(text, str)), "")
    try:
        if not _TOKEN.fullmatch(text):
            raise ValueError
        header, claims = (_decoded(part) for part in text.split(".")[:2])
    except (ValueError, RecursionError):
        told = f"{side.name} answers a sign-in without a JWT in its JSON"
        raise _Wrong(told, f"Let it answer with one as {_NAMES[0]} or {_NAMES[1]}.") from None
    if header.get("alg") != "HS256":
        told = f"{side.name} signs its tokens otherwise than with HS256"
        raise _Wrong(told, "Tick this by hand: only HS256 can be checked.", CheckState.UNKNOWN)
    return _Token(text, header, claims)


def _real(sides: tuple[_Side, _Side], tokens: list[_Token]) -> list[_Case]:
    """Each side's token at itself, and at the other."""
    both = list(zip(sides, tokens, strict=True))
    own = [
        _Case(side, token.text, "the token that it gave itself", True, "Correct the path `verify` of this check.")
        for side, token in both
    ]
    act = "Give both sides the same secret, issuer and claims."
    others = [
        _Case(side, token.text, f"{giver.name}'s token", True, act)
        for side, (giver, token) in zip(reversed(sides), both, strict=True)
    ]
    return [*own, *others]


def _made(sides: tuple[_Side, _Side], tokens: list[_Token], secret: str, name: str) -> list[_Case]:
    """Tokens that we sign: a good one, an expired one and two that are forged, for each side from its own claims."""
    now, other = int(time.time()), secrets.token_hex(32)
    setting = f"CHECK_SECRET_{name.upper()}"
    mend = "Mend how it checks tokens before it gets traffic."

    def good(token: _Token) -> dict[str, Any]:
        return token.claims | _times(token.claims, now, HOUR)

    def expired(token: _Token) -> dict[str, Any]:
        return token.claims | _times(token.claims, now - 2 * HOUR, HOUR)

    def unsigned(token: _Token) -> str:
        return f"{_encoded(token.header | {'alg': 'none'})}.{_encoded(good(token))}."

    def shown(what: str, make: Callable[[_Token], str], *, accepted: bool = False, act: str = mend) -> list[_Case]:
        return [_Case(side, make(token), what, accepted, act) for side, token in zip(sides, tokens, strict=True)]

    control = f"a token signed with {setting}"
    return [
        *shown(
            control,
            lambda token: _signed(token.header, good(token), secret),
            accepted=True,
            act=f"Give {setting} the secret of both sides.",
        ),
        *shown("an expired token", lambda token: _signed(token.header, expired(token), secret)),
        *shown("a forged token", lambda token: _signed(token.header, good(token), other)),
        *shown("a token without a signature", unsigned),
    ]


def _refuse(case: _Case, verdict: Answer) -> None:
    """Raises _Wrong unless the side did with the token what it must."""
    status = _refuse_no_answer(case.side, verdict, case.what)
    if case.accepted and status not in ACCEPTED:
        raise _Wrong(f"{case.side.name} refuses {case.what}: {status}", case.act)
    if not case.accepted and status not in REFUSED:
        does = "accepts" if status in ACCEPTED else "does not refuse"
        raise _Wrong(f"{case.side.name} {does} {case.what}: {status}", case.act)


def _refuse_no_answer(side: _Side, answer: Answer, what: str) -> int:
    """The status. An error of the server is no answer either. Raises _Wrong."""
    act = f"Look whether {side.name} runs, and at its log."
    if answer.status is None:
        raise _Wrong(f"{side.name} {answer.error}", act, CheckState.UNKNOWN)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _Wrong(f"{side.name} answers {answer.status} to {what}", act, CheckState.UNKNOWN)
    return answer.status


def _times(claims: Mapping[str, Any], issued: int, lifetime: int) -> dict[str, int]:
    """The claims of a token that was given at `issued` (Unix time); only those that the real one has, and `exp`."""
    times = {"iat": issued, "nbf": issued, "auth_time": issued}
    return {name: value for name, value in times.items() if name in claims} | {"exp": issued + lifetime}


def _signed(header: Mapping[str, Any], claims: Mapping[str, Any], secret: str) -> str:
    text = f"{_encoded(header)}.{_encoded(claims)}"
    return f"{text}.{_base64(hmac.digest(secret.encode(), text.encode(), 'sha256'))}"


def _encoded(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decoded(part: str) -> dict[str, Any]:
    """Raises ValueError."""
    value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(value, dict):
        raise ValueError
    return value
