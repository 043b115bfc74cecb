"""Tokens of the API: add one, revoke one, find the one that was sent."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound
from migrations_app.models import ApiToken
from migrations_app.roles import Permission

PREFIX = "switchyard_"  # whoever finds one in a file can tell what it is
BYTES = 32  # of chance; nobody guesses that
LONGEST_LABEL = 100


def add_token(
    *, account: str, label: str, actor: Actor, expires_in: timedelta | None = None, reason: str = ""
) -> tuple[ApiToken, str]:
    """A token that acts as the account, and its secret, which is kept nowhere. Without `expires_in` it stays for good.

    Raises NotPermitted, NotFound, Invalid.
    """
    actor.require(Permission.MANAGE_ACCOUNTS, "add tokens")
    label = label.strip()
    if not label or len(label) > LONGEST_LABEL:
        raise Invalid(f"Say in 1 to {LONGEST_LABEL} characters what the token is for.", "label")
    now = timezone.now()
    if expires_in is not None and expires_in <= timedelta(0):
        raise Invalid("The token would have expired already.", "expires")
    with transaction.atomic():
        user = User.objects.filter(username=account).first()
        if user is None:
            raise NotFound(f"There is no account {account}. List them with: manage.py account list")
        if not user.is_active:
            raise Invalid(f"The account {account} is not active: its tokens open nothing.", "account")
        secret = PREFIX + secrets.token_urlsafe(BYTES)
        expires_at = None if expires_in is None else now + expires_in
        token = ApiToken.objects.create(
            account=user, label=label, digest=digest_of(secret), created_at=now, expires_at=expires_at
        )
        record(
            AuditKind.TOKEN_ADDED,
            actor=actor,
            subject=f"account {account}",
            reason=reason,
            after={"token": token.pk, "label": label, "expires": expires_at.isoformat() if expires_at else "never"},
        )
        return token, secret


def revoke_token(*, token: int, actor: Actor, reason: str = "") -> bool:
    """It opens nothing from now on; False when it was revoked already. Raises NotPermitted, NotFound."""
    actor.require(Permission.MANAGE_ACCOUNTS, "revoke tokens")
    with transaction.atomic():
        row = ApiToken.objects.select_for_update(of=("self",)).select_related("account").filter(pk=token).first()
        if row is None:
            raise NotFound(f"There is no token {token}. List them with: manage.py token list")
        if row.revoked_at is not None:
            return False
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])
        record(
            AuditKind.TOKEN_REVOKED,
            actor=actor,
            subject=f"account {row.account.get_username()}",
            reason=reason,
            before={"token": row.pk, "label": row.label},
        )
        return True


def find_token(secret: str) -> ApiToken | None:
    """The token of this secret with its account, also one that is revoked or has expired."""
    return ApiToken.objects.select_related("account").filter(digest=digest_of(secret)).first()


def note_use(token: ApiToken, now: datetime) -> None:
    """Keep when it was last used, to the minute: one write a minute, however often it is sent."""
    minute = now.replace(second=0, microsecond=0)
    if token.last_used_at is None or token.last_used_at < minute:
        older = Q(last_used_at__isnull=True) | Q(last_used_at__lt=minute)
        ApiToken.objects.filter(older, pk=token.pk).update(last_used_at=minute)


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
