"""Approvals and freezes from the shell: same permissions, same refusals, exit statuses that scripts can rely on."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.utils import timezone

from migrations_app.models import ApprovalRequest, AuditEvent, Freeze, Plan
from migrations_app.roles import Role
from tests.factories import make_healthy, put_behind, tick_all

CORE = ["USE_SAMPLE_SERVICE", "USE_SEQUENCING_SERVICE"]


@pytest.fixture(autouse=True)
def _accounts(plan):
    """An account for each role, by the name of the role. Nobody signs in here, so nobody has a password."""
    for role in Role:
        User.objects.create_user(role.value.replace(" ", "-")).groups.add(Group.objects.get(name=role.value))


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    out, err = StringIO(), StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=err)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    except CommandError as error:
        return error.returncode, out.getvalue(), f"{err.getvalue()}{error}"
    return 0, out.getvalue(), err.getvalue()


def as_json(*arguments: str):
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def state(week: int) -> list[tuple[str, str]]:
    return [(row["state"], row["why"]) for row in as_json("approval", "list", "--week", str(week))]


def test_a_week_is_asked_for_approved_and_enabled_from_the_shell(shell):
    put_behind(1, 2)
    tick_all(3, shell)
    assert run("week", "enable", "3", "--reason", "as planned")[0] == 3
    status, out, _ = run("approval", "request", "3", "--actor", "release-manager", "--reason", "as planned")
    assert (status, out) == (0, "Approval of week 3 is asked for.\n")
    (row,) = as_json("approval", "list")
    assert (row["week"], row["flags"], row["weight"]) == (3, ["USE_AUTH_SERVICE"], 100)
    assert (row["asked_by"], row["reason"], row["approved_by"]) == ("release-manager", "as planned", [])
    assert state(3) == [("open", "0 of 1, asked for by release-manager")]
    number = str(row["id"])
    status, out, _ = run("approval", "give", number, "--actor", "approver", "--reason", "read it")
    assert (status, out) == (0, f"Request {number} is approved by approver.\n")
    assert state(3) == [("approved", "1 of 1: approver")]
    assert as_json("approval", "list")[0]["approved_by"] == ["approver"]
    make_healthy()
    status, _, err = run("week", "enable", "3", "--reason", "as planned", "--actor", "release-manager")
    assert status == 0, err
    assert state(3) == [("used", "the change was made")]


def test_some_flags_of_a_week_are_asked_for_by_name():
    data = as_json("approval", "request", "4", "--flag", CORE[1], "--flag", CORE[0], "--actor", "release-manager")
    assert data["changed"] is True
    assert data["event"] == AuditEvent.objects.first().pk
    assert as_json("approval", "request", "4")["changed"] is False
    assert run("approval", "request", "4", "--flag", CORE[0])[1] == "Approval of week 4 is asked for.\n"
    assert sorted(row["flags"] for row in as_json("approval", "list", "--week", "4")) == [CORE[:1], CORE]
    assert state(3) == []


def test_a_request_is_declined_withdrawn_and_asked_for_anew():
    run("approval", "request", "3", "--actor", "release-manager")
    first = str(ApprovalRequest.objects.get().pk)
    assert run("approval", "decline", first, "--actor", "approver")[0] == 2
    status, out, _ = run("approval", "decline", first, "--actor", "approver", "--reason", "not on a Friday")
    assert (status, out) == (0, f"Request {first} is declined.\n")
    assert state(3) == [("closed", "declined by approver: not on a Friday")]
    run("approval", "request", "3", "--actor", "release-manager")
    second = str(ApprovalRequest.objects.get(closed_at=None).pk)
    assert run("approval", "give", second, "--actor", "approver")[0] == 0
    assert run("approval", "withdraw", second, "--actor", "approver")[1] == f"Withdrawn from request {second}.\n"
    assert state(3)[0] == ("open", "0 of 1, asked for by release-manager")
    assert run("approval", "withdraw", second, "--actor", "release-manager")[0] == 0
    assert "Nothing had to change." in run("approval", "withdraw", second, "--actor", "release-manager")[1]
    assert state(3)[0] == ("closed", "withdrawn by release-manager")
    assert [row["id"] for row in as_json("approval", "list", "--limit", "1")] == [int(second)]


def test_requests_are_listed_as_a_table_with_what_came_of_them():
    assert run("approval", "list")[1] == "Nobody has asked for approval. Ask with: manage.py approval request N\n"
    run("approval", "request", "3", "--actor", "release-manager")
    Plan.objects.update(revision=2)
    header, line = run("approval", "list")[1].splitlines()
    assert header.split() == ["id", "week", "flags", "weight", "asked", "by", "state", "why", "expires", "at"]
    assert "USE_AUTH_SERVICE  100     release-manager  void   it was asked for revision 1 of the plan" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("approval", "request", "3", "--actor", "approver"), "approver may not ask for approval"),
        (("approval", "give", "ID", "--actor", "release-manager"), "release-manager may not approve changes"),
        (("approval", "give", "ID", "--actor", "somebody"), "somebody is no account, and only accounts approve"),
        (("approval", "decline", "ID", "--actor", "support", "--reason", "x"), "support may not approve changes"),
        (("approval", "withdraw", "ID", "--actor", "administrator"), "neither asked for it nor approved it"),
        (
            ("freeze", "add", "x", "--from", "2099-01-01", "--until", "2099-01-02", "--actor", "support"),
            "may not freeze",
        ),
        (("freeze", "lift", "4711", "--actor", "approver"), "approver may not lift freezes"),
    ],
)
def test_whoever_may_not_is_refused_with_3(arguments, said):
    run("approval", "request", "3", "--actor", "release-manager")
    number = str(ApprovalRequest.objects.get().pk)
    status, out, err = run(*(number if argument == "ID" else argument for argument in arguments))
    assert (status, out) == (3, "")
    assert said in err
    assert ApprovalRequest.objects.get().closed_at is None


def test_a_refusal_as_json_says_why():
    run("approval", "request", "3", "--actor", "release-manager")
    number = str(ApprovalRequest.objects.get().pk)
    User.objects.get(username="release-manager").groups.add(Group.objects.get(name=Role.APPROVER))
    status, out, _ = run("approval", "give", number, "--actor", "release-manager", "--json")
    assert status == 3
    data = json.loads(out)
    assert (data["changed"], data["verdict"]) == (False, None)
    assert data["error"] == "release-manager has asked for it; somebody else must approve it."
    assert AuditEvent.objects.first().kind == "action.refused"


@pytest.mark.parametrize(
    "arguments",
    [
        ("approval", "request", "99"),
        ("approval", "request", "1"),
        ("approval", "request", "3", "--flag", "USE_NOTHING"),
        ("approval", "give", "4711", "--actor", "approver"),
        ("freeze", "lift", "4711"),
        ("freeze", "add", " ", "--from", "2099-01-01", "--until", "2099-01-02"),
        ("freeze", "add", "x", "--from", "yesterday", "--until", "2099-01-02"),
        ("freeze", "add", "x", "--from", "2026-01-01", "--until", "2026-02-30"),
        ("freeze", "add", "x", "--from", "2020-01-01", "--until", "2020-01-02"),
        ("freeze", "add", "x", "--from", "2020-01-01", "--until", "2020-01-02", "--zone", "Mars/Olympus"),
        ("freeze", "add", "x", "--from", "18:00", "--until", "25:00", "--weekdays", "mon"),
        ("freeze", "add", "x", "--from", "2099-01-01", "--until", "08:00", "--weekdays", "mon"),
        ("freeze", "add", "x", "--from", "18:00", "--until", "08:00", "--weekdays", "mon", "--zone", "Mars/Olympus"),
        *(
            ("freeze", "add", "x", "--from", "18:00", "--until", "08:00", f"--weekdays={days}")
            for days in ("mo", "mon-", "-fri", "mon,,tue", "mon-tue-wed", "8", "0", ",")
        ),
    ],
)
def test_nonsense_is_2_with_a_sentence(arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.endswith((".", " list"))
    assert not Freeze.objects.exists()
    assert not ApprovalRequest.objects.exists()


def test_a_freeze_of_every_week_is_added_listed_and_lifted(time_machine):
    arguments = ("--weekdays", "mon-fri", "--from", "18:00", "--until", "08:00", "--zone", "Europe/Berlin")
    status, out, _ = run("freeze", "add", "nights", *arguments, "--actor", "release-manager", "--reason", "on call")
    assert (status, out) == (0, "The freeze “nights” is set.\n")
    row = Freeze.objects.get()
    assert (row.weekdays, str(row.from_time), str(row.until_time)) == ("12345", "18:00:00", "08:00:00")
    assert (row.timezone, row.added_by) == ("Europe/Berlin", "release-manager")
    assert AuditEvent.objects.first().reason == "on call"
    time_machine.move_to("2026-11-24T20:00:00+01:00", tick=False)
    (shown,) = as_json("freeze", "list")
    assert (shown["state"], shown["when"]) == ("on", "mon,tue,wed,thu,fri 18:00 to 08:00")
    assert (shown["since"], shown["until"]) == ("2026-11-24T17:00:00Z", "2026-11-25T07:00:00Z")
    time_machine.move_to("2026-11-24T12:00:00+01:00", tick=False)
    header, line = run("freeze", "list")[1].splitlines()
    assert header.split() == ["id", "title", "state", "when", "timezone", "until", "added", "by"]
    assert "to come  mon,tue,wed,thu,fri 18:00 to 08:00  Europe/Berlin  -" in line
    assert run("freeze", "lift", str(row.pk))[1] == "The freeze “nights” is lifted.\n"
    assert run("freeze", "lift", str(row.pk))[1] == "The freeze “nights” is lifted. Nothing had to change.\n"
    assert run("freeze", "list")[1] == "Nothing is frozen, now or later.\n"
    assert [shown["state"] for shown in as_json("freeze", "list", "--all")] == ["lifted"]


def test_a_freeze_from_a_date_to_a_date_is_in_the_zone_that_is_named_or_the_plans(time_machine):
    time_machine.move_to("2026-12-01T12:00:00+00:00", tick=False)
    times = ("--from", "2026-12-20T18:00", "--until", "2027-01-04")
    assert as_json("freeze", "add", "holidays", *times, "--zone", "America/New_York")["changed"] is True
    Plan.objects.update(timezone="Asia/Tokyo")
    assert run("freeze", "add", "audit", *times)[0] == 0
    assert run("freeze", "add", "release", "--from", "2026-12-20T18:00+05:00", "--until", "2027-01-04T00:00Z")[0] == 0
    begins = {row.title: row.starts_at.isoformat() for row in Freeze.objects.all()}
    assert begins == {
        "holidays": "2026-12-20T23:00:00+00:00",
        "audit": "2026-12-20T09:00:00+00:00",
        "release": "2026-12-20T13:00:00+00:00",
    }
    rows = {row["title"]: row for row in as_json("freeze", "list")}
    assert rows["holidays"]["when"] == "2026-12-20 18:00 to 2027-01-04 00:00"
    assert rows["audit"]["timezone"] == "Asia/Tokyo"
    time_machine.move_to("2027-02-01T12:00:00+00:00", tick=False)
    assert as_json("freeze", "list") == []
    assert {row["state"] for row in as_json("freeze", "list", "--all")} == {"over"}


@pytest.mark.parametrize(
    ("typed", "digits"),
    [
        ("mon", "1"),
        ("Sat, Sun", "67"),
        ("fri-mon", "1567"),
        ("mon-fri,sun", "123457"),
        ("mon-sun", "1234567"),
        ("tue-tue", "2"),
        ("31", "13"),
    ],
)
def test_days_are_typed_as_people_write_them(typed, digits):
    assert run("freeze", "add", "x", "--from", "18:00", "--until", "20:00", "--weekdays", typed)[0] == 0
    assert Freeze.objects.get().weekdays == digits


def test_a_freeze_that_is_on_refuses_an_enable_from_the_shell_and_no_rollback(shell):
    tick_all(1, shell)
    make_healthy()
    assert run("week", "enable", "1")[0] == 0
    begin = timezone.now() - timedelta(hours=1)
    run("freeze", "add", "stop", "--from", begin.isoformat(), "--until", (begin + timedelta(hours=9)).isoformat())
    assert run("week", "rollback", "1")[0] == 0
    make_healthy()
    status, _, err = run("week", "enable", "1")
    assert status == 3
    assert "No freeze: stop: frozen" in err
