"""`manage.py plan`: its output and its exit status."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from migrations_app.actions.weeks import enable_week
from migrations_app.models import AuditEvent, Plan, Week
from migrations_app.planfile.schema import json_schema
from tests.factories import make_healthy, tick_all

from .samples import SMALL, changed, plan_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(tmp_path):
    """Runs `plan VERB [OPTIONS]` on a file with this text; gives exit status, standard output and standard error."""

    def _run(verb, text=None, *options):
        out, err = io.StringIO(), io.StringIO()
        arguments = [verb]
        if text is not None:
            path = tmp_path / "plan.yaml"
            path.write_text(text)
            arguments.append(str(path))
        try:
            call_command("plan", *arguments, *options, stdout=out, stderr=err)
        except SystemExit as stop:
            return stop.code, out.getvalue(), err.getvalue()
        except CommandError as error:
            return error.returncode, out.getvalue(), f"{err.getvalue()}{error}\n"
        return 0, out.getvalue(), err.getvalue()

    return _run


def test_load_prints_the_difference_and_then_that_nothing_changed(run):
    status, out, _ = run("load", SMALL)
    assert status == 0
    assert out.splitlines()[-1] == "plan small loaded: revision 1, generation 1"
    assert "service 'auth' added" in out
    status, out, _ = run("load", changed(("risk: high", "risk: low")), "--actor", "somebody", "--reason", "because")
    assert out.splitlines()[0] == "week 2: risk 'high' -> 'low'"
    event = AuditEvent.objects.first()
    assert (event.actor, event.actor_kind, event.reason) == ("somebody", "shell", "because")
    status, out, _ = run("load", changed(("risk: high", "risk: low")))
    assert (status, out) == (0, "plan small already loaded, nothing changed: revision 2, generation 1\n")


def test_load_as_json(run):
    _, out, _ = run("load", SMALL, "--json")
    told = json.loads(out)
    assert (told["plan"], told["changed"], told["revision"], told["generation"]) == ("small", True, 1, 1)
    assert "week 1 added" in told["difference"]
    assert json.loads(run("load", SMALL, "--json")[1])["changed"] is False


@pytest.mark.parametrize("verb", ["load", "diff"])
def test_every_problem_goes_to_standard_error_with_status_2(run, tmp_path, verb):
    text = changed(("risk: high", "risk: x"), ("soak: 48h", "soak: x"))
    status, out, err = run(verb, text)
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{tmp_path}/plan.yaml:") for line in lines)
    assert not Plan.objects.exists()
    status, out, _ = run(verb, text, "--json")
    assert [problem["path"] for problem in json.loads(out)["problems"]] == ["weeks[1].soak", "weeks[2].risk"]


def test_a_broken_promise_is_status_3_with_every_conflict(run):
    run("load", SMALL)
    Week.objects.filter(number=1).update(started_at="2026-11-23T12:00:00Z")
    status, out, err = run("load", changed(("risk: low", "risk: high"), ("soak: 48h", "soak: 1h")))
    assert (status, out) == (3, "")
    assert err.splitlines() == [
        "Refused, nothing was loaded:",
        "  - Week 1 has been started: its risk cannot change from low to high.",
        "  - Week 1 has been started: its soak cannot change from 48h to 1h.",
    ]
    status, out, _ = run("load", changed(("risk: low", "risk: high")), "--json")
    assert len(json.loads(out)["conflicts"]) == 1


def test_a_time_scale_is_told_by_every_verb(run):
    status, out, _ = run("load", SMALL, "--time-scale", "3600")
    assert (status, out.splitlines()[-2:]) == (
        0,
        ["time scale 1 -> 3600", "plan small loaded: revision 1, generation 1, time scale 3600"],
    )
    assert json.loads(run("load", SMALL, "--time-scale", "3600", "--json")[1]) == {
        "plan": "small",
        "changed": False,
        "revision": 1,
        "generation": 1,
        "time_scale": 3600,
        "difference": [],
    }
    assert run("diff", SMALL)[:2] == (1, "time scale 3600 -> 1\n")
    assert run("diff", SMALL, "--time-scale", "3600")[:2] == (0, "equal\n")
    exported = run("export")[1]
    assert exported.endswith("\n# Loaded with --time-scale 3600.\n")
    assert plan_of(exported) == plan_of()
    assert json.loads(run("export", None, "--json")[1])["time_scale"] == 3600
    assert run("load", SMALL)[1].splitlines() == [
        "time scale 3600 -> 1",
        "plan small loaded: revision 2, generation 1",
    ]
    assert "time-scale" not in run("export")[1]


@pytest.mark.parametrize("verb", ["load", "diff"])
@pytest.mark.parametrize("scale", ["0", "86401", "-5"])
def test_a_time_scale_out_of_range_is_status_2(run, verb, scale):
    status, out, err = run(verb, SMALL, f"--time-scale={scale}")
    assert (status, out, err) == (2, "", f"A time scale is a whole number from 1 to 86400, not {scale}.\n")
    assert not Plan.objects.exists()


@pytest.mark.parametrize("verb", ["load", "diff"])
def test_production_has_no_time_scale(run, verb, settings):
    settings.PRODUCTION = True
    status, _, err = run(verb, SMALL, "--time-scale", "60")
    assert (status, Plan.objects.count()) == (2, 0)
    assert "in production a soak takes the time that the plan says" in err


def test_another_time_scale_under_a_soaking_week_is_status_3(run, shell):
    run("load", SMALL)
    make_healthy()
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    status, out, err = run("load", SMALL, "--time-scale", "60")
    assert (status, out) == (3, "")
    told = "Week 1 is soaking: the time scale cannot change from 1 to 60 under it."
    told += " Call it done or roll it back first, or keep the scale with --time-scale 1."
    assert err.splitlines() == [
        "Refused, nothing was loaded:",
        f"  - {told}",
    ]
    assert len(json.loads(run("load", SMALL, "--time-scale", "60", "--json")[1])["conflicts"]) == 1


def test_an_account_without_the_permission_is_status_3(run, people):
    status, _, err = run("load", SMALL, "--actor", "support")
    assert status == 3
    assert "support may not load plans" in err


def test_diff_tells_by_its_status_and_changes_nothing(run):
    status, out, _ = run("diff", SMALL)
    assert status == 1
    assert "plan 'small' added" in out
    assert not Plan.objects.exists()
    run("load", SMALL)
    assert run("diff", SMALL)[:2] == (0, "equal\n")
    assert run("diff", changed(("risk: high", "risk: low")))[:2] == (1, "week 2: risk 'high' -> 'low'\n")
    assert json.loads(run("diff", SMALL, "--json")[1]) == {"equal": True, "difference": []}


def test_diff_knows_the_port_offset(run, settings):
    settings.PORT_OFFSET = 20000
    run("load", SMALL)
    assert run("diff", SMALL)[0] == 0


def test_export_prints_a_plan_file_and_needs_a_plan(run):
    status, out, err = run("export")
    assert (status, out) == (2, "")
    assert "No plan is loaded" in err
    run("load", SMALL)
    status, out, _ = run("export")
    assert status == 0
    assert plan_of(out) == plan_of()
    assert json.loads(run("export", None, "--json")[1])["plan"]["key"] == "small"


def test_schema_prints_the_json_schema(run):
    assert run("schema")[:2] == (0, json_schema())
