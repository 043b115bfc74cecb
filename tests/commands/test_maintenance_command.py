"""Maintenance windows from the shell: planned, listed, ended; the same permissions and refusals as in the browser."""

from __future__ import annotations

from datetime import datetime

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command

from migrations_app.models import AuditEvent, MaintenanceWindow, Plan
from migrations_app.roles import Role
from tests.commands.test_approval_and_freeze import as_json, run

TIMES = ("--from", "2026-12-20T18:00", "--until", "2026-12-20T20:00")
AUTH = ("--target", "auth")


@pytest.fixture(autouse=True)
def _scene(plan, time_machine):
    """An account for each role, by the name of the role, on a day before that of `TIMES`."""
    for role in Role:
        User.objects.create_user(role.value.replace(" ", "-")).groups.add(Group.objects.get(name=role.value))
    time_machine.move_to(datetime.fromisoformat("2026-11-24T12:00+00:00"), tick=False)


def test_a_window_is_planned_listed_ended_and_listed_no_more(time_machine):
    assert run("maintenance", "list")[1] == "No maintenance is planned, now or later.\n"
    arguments = ("new disks", *TIMES, *AUTH, "--target", "monolith", "--zone", "Europe/Berlin")
    status, out, _ = run("maintenance", "plan", *arguments, "--actor", "release-manager", "--reason", "they are full")
    assert (status, out) == (0, "The maintenance “new disks” is planned.\n")
    row = MaintenanceWindow.objects.get()
    assert (row.starts_at.isoformat(), row.ends_at.isoformat()) == (
        "2026-12-20T17:00:00+00:00",
        "2026-12-20T19:00:00+00:00",
    )
    assert AuditEvent.objects.first().reason == "they are full"
    assert run("maintenance", "plan", *arguments)[1] == (
        "The maintenance “new disks” is planned. Nothing had to change.\n"
    )
    (shown,) = as_json("maintenance", "list")
    assert (shown["state"], shown["targets"], shown["planned_by"]) == (
        "to come",
        ["auth", "monolith"],
        "release-manager",
    )
    time_machine.move_to(row.starts_at, tick=False)
    header, line = run("maintenance", "list")[1].splitlines()
    assert header.split() == ["id", "title", "state", "starts", "at", "until", "targets", "planned", "by"]
    assert "new disks  on " in line
    assert run("maintenance", "end", str(row.pk))[1] == "The maintenance “new disks” is cancelled.\n"
    assert as_json("maintenance", "list") == []
    assert [one["state"] for one in as_json("maintenance", "list", "--all")] == ["cancelled"]


def test_one_that_is_on_is_ended_and_is_over(time_machine):
    assert run("maintenance", "plan", "new disks", "--until", "2026-11-24T14:00", "--everything")[0] == 0
    row = MaintenanceWindow.objects.get()
    assert row.starts_at.isoformat() == "2026-11-24T12:00:00+00:00"
    assert len(row.targets) == 11
    time_machine.move_to(datetime.fromisoformat("2026-11-24T13:00+00:00"), tick=False)
    assert [one["state"] for one in as_json("maintenance", "list")] == ["on"]
    assert run("maintenance", "end", str(row.pk), "--reason", "done")[1] == "The maintenance “new disks” is ended.\n"
    assert run("maintenance", "end", str(row.pk))[1] == (
        "The maintenance “new disks” is ended. Nothing had to change.\n"
    )
    (shown,) = as_json("maintenance", "list", "--all")
    assert (shown["state"], shown["until"]) == ("over", "2026-11-24T13:00:00Z")


def test_times_are_of_the_plans_zone_unless_they_name_another():
    Plan.objects.update(timezone="Asia/Tokyo")
    assert run("maintenance", "plan", "here", *TIMES, *AUTH)[0] == 0
    begin, end = "2026-12-20T18:00+05:00", "2026-12-21T00:00Z"
    assert run("maintenance", "plan", "there", "--from", begin, "--until", end, *AUTH)[0] == 0
    begins = {row.title: row.starts_at.isoformat() for row in MaintenanceWindow.objects.all()}
    assert begins == {"here": "2026-12-20T09:00:00+00:00", "there": "2026-12-20T13:00:00+00:00"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("plan", "x", *TIMES, *AUTH, "--actor", "support"), 3, "support may not plan maintenance"),
        (("end", "4711", "--actor", "approver"), 3, "approver may not end maintenance"),
        (("end", "4711"), 2, "There is no window 4711."),
        (("plan", " ", *TIMES, *AUTH), 2, "title: say what is being done."),
        (("plan", "x", *TIMES, "--target", "nothing"), 2, "targets: the plan has no service nothing."),
        (("plan", "x", "--from", "yesterday", "--until", "2026-12-20T18:00", *AUTH), 2, "--from: yesterday is no date"),
        (("plan", "x", "--until", "2026-02-30", *AUTH), 2, "--until: 2026-02-30 is no date"),
        (("plan", "x", "--from", "2020-01-01", "--until", "2026-12-20", *AUTH), 2, "2020-01-01 is more than"),
        (("plan", "x", "--from", "2026-11-24T11", "--until", "2026-12-20", *AUTH), 2, "be planned for the past"),
        (("plan", "x", *TIMES, *AUTH, "--zone", "Mars/Olympus"), 2, "--zone: Mars/Olympus is no time zone"),
    ],
)
def test_what_is_refused_leaves_with_a_status_and_a_sentence(arguments, status, said):
    found, _, err = run("maintenance", *arguments)
    assert found == status
    assert said in err
    assert not MaintenanceWindow.objects.exists()


@pytest.mark.parametrize("targets", [(), (*AUTH, "--everything")])
def test_what_is_maintained_is_said_one_way(targets):
    with pytest.raises(CommandError, match="--everything"):
        call_command("maintenance", "plan", "x", *TIMES, *targets)
