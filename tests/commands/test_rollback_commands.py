"""At the shell: a week with what rests on it, the reason afterwards, and tokens."""

from __future__ import annotations

from migrations_app.actions.tokens import find_token
from migrations_app.choices import AuditKind
from migrations_app.models import ApiToken, AuditEvent, Flag
from tests.commands.test_commands import as_json, run
from tests.factories import put_behind


def on_weeks() -> set[int]:
    return set(Flag.objects.filter(weight__gt=0).values_list("week__number", flat=True))


def test_a_week_tells_what_rests_on_it_and_takes_it_along_when_asked(plan):
    put_behind(1, 2, 3)
    status, out, err = run("week", "rollback", "2")
    assert (status, on_weeks()) == (0, {1, 3})
    assert "Week 2 is rolled back. Applied on the gateway in" in out
    assert err == "Week 3 rests on it and is still on. Back too with: manage.py week rollback 2 --with-later\n"
    told = as_json("week", "rollback", "1")
    assert (told["changed"], told["still_on"]) == (True, [3])
    status, out, err = run("week", "rollback", "1", "--with-later")
    assert (status, err, on_weeks()) == (0, "", set())
    assert "Week 1 with what rests on it is rolled back. Applied on the gateway in" in out


def test_the_reason_of_a_rollback_is_given_afterwards(plan, people):
    put_behind(1)
    event = as_json("week", "rollback", "1", "--actor", "release-manager")["event"]
    status, out, _ = run("audit", "reason", str(event), "answers were wrong", "--actor", "release-manager")
    assert (status, out) == (0, f"The reason is kept with event {event}.\n")
    assert AuditEvent.objects.get(kind=AuditKind.REASON_GIVEN).after == {"event": event}
    status, _, err = run("audit", "reason", str(event), "again", "--actor", "release-manager")
    assert status == 2
    assert "said already" in err
    assert run("audit", "reason", "999999", "why")[0] == 2


def test_a_token_is_printed_once_and_listed_without_its_secret(people):
    status, secret, err = run("token", "add", "release-manager", "chat-ops", "--expires", "90d")
    assert status == 0
    assert "shown this once" in err
    token = find_token(secret.strip())
    assert token.account.username == "release-manager"
    assert 89 < (token.expires_at - token.created_at).days <= 90
    (row,) = as_json("token", "list")
    assert (row["id"], row["account"], row["label"], row["state"]) == (token.pk, "release-manager", "chat-ops", "live")
    assert secret.strip() not in run("token", "list")[1]
    assert run("token", "revoke", str(token.pk))[1] == f"Token {token.pk} is revoked.\n"
    assert as_json("token", "revoke", str(token.pk)) == {"changed": False}
    assert as_json("token", "list")[0]["state"] == "revoked"


def test_tokens_that_make_no_sense_are_refused(people):
    assert run("token", "add", "nobody", "x")[0] == 2
    assert run("token", "add", "viewer", "")[0] == 2
    assert run("token", "revoke", "999")[0] == 2
    assert run("token", "list")[1].startswith("There are no tokens.")
    assert not ApiToken.objects.exists()
