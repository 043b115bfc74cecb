"""At the shell: a week with what rests on it, the reason afterwards, and tokens."""

from __future__ import annotations

from collections.abc import Callable

from django.db import OperationalError, connection

from migrations_app.actions.tokens import find_token
from migrations_app.choices import AuditKind
from migrations_app.management.base import NOT_KNOWN
from migrations_app.models import ApiToken, AuditEvent, Flag, Week
from tests.commands.test_commands import as_json, run
from tests.factories import memory_gateway, put_behind


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


def dies_at(word: str) -> Callable[..., object]:
    """For execute_wrapper: the connection breaks, and says nothing of it."""

    def execute(execute, sql, *arguments):
        if word in sql:
            raise OperationalError("")
        return execute(sql, *arguments)

    return execute


def test_a_database_that_dies_after_the_commit_holds_up_no_pass_and_hides_no_answer(plan):
    """What rests on the week is asked for last."""
    put_behind(1, 2)
    with connection.execute_wrapper(dies_at(Week.after.through._meta.db_table)):
        told = as_json("week", "rollback", "1")
    assert (told["changed"], told["confirmed"], told["still_on"]) == (True, True, None)
    assert on_weeks() == {2}
    on = {key for key, weight in memory_gateway().observe().weights.items() if weight}
    assert on == set(Flag.objects.filter(week__number=2).values_list("key", flat=True))


def test_a_connection_that_breaks_midway_is_told_as_such_whatever_it_says(plan):
    with connection.execute_wrapper(dies_at("")):
        status, out, err = run("week", "rollback", "1")
    assert (status, out) == (1, "")
    assert err == f"The database does not answer any more: OperationalError. {NOT_KNOWN}"
