"""The page of the freezes: what is on, what comes, adding and lifting."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.freezes import add_freeze
from migrations_app.models import Freeze
from migrations_app.roles import Role
from tests.web.conftest import HTMX, fields, text_of

PAGE = "/freezes/"


@pytest.fixture
def on(people):
    """A freeze that began an hour ago and lasts another day."""
    now = timezone.now()
    add_freeze(
        title="Quarter end",
        actor=people[Role.RELEASE_MANAGER],
        starts_at=now - timedelta(hours=1),
        ends_at=now + timedelta(days=1),
    )
    return Freeze.objects.get()


def test_a_one_off_freeze_is_read_in_the_time_zone_of_the_form(manager):
    data = fields(manager.get(PAGE), PAGE) | {
        "title": "Year's end",
        "starts_at": "2027-12-24T18:00",
        "ends_at": "2028-01-02T06:00",
        "timezone": "Europe/Berlin",
    }
    assert manager.post(PAGE, data)["Location"] == PAGE
    row = Freeze.objects.get()
    assert row.starts_at == datetime(2027, 12, 24, 17, 0, tzinfo=UTC)
    said = text_of(manager.get(PAGE))
    assert "Freeze added: Year's end." in said
    assert "Coming" in said


def test_a_recurring_freeze_says_its_rule(manager):
    data = {"title": "Weekends", "weekdays": ["5", "6", "7"], "from_time": "18:00", "until_time": "06:00"}
    response = manager.post(PAGE, data, headers=HTMX)
    assert response.status_code == 200
    assert "Fri, Sat, Sun, 18:00 to 06:00 the next day, UTC" in text_of(response)


def test_a_freeze_that_is_on_shows_on_the_timeline_and_closes_every_gate(manager, support, on):
    assert "Frozen: Quarter end until" in text_of(support.get("/"))
    assert "Frozen: Quarter end until" in text_of(manager.get("/live/", headers=HTMX))
    assert "No freeze: Quarter end Frozen" in text_of(manager.get("/weeks/1/"))
    refused = manager.post("/weeks/1/enable/", headers=HTMX)
    assert refused.status_code == 409
    assert "To act: release managers and administrators." in text_of(refused)


def test_lifting_it_ends_it(manager, on):
    lift = f"/freezes/{on.pk}/lift/"
    response = manager.post(lift, fields(manager.get(PAGE), lift) | {"reason": "done early"}, headers=HTMX)
    assert response.status_code == 200
    assert "Freeze lifted: Quarter end." in text_of(response)
    assert "lifted by release-manager" in text_of(response)
    assert "Frozen" not in text_of(manager.get("/"))
    assert "was over already" in text_of(manager.post(lift, headers=HTMX))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.APPROVER])
def test_who_may_not_reads_who_may(clients, on, role):
    page = clients[role].get(PAGE)
    assert page.status_code == 200
    assert "Release managers and administrators can add and lift freezes." in text_of(page)
    assert "/lift/" not in page.content.decode()
    assert clients[role].post(PAGE, {"title": "x"}, headers=HTMX).status_code in {403, 422}
    assert clients[role].post(f"/freezes/{on.pk}/lift/", headers=HTMX).status_code == 403
    valid = {"title": "x", "weekdays": "1", "from_time": "01:00", "until_time": "02:00"}
    assert clients[role].post(PAGE, valid, headers=HTMX).status_code == 403
    assert Freeze.objects.get().lifted_at is None


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"title": ""},
        {"title": "x", "starts_at": "tomorrow", "ends_at": "2028-01-02T06:00"},
        {"title": "x", "starts_at": "2028-01-02T06:00", "ends_at": "2028-01-01T06:00"},
        {"title": "x", "starts_at": "2001-01-02T06:00", "ends_at": "2001-01-03T06:00"},
        {"title": "x", "weekdays": ["8"], "from_time": "01:00", "until_time": "02:00"},
        {"title": "x", "weekdays": ["1"], "from_time": "25:00", "until_time": "02:00"},
        {"title": "x", "weekdays": ["1"], "timezone": "Mars/Olympus", "from_time": "01:00", "until_time": "02:00"},
        {"title": "x", "weekdays": ["1"], "timezone": "../../etc/passwd", "from_time": "01:00", "until_time": "02:00"},
        {"title": "x", "weekdays": ["1"], "from_time": "01:00", "until_time": "02:00", "starts_at": "2028-01-02T06:00"},
        {"title": "nul\x00byte", "weekdays": ["1"], "from_time": "01:00", "until_time": "02:00"},
    ],
)
def test_what_makes_no_sense_is_told_and_what_was_typed_comes_back(manager, wrong):
    response = manager.post(PAGE, wrong, headers=HTMX)
    assert response.status_code == 422
    assert response.content.decode().strip().startswith('<div id="panel"')
    if wrong.get("title") == "x":
        assert 'name="title" maxlength="200" value="x"' in response.content.decode()
    assert not Freeze.objects.exists()


def test_a_repeated_click_adds_one(manager):
    data = fields(manager.get(PAGE), PAGE)
    data |= {"title": "Weekends", "weekdays": "6", "from_time": "00:00", "until_time": "00:00"}
    for _ in range(2):
        assert manager.post(PAGE, data, headers=HTMX).status_code == 200
    assert Freeze.objects.count() == 1


def test_an_unknown_freeze_is_404(manager, on):
    assert manager.post("/freezes/9999/lift/").status_code == 404
    assert manager.get(f"/freezes/{on.pk}/lift/")["Location"] == PAGE


def test_the_queries_of_the_page_do_not_grow_with_the_freezes(manager, on, people):
    def queries():
        with CaptureQueriesContext(connection) as found:
            manager.get(PAGE)
        return len(found)

    queries()
    small = queries()
    now = timezone.now()
    for number in range(30):
        row = Freeze(plan_id=1, title=f"Freeze {number}", starts_at=now, ends_at=now + timedelta(hours=1), added_at=now)
        row.timezone, row.added_by = "UTC", "tester"
        row.lifted_at = now if number % 2 else None
        row.save()
    assert queries() == small
