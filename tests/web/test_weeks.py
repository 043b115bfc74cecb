"""The page of a week: its panel, what a click on it answers, and the status of each answer."""

import re
from uuid import uuid4

import psycopg
import pytest
from django.db import connection

from migrations_app.actions.confirm import confirm
from migrations_app.actions.weeks import roll_back_week
from migrations_app.choices import AuditKind, Health, WeekStatus
from migrations_app.models import AuditEvent, Flag, HealthState, Prerequisite, Week
from migrations_app.roles import Role
from migrations_app.web import notices
from tests.factories import approve, make_healthy, memory_gateway, put_behind, tick_all
from tests.web.conftest import HTMX, fields, lines_of, text_of


@pytest.fixture
def ready(manager, people):
    """A release manager's client; the gate of weeks 1, 2 and 3 is open."""
    for number in (1, 2, 3):
        tick_all(number, people[Role.RELEASE_MANAGER])
    return manager


@pytest.fixture
def ready_3(ready, people):
    """Week 3 may begin: week 2 has soaked, and its approval is given."""
    put_behind(2)
    approve(3, people)
    return ready


def on_flags():
    return set(Flag.objects.filter(weight=100).values_list("key", flat=True))


def is_panel(response):
    content = response.content.decode().strip()
    return content.startswith('<div id="panel"') and "<html" not in content


def test_the_page_names_risk_impact_dates_soak_and_what_it_is_done_when(manager):
    said = text_of(manager.get("/weeks/3/"))
    for word in ("Week 3", "Enable auth service", "High risk", "All user authentication", "7–13 Dec", "3 days"):  # noqa: RUF001
        assert word in said
    assert "Downtime was under 5 minutes." in said
    assert "Identity team" in said


def test_enable_through_a_closed_gate_answers_409_with_what_blocks_and_who_can_act(manager):
    response = manager.post("/weeks/3/enable/", {"reason": "now"}, headers=HTMX)
    assert response.status_code == 409
    assert is_panel(response)
    said = text_of(response)
    assert f"Not enabled: {lines_of(3) + 2} things are in the way" in said
    assert "To act: release managers and approvers." in said
    assert "Week 2 has soaked : not yet, planned." in said
    first = Prerequisite.objects.filter(week__number=3, phase="start").first()
    assert f'href="/weeks/3/#line-{first.pk}"' in response.content.decode()
    assert on_flags() == set()
    assert AuditEvent.objects.first().kind == AuditKind.ENABLE_REFUSED


def test_an_unhealthy_service_blocks_and_says_why(ready):
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    response = ready.post("/weeks/1/enable/", headers=HTMX)
    assert response.status_code == 409
    assert "answered 500, expected 200" in text_of(response)


def test_a_closed_gate_answers_a_plain_form_with_the_whole_page(manager):
    response = manager.post("/weeks/1/enable/")
    assert response.status_code == 409
    assert "<html" in response.content.decode()
    assert "No traffic has moved." in text_of(response)


def test_enable_answers_with_the_confirmed_state(ready):
    page = ready.get("/weeks/1/")
    response = ready.post("/weeks/1/enable/", fields(page, "/weeks/1/enable/"), headers=HTMX)
    assert response.status_code == 200
    assert is_panel(response)
    assert re.search(r"Week 1 is on\. Applied on the gateway in \d+ ms\.", text_of(response))
    assert memory_gateway().serve("/api/rag").service == "rag"
    assert len(on_flags()) == 3


def test_a_plain_form_leads_back_to_the_page_which_says_it_once(ready):
    page = ready.get("/weeks/1/")
    response = ready.post("/weeks/1/enable/", fields(page, "/weeks/1/enable/"))
    assert (response.status_code, response["Location"]) == (303, "/weeks/1/")
    assert "Week 1 is on. Applied on the gateway" in text_of(ready.get("/weeks/1/"))
    assert "Applied on the gateway in" not in text_of(ready.get("/weeks/1/"))


def test_a_double_click_is_one_change_with_one_event_and_one_answer(ready):
    data = fields(ready.get("/weeks/1/"), "/weeks/1/enable/")
    first, second = (ready.post("/weeks/1/enable/", data, headers=HTMX) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert "Week 1 is on." in text_of(second)
    assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ENABLED).count() == 1


def test_the_second_of_two_tabs_is_told_that_nothing_was_done(ready):
    one, two = (fields(ready.get("/weeks/1/"), "/weeks/1/enable/") for _ in range(2))
    assert one["request_key"] != two["request_key"]
    Week.objects.filter(number=1).update(version=int(one["seen"]) + 1)
    response = ready.post("/weeks/1/enable/", two, headers=HTMX)
    assert response.status_code == 409
    assert is_panel(response)
    assert "has changed since this page was loaded. Nothing was done" in text_of(response)
    assert fields(response, "/weeks/1/enable/")["seen"] == str(int(one["seen"]) + 1)
    assert on_flags() == set()


