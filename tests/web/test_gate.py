"""The lines of a gate as pages show them: every state in a word and a shape, from the real judge."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.choices import AuditKind, CheckState, Health, Phase, WeekStatus
from migrations_app.gates.verdict import LineKind
from migrations_app.models import AuditEvent, CheckResult, Flag, HealthState, Plan, Prerequisite, Service, SignOff, Week
from migrations_app.roles import Role
from migrations_app.web.gate import GROUPS
from tests.factories import load_tracseq, make_healthy, put_behind, tick_all
from tests.web.conftest import HTMX, fields, text_of


def line(response, anchor):
    """What the page says of one line."""
    content = response.content.decode()
    found = re.search(rf'<li id="line-{re.escape(str(anchor))}".*?</li>', content, re.DOTALL)
    assert found, anchor
    return found[0]


def words(response, anchor):
    response.content = line(response, anchor).encode()
    return text_of(response)


def of(week, key):
    return Prerequisite.objects.get(week__number=week, key=key)


def test_every_kind_of_line_has_its_group():
    assert {kind for kinds in GROUPS.values() for kind in kinds} == set(LineKind)


def test_a_sign_off_says_when_it_expires_then_that_it_has_and_asks_anew(manager):
    row = of(3, "support-standby")
    Prerequisite.objects.filter(pk=row.pk).update(valid_for=timedelta(hours=4))
    manager.post(f"/prerequisites/{row.pk}/tick/", {"note": "Ada and Grace"})
    said = words(manager.get("/weeks/3/"), row.pk)
    assert "Signed off by release-manager" in said
    assert re.search(r"expires in (4 h|3 h 59 min)", said)
    now = timezone.now()
    SignOff.objects.update(ticked_at=now - timedelta(hours=4), expires_at=now + timedelta(minutes=10))
    assert re.search(r"Expires in (10|9) min: sign it off anew", words(manager.get("/weeks/3/"), row.pk))
    SignOff.objects.update(expires_at=now - timedelta(minutes=3))
    said = words(manager.get("/weeks/3/"), row.pk)
    assert "Expired 3 min ago, signed off by release-manager" in said
    assert "Sign off anew" in said
    assert manager.post(f"/prerequisites/{row.pk}/tick/", headers=HTMX).status_code == 200
    assert "Signed off by release-manager" in words(manager.get("/weeks/3/"), row.pk)


def test_a_sign_off_is_void_once_the_service_leads_elsewhere(manager):
    row = of(3, "support-standby")
    manager.post(f"/prerequisites/{row.pk}/tick/")
    Service.objects.filter(key="auth").update(port=3999)
    assert "Void the week's flags, routes or upstreams have changed" in words(manager.get("/weeks/3/"), row.pk)


@pytest.fixture
def automatic(people):
    """The shipped plan, with its automatic checks."""
    load_tracseq(adapter="memory")
    make_healthy()
    return of(3, "database-backup")


def found(row, state, value="11 h old", **more):
    from migrations_app.observe.checks import asked_of

    values = {
        "state": state,
        "value": value,
        "limit": "at most 24 h old",
        "act": "Take a backup.",
        "asked": asked_of(row),
    }
    now = timezone.now()
    times = {"since": now, "checked_at": now, "milliseconds": 3.0}
    CheckResult.objects.update_or_create(prerequisite=row, defaults=values | times | more)


def test_an_automatic_line_shows_value_limit_and_when_it_was_checked(clients, automatic):
    manager = clients[Role.RELEASE_MANAGER]
    assert "Unknown not checked yet" in words(manager.get("/weeks/3/"), automatic.pk)
    found(automatic, CheckState.HELD)
    said = words(manager.get("/weeks/3/"), automatic.pk)
    assert "Held 11 h old Limit: at most 24 h old" in said
    assert "checked" in said
    found(automatic, CheckState.NOT_HELD, "30 h old")
    said = words(manager.get("/weeks/3/"), automatic.pk)
    assert "Not held 30 h old Needs: at most 24 h old" in said
    assert "Take a backup." in said
    found(automatic, CheckState.HELD, checked_at=timezone.now() - timedelta(minutes=3))
    assert "Unknown the last check was 3 min ago" in words(manager.get("/weeks/3/"), automatic.pk)
    assert "the last check was 3 min ago" in text_of(manager.get("/weeks/3/live/", headers=HTMX))


@pytest.mark.parametrize("role", list(Role))
def test_who_may_check_now_has_the_button_and_who_may_not_reads_who_and_how(clients, automatic, role):
    address = f"/prerequisites/{automatic.pk}/check/"
    may = role in {Role.RELEASE_MANAGER, Role.APPROVER, Role.ADMINISTRATOR}
    shown = line(clients[role].get("/weeks/3/"), automatic.pk)
    assert (f'action="{address}"' in shown) == may
    if not may:
        assert "Release managers, approvers and administrators can." in shown
        assert f"manage.py prerequisite check {automatic.pk}" in shown
    response = clients[role].post(address, headers=HTMX)
    assert response.status_code == (200 if may else 403)
    assert AuditEvent.objects.filter(kind=AuditKind.PREREQUISITE_CHECKED).exists() == may


def test_check_now_tells_what_it_found_and_a_plain_form_is_led_back_to_the_line(manager):
    row = of(6, "all-flags-on")
    address = f"/prerequisites/{row.pk}/check/"
    response = manager.post(address, fields(manager.get("/weeks/6/"), address), headers=HTMX)
    assert "does not hold. 0 of 10 flags fully on." in text_of(response)
    assert manager.post(address)["Location"] == f"/weeks/6/#line-{row.pk}"
    assert manager.get(address)["Location"] == "/weeks/6/"
    manual = of(3, "support-standby")
    assert manager.post(f"/prerequisites/{manual.pk}/check/", headers=HTMX).status_code == 422
    assert manager.post("/prerequisites/999999/check/").status_code == 404


def test_an_earlier_week_shows_how_far_its_soak_is(manager):
    assert "Not yet planned Needs: all on and stable for 48 h" in words(manager.get("/weeks/2/"), "after-1")
    put_behind(1)
    assert "Held soaked" in words(manager.get("/weeks/2/"), "after-1")
    Week.objects.filter(number=1).update(soak_started_at=timezone.now() - timedelta(hours=12))
    said = words(manager.get("/weeks/2/"), "after-1")
    assert "Not yet soaking, 12 h of 48 h" in said
    assert re.search(r"over in (36 h|35 h 59 min)", said)


def soak(manager, number=1):
    content = manager.get(f"/weeks/{number}/").content.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", re.search(r'id="soak".*?</div>', content, re.DOTALL)[0]))


def test_the_soak_clock_runs_stands_and_ends(manager):
    assert "The soak of 2 days begins once all of it is on." in soak(manager)
    put_behind(1)
    assert "Soaked for 48 h." in soak(manager)
    Week.objects.filter(number=1).update(soak_started_at=timezone.now() - timedelta(hours=12))
    assert "Soaking: 12 h of 48 h, until" in soak(manager)
    Week.objects.filter(number=1).update(soak_started_at=None, soak_stopped_because="RAG service was unhealthy")
    assert "The soak clock stands: RAG service was unhealthy." in soak(manager)
    assert "Soak stopped" in text_of(manager.get("/"))
    assert "Mend it: RAG service was unhealthy" in text_of(manager.get("/"))


def test_a_week_is_called_done_once_it_has_soaked_and_its_criteria_are_ticked(manager, people):
    put_behind(1)
    address = "/weeks/1/done/"
    refused = manager.post(address, fields(manager.get("/weeks/1/"), address), headers=HTMX)
    assert refused.status_code == 409
    said = text_of(refused)
    assert "Not called done: 1 thing is in the way" in said
    assert "No user has noticed anything." in said
    assert "Week 1 has soaked: 1 line to sign off before it is done." in text_of(manager.get("/"))
    tick_all(1, people[Role.RELEASE_MANAGER], phase=Phase.DONE)
    assert "Week 1 can be called done." in text_of(manager.get("/"))
    done = manager.post(address, fields(manager.get("/weeks/1/"), address), headers=HTMX)
    assert done.status_code == 200
    assert "Week 1 is done." in text_of(done)
    assert "Done. release-manager said so" in soak(manager)
    assert Week.objects.get(number=1).status == WeekStatus.DONE
    assert "was done already" in text_of(manager.post(address, headers=HTMX))


def test_a_week_that_still_soaks_says_what_is_missing(manager):
    put_behind(1)
    Week.objects.filter(number=1).update(soak_started_at=timezone.now())
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY)
    response = manager.post("/weeks/1/done/", headers=HTMX)
    assert response.status_code == 409
    content = response.content.decode()
    for anchor in re.findall(r'href="/weeks/1/#(line-[\w-]+)"', content):
        assert content.count(f'id="{anchor}"') == 1, anchor


@pytest.mark.parametrize("role", [role for role in Role if role != Role.RELEASE_MANAGER])
def test_only_release_managers_call_a_week_done(clients, role):
    put_behind(1)
    page = clients[role].get("/weeks/1/")
    assert "/weeks/1/done/" not in page.content.decode()
    assert "Release managers can call it done." in text_of(page)
    assert clients[role].post("/weeks/1/done/", headers=HTMX).status_code == 403


@pytest.mark.parametrize("role", list(Role))
def test_rehearsing_the_rollback_moves_nothing_and_is_for_who_may_roll_back(clients, role):
    address = "/weeks/3/rehearse/"
    may = role in {Role.RELEASE_MANAGER, Role.APPROVER, Role.ADMINISTRATOR}
    assert (f'action="{address}"' in clients[role].get("/weeks/3/").content.decode()) == may
    response = clients[role].post(address, headers=HTMX)
    assert response.status_code == (200 if may else 403)
    assert ("is rehearsed; no traffic has moved. Applied on the gateway in" in text_of(response)) == may
    assert not Flag.objects.filter(weight__gt=0).exists()


def test_a_rehearsal_that_would_fail_says_why(manager):
    HealthState.objects.filter(target="monolith").update(state=Health.UNHEALTHY, error="no answer")
    response = manager.post("/weeks/3/rehearse/", headers=HTMX)
    assert response.status_code == 422
    assert "A rollback would lead to the monolith" in text_of(response)


def test_a_sign_off_of_mine_that_ends_soon_or_is_void_needs_me_alone(manager, clients):
    row = of(3, "support-standby")
    manager.post(f"/prerequisites/{row.pk}/tick/")
    now = timezone.now()
    SignOff.objects.update(ticked_at=now - timedelta(hours=4), expires_at=now + timedelta(minutes=10))
    assert "your sign-off “The support team is on standby” ends soon" in text_of(manager.get("/"))
    assert "ends soon" not in text_of(clients[Role.APPROVER].get("/"))
    Service.objects.filter(key="auth").update(port=3999)
    assert "your sign-off “The support team is on standby” counts no more" in text_of(manager.get("/"))


@pytest.mark.parametrize("address", ["/weeks/3/", "/weeks/3/live/", "/", "/live/"])
def test_the_queries_do_not_grow_with_the_lines_of_a_gate(manager, people, address):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            assert manager.get(address).status_code == 200
        return len(captured)

    def grow(count, start):
        week, plan = Week.objects.get(number=3), Plan.objects.get()
        for number in range(start, start + count):
            row = Prerequisite.objects.create(week=week, key=f"line-{number}", title=f"Line {number}")
            SignOff.objects.create(prerequisite=row, actor="tester", ticked_at=timezone.now())
            service = Service.objects.create(
                plan=plan, key=f"s{number}", title=f"Service {number}", host="127.0.0.1", port=4000
            )
            Flag.objects.create(plan=plan, key=f"USE_S{number}", service=service, week=week)

    manager.post("/weeks/3/approvals/ask/")
    grow(10, 0)
    queries()
    small = queries()
    grow(190, 10)
    assert queries() == small
    assert small <= 34


def test_a_page_whose_lines_are_others_by_now_gets_no_cells_of_lines(manager):
    page = manager.get("/weeks/1/").content.decode()
    lines = re.search(r'name="lines" value="([^"]+)"', page)[1]
    cells = manager.get("/weeks/1/live/", {"lines": lines}, headers=HTMX).content.decode()
    assert 'id="value-health-rag"' in cells
    put_behind(1)
    cells = manager.get("/weeks/1/live/", {"lines": lines}, headers=HTMX).content.decode()
    assert "value-" not in cells
    assert 'id="service-rag"' in cells
    for name in re.findall(r'id="([^"]+)"[^>]*hx-swap-oob', cells):
        assert page.count(f'id="{name}"') == 1, name
