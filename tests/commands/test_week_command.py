"""`manage.py week`: what it shows of a gate and a soak, and what it does or refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.choices import Health, Phase
from migrations_app.models import AuditEvent, Flag, HealthState, Override, Plan, Week
from tests.commands.test_commands import as_json, run
from tests.factories import make_healthy, memory_gateway, put_behind, tick_all


@pytest.fixture(autouse=True)
def _confirm_quickly(settings):
    settings.CONFIRM_WITHIN = 0.3


def test_show_tells_the_whole_gate_in_groups_and_why_it_is_closed(plan, shell):
    tick_all(2, shell)
    make_healthy(Health.UNHEALTHY, error="no connection")
    status, out, _ = run("week", "show", "2")
    assert status == 0
    lines = out.splitlines()
    assert lines[:3] == [
        "Week 2: Enable template service",
        "Medium risk, planned",
        "Gate: closed (2 in the way), 2/2 prerequisites",
    ]
    order = lines.index("  Order and freezes: 0/1")
    assert lines[order : order + 7] == [
        "  Order and freezes: 0/1",
        "    [ ] Week 1 has soaked: planned",
        "        needed:  all on and stable for 48 h",
        "        act:     Bring week 1 to the end of its soak.",
        "        who:     release managers",
        "        command: manage.py week show 1",
        "        key:     after-1",
    ]
    assert "    [ ] Template service healthy: unhealthy: no connection" in lines
    assert any(line.startswith("        since:   ") and line.endswith(" ago") for line in lines)
    assert "    [x] Performance has not degraded: signed off by tester" in lines
    assert "Soak: 48 h" in lines
    assert "Done: not yet" in lines
    assert "    [ ] Template traffic is served by the new side.: 0 of 1 flags fully on" in lines
    assert lines[-2:] == ["Flags:", "  USE_TEMPLATE_SERVICE: 0 %"]


def test_show_tells_an_open_gate_and_when_its_lines_end(plan, shell):
    tick_all(1, shell)
    out = run("week", "show", "1")[1]
    assert "Gate: open, " in out
    assert "in the way" not in out


def test_show_as_json_has_the_verdict_of_start_and_of_done(plan):
    shown = as_json("week", "show", "2")
    assert (shown["number"], shown["status"], shown["after"], shown["time_scale"]) == (2, "planned", [1], 1)
    [order] = [line for line in shown["verdict"]["lines"] if line["kind"] == "order"]
    assert (order["key"], order["held"], order["value"]) == ("after-1", False, "planned")
    assert set(order) >= {"limit", "act", "who", "command", "since", "until", "overridden"}
    assert {line["kind"] for line in shown["done_verdict"]["lines"]} == {"soak", "automatic", "health"}
    assert shown["done_verdict"]["open"] is False
    assert shown["soak_seconds"] == 48 * 3600


def test_a_soak_is_told_with_what_is_left_of_it(plan):
    put_behind(1)
    started = timezone.now() - timedelta(hours=12)
    Week.objects.filter(number=1).update(soak_started_at=started)
    rows = {row["number"]: row for row in as_json("week", "list")}
    assert (rows[1]["status"], rows[1]["soak"]) == ("soaking", "12 h of 48 h, 36 h left")
    assert rows[1]["soak_until"][:16] == (started + timedelta(hours=48)).isoformat()[:16]
    assert rows[2]["soak"] == "48 h"
    assert "12 h of 48 h, 36 h left" in run("week", "list")[1]
    assert "Soak: 12 h of 48 h, 36 h left\n" in run("week", "show", "1")[1]
    Week.objects.filter(number=1).update(soak_started_at=None, soak_stopped_because="RAG service was unhealthy")
    assert "Soak: stands: RAG service was unhealthy\n" in run("week", "show", "1")[1]


def test_a_time_scale_is_told(plan):
    Plan.objects.update(time_scale=3600)
    out = run("week", "show", "1")[1]
    assert "takes 3600 times less time" in out
    assert "Soak: 48 s\n" in out


def test_done_is_refused_with_3_until_it_has_soaked_and_its_criteria_hold(plan, shell):
    put_behind(1)
    status, out, err = run("week", "done", "1")
    assert (status, out) == (3, "")
    assert "not signed off" in err
    assert AuditEvent.objects.first().kind == "week.done_refused"
    tick_all(1, shell, phase=Phase.DONE)
    status, out, _ = run("week", "done", "1", "--reason", "nobody noticed", "--actor", "ops")
    assert (status, out) == (0, "Week 1 is done.\n")
    assert Week.objects.get(number=1).status == "done"
    assert run("week", "done", "1")[1] == "Week 1 is done. Nothing had to change.\n"
    out = run("week", "show", "1")[1]
    assert "Soak: over\nDone: by ops, " in out


def test_done_needs_the_permission(plan, people):
    put_behind(1)
    status, _, err = run("week", "done", "1", "--actor", "approver")
    assert status == 3
    assert "approver may not call a week done" in err
    assert Week.objects.get(number=1).status == "soaking"


def test_a_rehearsal_is_confirmed_by_the_gateway_and_moves_nothing(plan):
    before = memory_gateway().observe()
    status, out, _ = run("week", "rehearse", "1", "--reason", "before the weekend")
    assert status == 0
    assert out.startswith("The rollback of week 1 is rehearsed, no traffic was moved. Applied on the gateway in ")
    after = memory_gateway().observe()
    assert (after.generation, after.weights) == (before.generation + 1, before.weights)
    data = as_json("week", "rehearse", "1")
    assert (data["changed"], data["confirmed"], data["generation"]) == (True, True, after.generation + 1)


def test_a_rehearsal_is_refused_and_told(plan, people):
    assert run("week", "rehearse", "6")[0] == 2
    assert run("week", "rehearse", "99")[0] == 2
    status, _, err = run("week", "rehearse", "1", "--actor", "viewer")
    assert (status, "viewer may not rehearse a rollback" in err) == (3, True)
    memory_gateway().refuses = "a regex that it cannot read"
    status, _, err = run("week", "rehearse", "1")
    assert (status, "would not take the routes with the week on: a regex that it cannot read" in err) == (2, True)


def test_a_rehearsal_that_the_gateway_does_not_confirm_is_4(plan):
    memory_gateway().answers = False
    status, out, _ = run("week", "rehearse", "1")
    assert status == 4
    assert "not confirmed by the gateway" in out


def make_healthy_but(target):
    make_healthy()
    HealthState.objects.filter(target=target).update(state=Health.UNHEALTHY, error="no connection")


def test_an_override_names_its_lines_and_opens_the_gate_for_minutes(plan, shell):
    tick_all(1, shell)
    make_healthy_but("rag")
    key = "health-rag"
    status, out, _ = run("week", "override", "1", "--line", key, "--minutes", "10", "--reason", "the wall is on fire")
    assert (status, out) == (0, f"The gate of week 1 is overridden for 10 min: {key}.\n")
    out = run("week", "show", "1")[1]
    assert "Gate: open, " in out
    assert "\n  Overridden by " in out
    assert "the wall is on fire" in out
    assert "    [!] " in out
    assert f"key:     {key} (overridden)" in out
    assert as_json("week", "list")[0]["override"].startswith("Overridden by ")
    assert run("week", "enable", "1")[0] == 0
    assert run("week", "override-end", "1") == (0, "The gate of week 1 is not overridden.\n", "")
    assert "[!]" not in run("week", "show", "1")[1]
    assert run("week", "override-end", "1")[1].endswith("Nothing had to change.\n")


def test_all_blocking_overrides_whatever_blocks_now_and_can_be_prolonged(plan):
    make_healthy(Health.UNHEALTHY, error="no connection")
    ask = ("week", "override", "2", "--line", "all-blocking", "--minutes", "5", "--reason", "the wall is on fire")
    assert run(*ask)[0] == 0
    shown = as_json("week", "show", "2")["verdict"]
    assert shown["open"]
    closed = sorted(line["key"] for line in shown["lines"] if not line["held"])
    assert sorted(Override.objects.get(ended_at=None).lines) == closed
    assert {"after-1", "health-template"} < set(closed)
    assert run(*ask)[0] == 0
    assert Override.objects.filter(ended_at=None).count() == 1
    assert set(Flag.objects.values_list("weight", flat=True)) == {0}


def test_overrides_are_refused_for_want_of_permission_reason_or_sense(plan, people, shell):
    ask = ("week", "override", "1", "--line", "all-blocking", "--minutes", "5")
    status, _, err = run(*ask, "--reason", "now", "--actor", "release-manager")
    assert (status, "release-manager may not override a gate" in err) == (3, True)
    assert run(*ask)[0] == 2
    assert run("week", "override", "1", "--line", "nothing", "--minutes", "5", "--reason", "now")[0] == 2
    assert run("week", "override", "1", "--line", "all-blocking", "--minutes", "9999", "--reason", "now")[0] == 2
    assert run("week", "override", "99", "--line", "all-blocking", "--minutes", "5", "--reason", "now")[0] == 2
    assert run("week", "override-end", "1", "--actor", "viewer")[0] == 3
    tick_all(1, shell)
    status, _, err = run(*ask, "--reason", "now")
    assert (status, err) == (2, "Nothing blocks week 1 now: its gate is open.")
    assert not Override.objects.exists()


def test_a_week_that_moves_no_traffic_is_started_without_waiting_for_the_gateway(plan, shell):
    put_behind(1, 2, 3, 4, 5)
    tick_all(6, shell)
    memory_gateway().answers = False
    status, out, err = run("week", "enable", "6", "--reason", "as planned")
    assert (status, out) == (0, "Week 6 is enabled.\n"), err
    assert "Flags: none, it moves no traffic" in run("week", "show", "6")[1]
