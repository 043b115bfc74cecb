"""The shell does what the pages do, with exit statuses that scripts can rely on."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from io import StringIO

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection

from migrations_app.actions.evidence import MOST_BYTES
from migrations_app.actor import SYSTEM
from migrations_app.choices import CheckState
from migrations_app.gates.checks import PROBES
from migrations_app.gates.seen import Finding
from migrations_app.models import AuditEvent, CheckResult, Flag, Gateway, Prerequisite, SignOff, Week
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.reader import read_path
from migrations_app.roles import Role
from tests.factories import PLANS, make_healthy, make_people, memory_gateway, put_behind, tick_all


@pytest.fixture(autouse=True)
def _confirm_quickly(settings):
    settings.CONFIRM_WITHIN = 0.3


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


def json_time(moment: datetime) -> str:
    return json.loads(json.dumps(moment, cls=DjangoJSONEncoder))


def test_enable_is_refused_with_3_and_says_what_blocks(plan):
    status, out, err = run("week", "enable", "1")
    assert (status, out) == (3, "")
    assert "Refused: the gate of week 1 is closed." in err
    assert "manage.py prerequisite tick" in err
    status, out, _ = run("week", "enable", "1", "--json")
    assert status == 3
    assert json.loads(out)["verdict"]["progress"].startswith("0/")


def test_tick_enable_and_roll_back_from_the_shell(plan):
    rows = as_json("prerequisite", "list", "--week", "1", "--phase", "start")
    assert rows
    assert all(set(row) >= {"id", "week", "title", "kind", "held"} for row in rows)
    for row in rows:
        assert run("prerequisite", "tick", str(row["id"]), "--reason", "seen")[0] == 0
    assert {row.note for row in SignOff.objects.all()} == {"seen"}
    status, out, _ = run("week", "enable", "1", "--reason", "as planned", "--actor", "ops")
    assert status == 0
    assert out.startswith("Week 1 is enabled. Applied on the gateway in ")
    assert memory_gateway().observe().weights["USE_RAG_SERVICE"] == 100
    event = AuditEvent.objects.get(kind="week.enabled")
    assert (event.actor, event.actor_kind, event.reason) == ("ops", "shell", "as planned")
    data = as_json("week", "rollback", "1")
    assert data["changed"] is True
    assert data["confirmed"] is True
    assert memory_gateway().observe().weights["USE_RAG_SERVICE"] == 0
    assert run("prerequisite", "untick", str(rows[0]["id"]))[0] == 0
    assert not as_json("prerequisite", "list", "--week", "1", "--phase", "start")[0]["held"]


def test_the_list_has_what_a_week_starts_with_and_what_it_is_done_with(plan, shell):
    rows = as_json("prerequisite", "list", "--week", "1")
    assert [row["phase"] for row in rows] == sorted((row["phase"] for row in rows), reverse=True)
    assert {row["phase"] for row in rows} == {"start", "done"}
    assert {"id", "week", "title", "kind", "held"} <= set(rows[0])
    done = as_json("prerequisite", "list", "--week", "1", "--phase", "done")
    assert [row["id"] for row in done] == [row["id"] for row in rows if row["phase"] == "done"]
    everything = as_json("prerequisite", "list")
    assert len(everything) == Prerequisite.objects.count()
    assert [row["week"] for row in everything] == sorted(row["week"] for row in everything)
    heading = run("prerequisite", "list")[1].splitlines()[0].split()
    assert heading == ["id", "week", "phase", "held", "kind", "title", "value", "limit", "expires", "checked"]


def test_the_list_tells_when_a_sign_off_ends_and_when_a_line_was_checked(plan, shell, monkeypatch):
    monkeypatch.setitem(PROBES, "probe", lambda *_: Finding(CheckState.HELD, "12 of 12", "12 of 12"))
    week = Week.objects.get(number=1)
    row = Prerequisite.objects.create(week=week, key="p", title="P", kind="automatic", check_name="probe", position=9)
    Prerequisite.objects.filter(week=week, phase="start", kind="manual").update(valid_for=timedelta(hours=4))
    tick_all(1, shell)
    *_, manual, automatic = as_json("prerequisite", "list", "--week", "1", "--phase", "start")
    sign_off = SignOff.objects.get(prerequisite=manual["id"])
    assert (manual["expires"], manual["checked"]) == (json_time(sign_off.expires_at), None)
    assert (automatic["held"], automatic["checked"]) == (False, None)
    assert run("prerequisite", "check", str(row.pk))[0] == 0
    *_, automatic = as_json("prerequisite", "list", "--week", "1", "--phase", "start")
    assert (automatic["held"], automatic["value"], automatic["limit"]) == (True, "12 of 12", "12 of 12")
    assert automatic["checked"] == json_time(CheckResult.objects.get().checked_at)


def test_a_tick_takes_a_link_and_a_file(plan, tmp_path):
    rows = as_json("prerequisite", "list", "--week", "3", "--phase", "start")
    dump = tmp_path / "dump of Monday.log"
    dump.write_text("1.2 GB written\n")
    link = "https://wiki.example.org/backup"
    first = str(rows[0]["id"])
    status, out, _ = run("prerequisite", "tick", first, "--link", link, "--file", str(dump), "--reason", "seen")
    assert (status, out) == (0, f"Prerequisite {first} is ticked.\n")
    row = SignOff.objects.get()
    assert (row.note, row.link, row.evidence.name) == ("seen", link, "dump of Monday.log")
    assert bytes(row.evidence.content) == b"1.2 GB written\n"


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("--link", "javascript:alert(1)", "Link: it must be an address that begins with https:// or http://."),
        ("--file", "page.html", "Evidence: “page.html” is not a PNG or JPEG picture"),
        ("--file", "big.txt", "Evidence: the file is larger than 5 MB."),
        ("--file", "missing.txt", "missing.txt: No such file or directory"),
        ("--file", "", "Is a directory"),
    ],
)
def test_what_is_no_evidence_is_2_and_the_line_stays_open(plan, tmp_path, option, given, said):
    (tmp_path / "page.html").write_text("<script>alert(1)</script>")
    (tmp_path / "big.txt").write_bytes(b"x" * (MOST_BYTES + 1))
    value = str(tmp_path / given) if option == "--file" else given
    row = Prerequisite.objects.filter(week__number=3, phase="start", kind="manual").first()
    status, _, err = run("prerequisite", "tick", str(row.pk), option, value)
    assert status == 2
    assert said in err
    assert not SignOff.objects.exists()


@pytest.mark.parametrize(
    ("state", "status", "word"),
    [(CheckState.HELD, 0, "held"), (CheckState.NOT_HELD, 3, "not held"), (CheckState.UNKNOWN, 3, "unknown")],
)
def test_a_check_leaves_with_0_when_it_holds_and_3_when_it_does_not_or_nobody_can_tell(
    plan, monkeypatch, state, status, word
):
    finding = Finding(state, "11 of 12", "12 of 12", "Copy the last one.")
    monkeypatch.setitem(PROBES, "probe", lambda *_: finding)
    week = Week.objects.get(number=1)
    row = Prerequisite.objects.create(week=week, key="p", title="P", kind="automatic", check_name="probe")
    left, out, _ = run("prerequisite", "check", str(row.pk), "--actor", "ops")
    assert left == status
    first, *more = out.splitlines()
    assert first == f"Prerequisite {row.pk} is {word}: 11 of 12 (limit: 12 of 12)."
    assert more == ([] if state == CheckState.HELD else ["Copy the last one."])
    event = AuditEvent.objects.get(kind="prerequisite.checked")
    assert (event.actor, event.after["state"]) == ("ops", state.value)
    left, out, _ = run("prerequisite", "check", str(row.pk), "--json")
    told = json.loads(out)
    assert left == status
    assert (told["id"], told["held"], told["state"], told["value"]) == (row.pk, status == 0, state.value, "11 of 12")


def test_only_automatic_lines_are_checked_and_only_by_those_who_may(plan, people):
    manual = Prerequisite.objects.filter(kind="manual").first()
    status, _, err = run("prerequisite", "check", str(manual.pk))
    assert status == 2
    assert "signed off by a person" in err
    automatic = Prerequisite.objects.filter(kind="automatic").first()
    status, _, err = run("prerequisite", "check", str(automatic.pk), "--actor", "support")
    assert status == 3
    assert "support may not run checks" in err
    assert run("prerequisite", "check", "999999")[0] == 2


def test_a_week_that_moves_no_traffic_is_refused_and_started_from_the_shell(plan, shell):
    assert run("week", "enable", "6")[0] == 3
    put_behind(1, 2, 3, 4, 5)
    tick_all(6, shell)
    assert run("week", "enable", "6")[0] == 0
    assert Week.objects.get(number=6).status == "soaking"


def test_stored_but_not_confirmed_is_4(plan, shell):
    tick_all(1, shell)
    memory_gateway().answers = False
    status, out, _ = run("flag", "set", "USE_RAG_SERVICE", "100")
    assert status == 4
    assert "not confirmed by the gateway" in out
    assert "manage.py reconcile" in out
    assert Flag.objects.get(key="USE_RAG_SERVICE").weight == 100
    memory_gateway().answers = True
    assert run("reconcile") == (0, f"Gateway main runs generation {Gateway.objects.get().plan.generation}.\n", "")


def test_an_account_is_held_to_its_permissions_with_3(plan, people):
    status, _, err = run("week", "rollback", "1", "--actor", "support")
    assert status == 3
    assert "support may not roll back" in err
    User.objects.filter(username="release-manager").update(is_active=False)
    assert run("week", "rollback", "1", "--actor", "release-manager")[0] == 3
    assert run("week", "rollback", "1", "--actor", "approver")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("week", "enable", "99"),
        ("week", "show", "99"),
        ("flag", "set", "USE_RAG_SERVICE", "101"),
        ("flag", "rollback", "USE_NOTHING"),
        ("prerequisite", "tick", "999999"),
        ("prerequisite", "untick", "999999"),
        ("prerequisite", "check", "999999"),
    ],
)
def test_nonsense_is_2_with_a_sentence(plan, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.endswith((".", "list"))


def test_weeks_and_flags_are_listed_as_table_and_as_json(plan, shell):
    tick_all(1, shell)
    run("flag", "set", "USE_RAG_SERVICE", "30")
    weeks = as_json("week", "list")
    assert [row["number"] for row in weeks] == [1, 2, 3, 4, 5, 6]
    assert weeks[0]["flags"]["USE_RAG_SERVICE"] == 30
    assert weeks[0]["applied"] is True
    flags = {row["key"]: row for row in as_json("flag", "list")}
    assert flags["USE_RAG_SERVICE"]["running"] == [30]
    assert flags["USE_RAG_SERVICE"]["prefixes"] == ["/api/rag"]
    assert "Enable auth service" in run("week", "list")[1]
    assert "USE_AUTH_SERVICE" in run("flag", "list")[1]
    shown = as_json("week", "show", "3")
    assert {"support-standby", "after-2", "health-auth"} <= {line["key"] for line in shown["verdict"]["lines"]}
    assert "[ ] " in run("week", "show", "3")[1]


def test_the_audit_log_is_listed_and_verified(plan, shell):
    tick_all(1, shell)
    run("week", "enable", "1")
    rows = as_json("audit", "list", "--limit", "2")
    assert [row["kind"] for row in rows] == ["week.enabled", "prerequisite.ticked"]
    assert rows[0]["verified_at"] is not None
    assert [row["kind"] for row in as_json("audit", "list", "--kind", "plan.loaded")] == ["plan.loaded"]
    status, out, _ = run("audit", "verify")
    assert status == 0
    head = AuditEvent.objects.latest("id").digest
    assert out.endswith(f" events, the chain is intact. Its head: {head}\n")
    assert run("week", "rollback", "1", "--reason", "ho\nt \x1b[2J\u202e", "--actor", "anna")[0] == 0
    assert re.search(r"anna +shell +shell \S+ +week 1 +ho\?t \?\[2J\?\n", run("audit", "list")[1])
    status, out, _ = run("audit", "list", "--limit", "1", "--json")
    assert "ho\\nt \\u001b[2J\\u202e" in out
    assert (json.loads(out)[0]["reason"], json.loads(out)[0]["actor_kind"]) == ("ho\nt \x1b[2J\u202e", "shell")
    assert as_json("audit", "verify", "--head", head.upper())["intact"]
    status, _, err = run("audit", "verify", "--head", "0" * 64)
    assert (status, err.splitlines()[1]) == (1, f"  - the event of the digest {'0' * 64}")


def test_ready_names_what_does_not_answer(plan):
    assert run("ready")[0] == 0
    make_healthy("unhealthy", error="no connection")
    status, _, err = run("ready")
    assert status == 1
    assert "auth is unhealthy: no connection" in err


def test_demo_accounts_are_one_for_each_role_and_never_in_production(db, settings, monkeypatch):
    monkeypatch.setenv("DEMO_PASSWORD", "a long demo password")
    status, out, _ = run("demo_accounts")
    assert status == 0
    assert out.count("a long demo password") == len(Role)
    manager = User.objects.get(username="release-manager")
    assert manager.check_password("a long demo password")
    assert manager.has_perm("migrations_app.enable_week")
    assert run("demo_accounts")[1] == out
    settings.PRODUCTION = True
    assert run("demo_accounts")[0] == 1


def test_empty_states_say_what_to_do(db):
    assert "plan load" in run("week", "list")[1]
    assert run("ready")[0] == 1
    assert "No plan is loaded" in run("reconcile")[1]
    make_people()
    assert not Prerequisite.objects.exists()
    assert "no prerequisites" in run("prerequisite", "list")[1]


def test_accounts_are_added_listed_and_deactivated(db, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO("a password from a pipe\n"))
    assert run("account", "add", "rita", "release-manager") == (0, "rita is added as release manager.\n", "")
    assert User.objects.get(username="rita").check_password("a password from a pipe")
    assert run("account", "role", "rita", "approver")[1] == "rita is approver.\n"
    assert run("account", "deactivate", "rita")[0] == 0
    assert as_json("account", "list") == [
        {"name": "rita", "roles": ["approver"], "active": False, "last_sign_in": None}
    ]


def test_a_plan_with_a_week_that_has_nothing_to_check_is_listed(db):
    load_plan(read_path(PLANS / "nanopore.yaml"), actor=SYSTEM)
    rows = as_json("week", "list")
    assert any(row["progress"] == "0/0" and not row["flags"] for row in rows)


def test_a_reason_in_another_encoding_does_not_hold_up_a_rollback(plan, shell):
    tick_all(1, shell)
    assert run("week", "enable", "1")[0] == 0
    assert run("week", "rollback", "1", "--reason", "kaputt \udcfc")[0] == 0
    assert AuditEvent.objects.first().reason == "kaputt ?"


def test_a_user_without_a_name_can_roll_back(plan, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: {}["uid"])
    assert run("week", "rollback", "1")[0] == 0


@pytest.mark.django_db(transaction=True)
def test_a_plan_that_another_change_holds_is_told_in_one_sentence():
    load_plan(read_path(PLANS / "tracseq-phase2.yaml"), actor=SYSTEM)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("SELECT 1 FROM migrations_app_plan FOR UPDATE")
        status, _, said = run("week", "rollback", "1")
    assert status == 1
    assert said == "Another change has held the plan for too long. Nothing was done; try again at once."
