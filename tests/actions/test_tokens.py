"""Tokens of the API: made, found, revoked."""

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.tokens import add_token, digest_of, find_token, note_use, revoke_token
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound, NotPermitted
from migrations_app.models import ApiToken, AuditEvent
from migrations_app.roles import Role

DAY = timedelta(days=1)


@pytest.fixture
def made(people, shell):
    return add_token(account="release-manager", label="chat-ops", actor=shell, expires_in=DAY, reason="for nights")


def test_only_a_digest_of_the_secret_is_kept(made):
    token, secret = made
    assert len(secret) > 40
    row = ApiToken.objects.get()
    assert row.digest == digest_of(secret)
    assert not any(secret in str(value) for value in vars(row).values())
    event = AuditEvent.objects.get(kind=AuditKind.TOKEN_ADDED)
    assert (event.subject, event.reason) == ("account release-manager", "for nights")
    assert event.after == {"token": token.pk, "label": "chat-ops", "expires": row.expires_at.isoformat()}
    assert secret not in str(vars(event))
    assert find_token(secret) == row
    assert find_token(secret[:-1]) is None


def test_two_tokens_are_never_alike(people, shell):
    secrets = {add_token(account="viewer", label="x", actor=shell)[1] for _ in range(20)}
    assert len(secrets) == 20


def test_a_revoked_token_stays_and_is_revoked_once(made, shell):
    token, secret = made
    assert revoke_token(token=token.pk, actor=shell, reason="lost")
    assert find_token(secret).state(timezone.now()) == "revoked"
    assert not revoke_token(token=token.pk, actor=shell)
    assert AuditEvent.objects.filter(kind=AuditKind.TOKEN_REVOKED, reason="lost").count() == 1


def test_a_token_expires(made):
    token, _ = made
    assert token.state(token.created_at + DAY - timedelta(seconds=1)) == "live"
    assert token.state(token.created_at + DAY) == "expired"


def test_its_use_is_kept_to_the_minute_with_one_write_a_minute(made, django_assert_num_queries):
    token, _ = made
    at = timezone.now().replace(second=41)
    note_use(token, at)
    token.refresh_from_db()
    assert token.last_used_at == at.replace(second=0, microsecond=0)
    with django_assert_num_queries(0):
        note_use(token, at.replace(second=59))
    # A process that read the row before another wrote a later minute changes nothing.
    stale = ApiToken(pk=token.pk, last_used_at=None)
    note_use(stale, at - timedelta(minutes=5))
    token.refresh_from_db()
    assert token.last_used_at == at.replace(second=0, microsecond=0)


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.ADMINISTRATOR}))
def test_only_administrators_add_and_revoke(made, people, role):
    with pytest.raises(NotPermitted):
        add_token(account="viewer", label="mine", actor=people[role])
    with pytest.raises(NotPermitted):
        revoke_token(token=made[0].pk, actor=people[role])
    assert ApiToken.objects.filter(revoked_at=None).count() == 1


def test_what_makes_no_sense_is_refused(people, shell):
    with pytest.raises(NotFound, match="no account nobody"):
        add_token(account="nobody", label="x", actor=shell)
    for label in ("", "  ", "x" * 101):
        with pytest.raises(Invalid, match="what the token is for"):
            add_token(account="viewer", label=label, actor=shell)
    with pytest.raises(Invalid, match="expired already"):
        add_token(account="viewer", label="x", actor=shell, expires_in=timedelta(0))
    people[Role.VIEWER].account.is_active = False
    people[Role.VIEWER].account.save()
    with pytest.raises(Invalid, match="not active"):
        add_token(account="viewer", label="x", actor=shell)
    with pytest.raises(NotFound, match="no token 999"):
        revoke_token(token=999, actor=shell)
    assert not ApiToken.objects.exists()
