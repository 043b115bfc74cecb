"""One check now, because somebody asks."""

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from migrations_app.actions.checks import check_now
from migrations_app.choices import AuditKind, CheckState, Health, Phase, PrerequisiteKind
from migrations_app.errors import Busy, Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.checks import PROBES
from migrations_app.gates.load import verdicts
from migrations_app.gates.seen import Finding
from migrations_app.models import AuditEvent, CheckResult, Prerequisite, Week
from migrations_app.observe.checks import run_checks, store
from migrations_app.roles import MATRIX, Permission, Role
from tests.factories import load_tracseq, make_healthy, put_behind

HELD = Finding(CheckState.HELD, "12 of 12", "12 of 12")
NOT_HELD = Finding(CheckState.NOT_HELD, "11 of 12", "12 of 12", "Copy the last one.")


def make_line(check: str, **parameters) -> Prerequisite:
    return Prerequisite.objects.create(
        week=Week.objects.get(number=4),
        key="auto",
        title="Automatic",
        kind=PrerequisiteKind.AUTOMATIC,
        check_name=check,
        parameters=parameters,
    )


@pytest.fixture
def probe(plan, monkeypatch):
    """A line of week 4 whose check finds what the test says."""

    def make(finding: Finding) -> Prerequisite:
        monkeypatch.setitem(PROBES, "probe", lambda _parameters, _scene: finding)
        return Prerequisite.objects.filter(check_name="probe").first() or make_line("probe")

    return make


def test_a_click_runs_the_check_keeps_the_result_and_is_an_event(probe, people):
    row = probe(NOT_HELD)
    result = check_now(prerequisite_id=row.pk, actor=people[Role.RELEASE_MANAGER])
    assert CheckResult.objects.get().pk == result.pk
    assert (result.state, result.value) == (CheckState.NOT_HELD, "11 of 12")
    event = AuditEvent.objects.first()
    assert (event.kind, event.actor, event.subject) == (
        AuditKind.PREREQUISITE_CHECKED,
        "release-manager",
        "week 4 / auto",
    )
    assert event.before == {}
    assert event.after == {"state": "not_held", "value": "11 of 12", "limit": "12 of 12"}
    probe(HELD)
    assert check_now(prerequisite_id=row.pk, actor=people[Role.RELEASE_MANAGER]).state == CheckState.HELD
    assert AuditEvent.objects.first().before == {"state": "not_held", "value": "11 of 12"}


def test_the_schedule_is_no_event(probe):
    probe(HELD)
    events = AuditEvent.objects.count()
    run_checks()
    assert CheckResult.objects.filter(prerequisite__key="auto", state=CheckState.HELD).exists()
    assert AuditEvent.objects.count() == events


def test_a_check_makes_no_page_of_the_week_old(probe, shell):
    row, version = probe(HELD), Week.objects.get(number=4).version
    check_now(prerequisite_id=row.pk, actor=shell)
    assert Week.objects.get(number=4).version == version


def test_an_instant_check_answers_with_what_is_so_now_and_keeps_nothing(plan, shell):
    row = make_line("flags_on", weeks=[1])
    result = check_now(prerequisite_id=row.pk, actor=shell)
    assert (result.state, result.value, result.limit) == (CheckState.NOT_HELD, "0 of 3 flags fully on", "3 of 3")
    put_behind(1)
    result = check_now(prerequisite_id=row.pk, actor=shell)
    assert (result.state, result.value) == (CheckState.HELD, "3 of 3 flags fully on")
    assert not CheckResult.objects.exists()
    assert AuditEvent.objects.filter(kind=AuditKind.PREREQUISITE_CHECKED).count() == 2


def test_an_instant_check_of_a_done_criterion_looks_at_its_own_week(plan, shell):
    row = make_line("services_healthy")
    Prerequisite.objects.filter(pk=row.pk).update(phase=Phase.DONE)
    assert check_now(prerequisite_id=row.pk, actor=shell).state == CheckState.HELD
    make_healthy(Health.UNHEALTHY, error="refused")
    result = check_now(prerequisite_id=row.pk, actor=shell)
    assert result.state == CheckState.NOT_HELD
    assert "Sample service is unhealthy (refused)" in result.value


def test_an_instant_check_whose_parameters_make_no_sense_is_unknown(plan, shell):
    result = check_now(prerequisite_id=make_line("flags_on", weeks="all").pk, actor=shell)
    assert result.state == CheckState.UNKNOWN
    assert result.value.startswith("its parameters make no sense: ")


def test_a_manual_line_is_checked_by_nobody_and_the_log_has_who_tried(plan, shell):
    manual = Prerequisite.objects.filter(kind=PrerequisiteKind.MANUAL).first()
    with pytest.raises(Invalid, match="signed off by a person"):
        check_now(prerequisite_id=manual.pk, actor=shell)
    event = AuditEvent.objects.first()
    assert (event.kind, event.after["because"]) == (AuditKind.ACTION_REFUSED, "Invalid")


def test_an_unknown_line_is_named(plan, shell):
    with pytest.raises(NotFound, match="no prerequisite 999999"):
        check_now(prerequisite_id=999999, actor=shell)


@pytest.mark.parametrize("role", list(Role))
def test_who_may_check_may_and_nobody_else(probe, people, role):
    row = probe(HELD)
    if Permission.CHECK in MATRIX[role]:
        assert check_now(prerequisite_id=row.pk, actor=people[role]).state == CheckState.HELD
    else:
        with pytest.raises(NotPermitted):
            check_now(prerequisite_id=row.pk, actor=people[role])
        assert not CheckResult.objects.exists()


def test_somebody_who_was_deactivated_since_the_sign_in_checks_nothing(probe, people):
    row = probe(HELD)
    User.objects.filter(username="approver").update(is_active=False)
    with pytest.raises(NotPermitted, match="may no longer run checks"):
        check_now(prerequisite_id=row.pk, actor=people[Role.APPROVER])
    assert not CheckResult.objects.exists()


def test_a_plan_that_is_loaded_anew_in_the_middle_of_a_check_is_told(plan, shell, monkeypatch):
    row = make_line("probe", copies=1)
    monkeypatch.setitem(PROBES, "probe", lambda _parameters, _scene: HELD)

    def store_after_a_load(runs):
        Prerequisite.objects.filter(pk=row.pk).update(parameters={"copies": 2})
        return store(runs)

    monkeypatch.setattr("migrations_app.observe.checks.store", store_after_a_load)
    with pytest.raises(Stale, match="loaded anew"):
        check_now(prerequisite_id=row.pk, actor=shell)
    assert not CheckResult.objects.exists()
    assert not next(line for line in verdicts()[4].lines if line.prerequisite == row.pk).held


@pytest.mark.django_db(transaction=True)
def test_a_plan_that_another_change_holds_is_told(shell, monkeypatch):
    load_tracseq(adapter="memory", by_hand=True)
    monkeypatch.setitem(PROBES, "probe", lambda _parameters, _scene: HELD)
    row = make_line("probe")
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("SELECT 1 FROM migrations_app_plan FOR UPDATE")
        with pytest.raises(Busy, match="try again at once"):
            check_now(prerequisite_id=row.pk, actor=shell)
    assert not CheckResult.objects.exists()
