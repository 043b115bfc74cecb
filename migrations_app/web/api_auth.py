"""Who calls the API: the account of the bearer token. Neither session nor cookie is ever looked at."""

from __future__ import annotations

import logging
from http import HTTPStatus

from django.db import Error, transaction
from django.http import HttpRequest
from django.utils import timezone

from migrations_app.actions.tokens import find_token, note_use
from migrations_app.actor import SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.models import ApiToken
from migrations_app.roles import RoleBackend

from . import throttle
from .accounts import address_of
from .problems import Problem

logger = logging.getLogger(__name__)

WRONG = "an API token"  # the name that failures are counted under: there is no account to count them for
LONGEST = 200  # characters of a token that are looked at


def caller_of(request: HttpRequest) -> tuple[Actor, ApiToken]:
    """The account that the token acts as, with its permissions. Raises Problem: 401, and 429 after many wrong ones.

    Wrong tokens are counted as failed sign-ins are. Unlike a password a token cannot be guessed, so a right one is
    taken whatever else came from its address: somebody's broken script must not hold up a rollback.
    """
    word, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if word.lower() != "bearer" or not secret:
        raise _unknown("Send a token: Authorization: Bearer switchyard_...")
    token = find_token(secret) if len(secret) <= LONGEST else None
    user = RoleBackend().get_user(token.account_id) if token and token.state(timezone.now()) == "live" else None
    if token is None or user is None:
        raise _failed(token, address_of(request))
    return Actor.signed_in(user, via=f"token {token.pk}"), token


def keep_use(token: ApiToken) -> None:
    """Note that it was used. What was asked for is done by now, and does not fail for this."""
    try:
        note_use(token, timezone.now())
    except Error as error:
        logger.warning("the use of token %s could not be noted: %s", token.pk, error)


def _failed(token: ApiToken | None, address: str) -> Problem:
    if wait := max(throttle.wait_for(WRONG, address), throttle.wait_of(address)):
        title, detail = "Too many wrong tokens", f"Too many wrong tokens came from {address}. Wait {wait} s."
        problem = Problem(HTTPStatus.TOO_MANY_REQUESTS, "too-many-wrong-tokens", title, detail)
        problem.headers["Retry-After"] = str(wait)
        return problem
    throttle.failed(WRONG, address)
    subject = f"token {token.pk} of account {token.account.get_username()}" if token else "an unknown token"
    if counted := throttle.to_tell(subject, address):
        with transaction.atomic():
            record(
                AuditKind.SIGN_IN_FAILED,
                actor=SYSTEM,
                subject=subject,
                after={"address": address, **counted},
            )
    # Whether it was revoked, has expired or never was is for the audit log.
    return _unknown("This token opens nothing: it is unknown, revoked or expired, or its account is not active.")


def _unknown(detail: str) -> Problem:
    problem = Problem(HTTPStatus.UNAUTHORIZED, "not-signed-in", "No valid token", detail)
    problem.headers["WWW-Authenticate"] = 'Bearer realm="switchyard"'
    return problem
