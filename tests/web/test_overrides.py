"""Breaking the glass: who may, what it asks, and how every page tells of it."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Override, Plan
from migrations_app.roles import Role
from tests.web.conftest import HTMX, fields, lines_of, text_of

BREAK, END = "/weeks/3/override/", "/weeks/3/override/end/"
FORM = {"lines": ["database-backup", "approval"], "minutes": "20", "reason": "the backup host is down"}


@pytest.fixture
def administrator(clients):
    return clients[Role.ADMINISTRATOR]


@pytest.fixture
def broken(administrator):
    data = fields(administrator.get(BREAK), BREAK) | FORM
    assert administrator.post(BREAK, data)["Location"] == "/weeks/3/#gate"
    return Override.objects.get()


def test_the_page_lists_what_does_not_hold_and_asks_for_lines_minutes_and_a_reason(administrator):
    assert f'href="{BREAK}"' in administrator.get("/weeks/3/").content.decode()
    page = administrator.get(BREAK)
    said = text_of(page)
    assert "The database backup is completed" in said
    assert "Auth service healthy" not in said
    content = page.content.decode()
    assert content.count('type="checkbox" name="lines"') == lines_of(3) + 2
    assert "checked" not in content
    for name in ('name="minutes"', 'name="reason"'):
        assert name in content


def test_an_override_moves_no_traffic_and_opens_only_its_lines(administrator, broken):
    said = text_of(administrator.get("/weeks/3/"))
    assert "The gate of Week 3 is overridden. No traffic has moved." in said
    assert f"The gate is closed: {lines_of(3)} things in the way." in said
    assert said.count("Overridden ") >= 2


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("page", ["/", "/weeks/1/", "/services/rag/", "/gateway/", "/freezes/"])
def test_every_page_tells_everybody_while_it_lasts(clients, broken, role, page):
    said = text_of(clients[role].get(page))
    assert "The gate of week 3 is overridden by administrator until" in said
    assert "The database backup is completed" in said
    assert "“the backup host is down”" in said
    assert (END in clients[role].get(page).content.decode()) == (role == Role.ADMINISTRATOR)


@pytest.mark.parametrize(
    "page", ["/live/", "/weeks/1/live/", "/services/rag/live/", "/gateway/live/", "/live/every-page/"]
)
def test_a_page_that_is_open_learns_of_it(manager, administrator, page):
    before = manager.get(page, headers=HTMX).content.decode()
    assert 'id="overrides"' in before
    assert "is overridden" not in before
    administrator.post(BREAK, FORM)
    assert "is overridden" in manager.get(page, headers=HTMX).content.decode()


def test_it_ends_by_its_time_and_by_a_click_on_any_page(administrator, manager, broken):
    assert administrator.post(END, fields(administrator.get("/freezes/"), END))["Location"] == "/weeks/3/#gate"
    assert "is overridden by" not in text_of(manager.get("/"))
    administrator.post(BREAK, FORM)
    assert "is overridden by" in text_of(manager.get("/"))
    start = timezone.now() - timedelta(hours=1)
    Override.objects.filter(ended_at=None).update(at=start, expires_at=start + timedelta(minutes=20))
    assert "is overridden by" not in text_of(manager.get("/"))


@pytest.mark.parametrize("role", [role for role in Role if role != Role.ADMINISTRATOR])
def test_who_may_not_is_told_who_may_and_finds_no_way_there(clients, broken, role):
    assert BREAK not in clients[role].get("/weeks/3/").content.decode()
    asked = clients[role].get(BREAK)
    assert asked.status_code == 403
    assert "administrators" in text_of(asked)
    assert clients[role].post(BREAK, FORM, headers=HTMX).status_code == 403
    assert clients[role].post(END, headers=HTMX).status_code == 403
    assert Override.objects.get().ended_at is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": " "},
        {"lines": []},
        {"lines": ["health-auth"]},
        {"lines": ["nothing of the kind"]},
        {"lines": ["nul\x00byte"]},
        {"minutes": "0"},
        {"minutes": "121"},
        {"minutes": "-5"},
        {"minutes": "many"},
        {"minutes": ""},
    ],
)
def test_what_makes_no_sense_is_refused_in_place(administrator, wrong):
    response = administrator.post(BREAK, FORM | wrong, headers=HTMX)
    assert response.status_code == 422
    assert response.content.decode().strip().startswith('<div id="panel"')
    assert not Override.objects.exists()


def test_a_refusal_by_the_action_is_an_audit_event(administrator):
    administrator.post(BREAK, FORM | {"lines": ["health-auth"]}, headers=HTMX)
    assert AuditEvent.objects.first().kind == AuditKind.ACTION_REFUSED


def test_an_older_page_breaks_nothing(administrator, manager):
    stale = fields(administrator.get(BREAK), BREAK) | FORM
    manager.post("/weeks/3/approvals/ask/")
    assert administrator.post(BREAK, stale, headers=HTMX).status_code == 409
    assert not Override.objects.exists()


def test_a_gate_that_is_open_has_no_glass_to_break(administrator, manager, people):
    from tests.factories import tick_all

    tick_all(1, people[Role.RELEASE_MANAGER])
    assert administrator.get("/weeks/1/override/")["Location"] == "/weeks/1/"
    assert "/weeks/1/override/" not in administrator.get("/weeks/1/").content.decode()


def test_the_strip_costs_no_query_while_there_is_none(manager, administrator):
    def queries():
        with CaptureQueriesContext(connection) as found:
            manager.get("/freezes/")
        return len(found)

    queries()
    calm = queries()
    administrator.post(BREAK, FORM)
    assert queries() == calm + 2


def test_time_that_runs_faster_is_told_on_every_page(manager):
    assert "Time runs" not in text_of(manager.get("/"))
    Plan.objects.update(time_scale=3600)
    for page in ("/", "/weeks/3/", "/freezes/", "/audit/"):
        assert "Time runs 3,600 times faster: a soak of 48 h takes 48 s." in text_of(manager.get(page))