def test_two_tabs_that_both_enable_make_one_change(ready):
    one, two = (fields(ready.get("/weeks/1/"), "/weeks/1/enable/") for _ in range(2))
    assert ready.post("/weeks/1/enable/", one, headers=HTMX).status_code == 200
    response = ready.post("/weeks/1/enable/", two, headers=HTMX)
    assert response.status_code == 200
    assert "was on already" in text_of(response)
    assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ENABLED).count() == 1


def test_what_the_gateway_does_not_confirm_is_told_honestly(ready):
    memory_gateway().answers = False
    response = ready.post("/weeks/1/enable/", headers=HTMX)
    assert response.status_code == 202
    said = text_of(response)
    assert "Not confirmed yet" in said
    assert "Applied on the gateway" not in said
    assert "manage.py reconcile" in said
    assert 'role="alert"' in response.content.decode()


def test_a_change_that_another_has_undone_meanwhile_is_not_told_as_on(ready, people, monkeypatch):
    def confirm_late(*args, **options):
        roll_back_week(number=1, actor=people[Role.RELEASE_MANAGER])
        return confirm(*args, **options)

    monkeypatch.setattr(notices, "confirm", confirm_late)
    for headers in (HTMX, {}):
        response = ready.post("/weeks/1/enable/", headers=headers)
        assert response.status_code == 409
        said = text_of(response)
        assert "Somebody has changed this since." in said
        assert "But another change has come meanwhile: USE_NOTIFICATION_SERVICE is at 0 %" in said
        assert "Week 1 is on." not in said
        assert 'class="notice loud" role="alert"' in response.content.decode()
    assert is_panel(ready.post("/weeks/1/enable/", headers=HTMX))


@pytest.mark.django_db(transaction=True)
def test_a_plan_that_another_change_holds_is_told_in_place(ready):
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("SELECT 1 FROM migrations_app_plan FOR UPDATE")
        response = ready.post("/weeks/1/enable/", headers=HTMX)
    assert response.status_code == 503
    assert is_panel(response)
    said = text_of(response)
    assert "The plan is busy. Another change has held the plan for too long. Nothing was done" in said
    assert 'class="notice loud" role="alert"' in response.content.decode()
    assert on_flags() == set()


def test_an_unconfirmed_plain_form_gets_the_whole_page_with_the_same_words(ready):
    memory_gateway().answers = False
    response = ready.post("/weeks/1/enable/")
    assert response.status_code == 202
    assert "<html" in response.content.decode()
    assert "Not confirmed yet" in text_of(response)


def test_rollback_is_one_click_without_gate_and_never_stale(ready):
    data = fields(ready.get("/weeks/1/"), "/weeks/1/enable/")
    ready.post("/weeks/1/enable/", data)
    make_healthy(Health.UNHEALTHY, error="down")
    response = ready.post("/weeks/1/rollback/", {"seen": "1", "request_key": str(uuid4())}, headers=HTMX)
    assert response.status_code == 200
    assert re.search(r"Week 1 is rolled back\. Applied on the gateway in \d+ ms\.", text_of(response))
    assert on_flags() == set()


def test_a_mangled_form_does_not_hold_up_a_rollback(ready):
    ready.post("/weeks/1/enable/")
    response = ready.post("/weeks/1/rollback/", {"seen": "x", "request_key": "y", "reason": "z" * 5000}, headers=HTMX)
    assert response.status_code == 200
    assert on_flags() == set()


def test_rolling_back_what_is_not_on_says_so(manager):
    assert "was on the old side already" in text_of(manager.post("/weeks/1/rollback/", headers=HTMX))
    assert not AuditEvent.objects.filter(kind=AuditKind.WEEK_ROLLED_BACK).exists()


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.APPROVER, Role.ADMINISTRATOR])
def test_enable_is_refused_in_place_to_who_may_not(clients, people, role):
    tick_all(1, people[Role.RELEASE_MANAGER])
    response = clients[role].post("/weeks/1/enable/", headers=HTMX)
    assert response.status_code == 403
    assert is_panel(response)
    assert "may not enable weeks. Ask a release manager" in text_of(response)
    assert on_flags() == set()


def test_support_may_not_roll_back(ready, support):
    ready.post("/weeks/1/enable/")
    assert support.post("/weeks/1/rollback/", headers=HTMX).status_code == 403
    assert len(on_flags()) == 3


def test_a_week_of_high_risk_needs_a_reason(ready_3):
    assert "dialog" in ready_3.get("/weeks/3/").content.decode()
    response = ready_3.post("/weeks/3/enable/", {"reason": "  "}, headers=HTMX)
    assert response.status_code == 422
    assert "Say why now: week 3 is of high risk." in text_of(response)
    assert "USE_AUTH_SERVICE" not in on_flags()
    response = ready_3.post("/weeks/3/enable/", {"reason": "backup is done"}, headers=HTMX)
    assert response.status_code == 200
    assert AuditEvent.objects.first().reason == "backup is done"


def test_without_javascript_a_high_risk_is_asked_on_a_page_of_its_own(ready_3):
    page = ready_3.get("/weeks/3/enable/")
    assert page.status_code == 200
    assert "Why now" in text_of(page)
    data = fields(page, "/weeks/3/enable/") | {"reason": "backup is done"}
    assert ready_3.post("/weeks/3/enable/", data).status_code == 303
    assert "USE_AUTH_SERVICE" in on_flags()


def test_low_and_medium_risk_ask_nothing(ready):
    for number in (1, 2):
        assert "<dialog" not in ready.get(f"/weeks/{number}/").content.decode()


def test_a_week_that_moves_no_traffic_is_started(manager):
    page = manager.get("/weeks/6/")
    said = text_of(page)
    assert "Start week 6" in said
    assert "It moves no traffic. Its soak begins: 3 days" in said
    refused = manager.post("/weeks/6/enable/", headers=HTMX)
    assert refused.status_code == 409
    assert "Not started: 2 things are in the way" in text_of(refused)
    put_behind(1, 2, 3, 4, 5)
    page = manager.get("/weeks/6/")
    started = manager.post("/weeks/6/enable/", fields(page, "/weeks/6/enable/"), headers=HTMX)
    assert started.status_code == 200
    assert "Week 6 has begun." in text_of(started)
    assert Week.objects.get(number=6).status == WeekStatus.SOAKING
    assert "/weeks/6/enable/" not in started.content.decode()
    assert "Soaking: 0 s of 72 h" in text_of(started)


@pytest.mark.parametrize("address", ["/weeks/7/", "/weeks/999999999999/", "/weeks/7/live/", "/weeks/7/enable/"])
def test_a_week_that_is_not_in_the_plan_is_404(manager, address):
    assert manager.get(address).status_code == 404


def test_a_bad_field_answers_422_in_the_panel(ready):
    response = ready.post("/weeks/1/enable/", {"request_key": "no-uuid"}, headers=HTMX)
    assert response.status_code == 422
    assert is_panel(response)
    assert on_flags() == set()


def test_a_reason_is_escaped_wherever_it_shows(ready):
    hostile = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    ready.post("/weeks/3/enable/", {"reason": hostile})
    content = ready.get("/audit/").content.decode()
    assert "&lt;script&gt;alert(1)" in content
    assert "<script>alert" not in content
    assert "<img" not in content


def test_the_live_cells_carry_no_form_and_no_focusable_thing(ready):
    ready.post("/weeks/1/enable/")
    content = ready.get("/weeks/1/live/", headers=HTMX).content.decode()
    assert 'hx-swap-oob="true"' in content
    assert not re.search(r"<(form|input|button|a|textarea|details|dialog)\b", content)


def test_live_cells_exist_in_the_page_that_they_refresh(ready):
    for page, live in (("/weeks/3/", "/weeks/3/live/"), ("/", "/live/"), ("/gateway/", "/gateway/live/")):
        content = ready.get(page).content.decode()
        for name in re.findall(r'id="([^"]+)"[^>]*hx-swap-oob', ready.get(live, headers=HTMX).content.decode()):
            assert content.count(f'id="{name}"') == 1, (page, name)


def test_ids_are_unique_on_every_page(ready):
    ready.post("/flags/USE_RAG_SERVICE/enable/")
    for page in ("/", "/weeks/1/", "/weeks/3/", "/services/rag/", "/gateway/", "/audit/", "/weeks/3/enable/"):
        ids = re.findall(r'\bid="([^"]+)"', ready.get(page).content.decode())
        assert len(ids) == len(set(ids)), (page, sorted(name for name in ids if ids.count(name) > 1))


def test_when_the_soak_ends_is_told_to_the_minute_and_what_has_been_to_the_second(ready):
    ready.post("/weeks/1/enable/")
    content = ready.get("/weeks/1/").content.decode()
    standing = re.search(r'id="standing".*?</p>', content, re.DOTALL)[0]
    assert re.search(r'until <time [^>]*data-to="minute">\d+ [A-Z][a-z]{2} \d\d:\d\d</time>', standing)
    assert re.search(r'data-to="second">\d+ [A-Z][a-z]{2} \d\d:\d\d:\d\d</time>', content.replace(standing, ""))
