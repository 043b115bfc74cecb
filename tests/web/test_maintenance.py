"""The page of planned maintenance, and what the 90 days of a service say of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.maintenance import end_window, plan_window
from migrations_app.gateways.base import NO_LATENCY
from migrations_app.models import HealthDay, MaintenanceWindow, Plan, Service
from migrations_app.observe.uptime import refresh_summaries
from migrations_app.roles import Role
from tests.web.conftest import HTMX, fields, text_of

PAGE, LIVE = "/maintenance/", "/maintenance/live/"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
VALID = {"title": "New disks", "starts_at": "2027-12-24T18:00", "ends_at": "2027-12-24T20:00", "targets": ["auth"]}


@pytest.fixture
def on(people):
    """A window of two services that has just begun and lasts two hours."""
    plan_window(
        title="New disks",
        targets=["auth", "rag"],
        ends_at=timezone.now() + 2 * HOUR,
        actor=people[Role.RELEASE_MANAGER],
    )
    return MaintenanceWindow.objects.get()


def token(client) -> str:
    """What the page compares with its own."""
    return re.search(r'id="token"[^>]*data-token="(\w+)"', client.get(LIVE, headers=HTMX).content.decode())[1]


def tokens_of_page(client) -> str:
    return re.search(r'id="panel"[^>]*data-token="(\w+)"', client.get(PAGE).content.decode())[1]


def test_a_window_is_read_in_the_time_zone_of_the_form(manager):
    data = fields(manager.get(PAGE), PAGE) | VALID | {"targets": ["auth", "monolith"], "timezone": "Europe/Berlin"}
    assert manager.post(PAGE, data)["Location"] == PAGE
    row = MaintenanceWindow.objects.get()
    assert (row.starts_at, row.ends_at) == (
        datetime(2027, 12, 24, 17, tzinfo=UTC),
        datetime(2027, 12, 24, 19, tzinfo=UTC),
    )
    assert row.targets == ["auth", "monolith"]
    said = text_of(manager.get(PAGE))
    assert "Maintenance planned: New disks." in said
    auth = Service.objects.get(key="auth").title
    assert f"New disks {Plan.objects.get().monolith_title}, {auth} planned by release-manager" in said


def test_without_a_zone_the_plans_counts_and_without_a_begin_it_begins_now(manager, time_machine):
    Plan.objects.update(timezone="Asia/Tokyo")
    now = timezone.now()
    time_machine.move_to(now, tick=False)
    end = (now + HOUR).replace(second=0, microsecond=0)
    data = VALID | {"starts_at": "", "ends_at": f"{end + 9 * HOUR:%Y-%m-%dT%H:%M}"}
    assert manager.post(PAGE, data, headers=HTMX).status_code == 200
    row = MaintenanceWindow.objects.get()
    assert (row.starts_at, row.ends_at) == (now, end)


def test_everything_is_the_monolith_and_every_service(manager):
    data = VALID | {"targets": [], "everything": "on"}
    response = manager.post(PAGE, data, headers=HTMX)
    assert set(MaintenanceWindow.objects.get().targets) == {"monolith", *Service.objects.values_list("key", flat=True)}
    assert "New disks Everything planned by" in text_of(response)


def test_more_than_a_few_targets_are_folded_away(manager):
    keys = list(Service.objects.values_list("key", flat=True))
    said = text_of(manager.post(PAGE, VALID | {"targets": keys}, headers=HTMX))
    assert "and 4 more in New disks" in said
    assert Service.objects.order_by("-position").first().title in said


def test_one_that_is_on_is_ended_and_told_as_over(manager, on, time_machine):
    said = text_of(manager.get(PAGE))
    assert "On for another 2 h, until" in said
    assert "health, gates, soaks and rollbacks are judged as ever" in said
    end = f"/maintenance/{on.pk}/end/"
    time_machine.move_to(on.starts_at + HOUR, tick=False)
    response = manager.post(end, fields(manager.get(PAGE), end) | {"reason": "done early"}, headers=HTMX)
    assert response.status_code == 200
    said = text_of(response)
    assert "Maintenance ended: New disks." in said
    assert "ended by release-manager" in said
    assert "None: every poll counts." in said
    assert "was over already" in text_of(manager.post(end, headers=HTMX))


def test_one_that_is_to_come_is_cancelled(manager):
    manager.post(PAGE, VALID)
    page = manager.get(PAGE)
    assert "Cancel it : New disks" in text_of(page)
    response = manager.post(f"/maintenance/{MaintenanceWindow.objects.get().pk}/end/", headers=HTMX)
    said = text_of(response)
    assert "Maintenance cancelled: New disks." in said
    assert "cancelled by release-manager" in said
    assert "Nothing is planned." in said


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.APPROVER])
def test_who_may_not_reads_who_may(clients, on, role):
    page = clients[role].get(PAGE)
    assert page.status_code == 200
    assert "Release managers and administrators can plan and end maintenance." in text_of(page)
    assert "New disks" in text_of(page)
    assert "/end/" not in page.content.decode()
    assert clients[role].post(f"/maintenance/{on.pk}/end/", headers=HTMX).status_code == 403
    assert clients[role].post(PAGE, VALID, headers=HTMX).status_code == 403
    assert MaintenanceWindow.objects.get().ended_at is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": ""},
        {"title": "nul\x00byte"},
        {"starts_at": "tomorrow"},
        {"starts_at": "2001-01-02T06:00"},
        {"starts_at": "2027-12-24T20:00"},
        {"ends_at": ""},
        {"ends_at": "2027-12-32T20:00"},
        {"ends_at": "2028-12-24T20:00"},
        {"timezone": "Mars/Olympus"},
        {"timezone": "../../etc/passwd"},
        {"targets": []},
        {"targets": ["nothing"]},
        {"targets": ["auth\x00"]},
        {"targets": ["x" * 5000]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_told_and_what_was_typed_comes_back(manager, wrong):
    response = manager.post(PAGE, VALID | wrong, headers=HTMX)
    assert response.status_code == 422
    page = response.content.decode()
    assert page.strip().startswith('<div id="panel"')
    if "title" not in wrong:
        assert 'name="title" maxlength="200" value="New disks"' in page
    if "targets" not in wrong:
        assert 'value="auth" checked>' in page
    assert not MaintenanceWindow.objects.exists()


def test_a_repeated_click_plans_one(manager):
    data = fields(manager.get(PAGE), PAGE) | VALID | {"starts_at": ""}
    data["ends_at"] = f"{timezone.now() + HOUR:%Y-%m-%dT%H:%M}"
    for _ in range(2):
        response = manager.post(PAGE, data, headers=HTMX)
        assert response.status_code == 200
        assert "Maintenance planned: New disks." in text_of(response)
    assert MaintenanceWindow.objects.count() == 1


def test_an_unknown_window_is_404(manager, on):
    assert manager.post("/maintenance/9999/end/").status_code == 404
    assert manager.get(f"/maintenance/{on.pk}/end/")["Location"] == PAGE


def test_an_open_page_learns_that_one_was_planned_or_ended_or_that_time_did_it(manager, people, time_machine):
    now = timezone.now()
    time_machine.move_to(now, tick=False)
    found = [token(manager)]
    actor = people[Role.RELEASE_MANAGER]
    for title in ("one", "two"):
        plan_window(title=title, targets=["auth"], starts_at=now + HOUR, ends_at=now + 2 * HOUR, actor=actor)
        found.append(token(manager))
    assert tokens_of_page(manager) == token(manager) == found[-1]
    end_window(window_id=MaintenanceWindow.objects.get(title="two").pk, actor=actor)
    found.append(token(manager))
    for moment in (now + HOUR, now + 2 * HOUR):
        time_machine.move_to(moment, tick=False)
        found.append(token(manager))
    assert len(set(found)) == len(found) == 6
    assert 'data-stream="/live?topic=plan&amp;topic=gateway"' in manager.get(PAGE).content.decode()


def test_without_a_plan_the_page_says_so_and_nothing_breaks(people, client):
    client.force_login(people[Role.RELEASE_MANAGER].account)
    assert "Nothing is planned." in text_of(client.get(PAGE))
    assert client.get(LIVE, headers=HTMX).status_code == 200
    refused = client.post(PAGE, VALID, headers=HTMX)
    assert refused.status_code == 404
    assert "No plan is loaded." in text_of(refused)


def test_the_queries_of_the_page_do_not_grow_with_the_windows(manager, on):
    def queries(page):
        with CaptureQueriesContext(connection) as found:
            manager.get(page)
        return len(found)

    queries(PAGE)
    small = queries(PAGE), queries(LIVE)
    now = timezone.now()
    for number in range(30):
        row = MaintenanceWindow(plan_id=1, title=f"Window {number}", starts_at=now, ends_at=now + HOUR, targets=["rag"])
        row.planned_by, row.planned_at = "tester", now
        if number % 2:
            row.ended_by, row.ended_at = "tester", now
        row.save()
    assert (queries(PAGE), queries(LIVE)) == small


def test_the_ninety_days_of_a_service_say_how_much_was_maintenance(manager):
    today = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [(1000, 0, 0, 0), (1000, 5, 0, 200), (1000, 0, 0, 200), (1000, 0, 0, 1000), (1000, 0, 400, 600)]
    for back, (polls, failed, unknown, maintenance) in enumerate(days):
        HealthDay.objects.create(
            target="auth",
            bucket=today - back * DAY,
            polls=polls,
            failed=failed,
            unknown=unknown,
            maintenance=maintenance,
            total_us=1,
            latency=list(NO_LATENCY),
        )
    refresh_summaries(timezone.now())
    page = manager.get("/services/auth/")
    grades = re.findall(r'<rect class="(\w+)"', page.content.decode())
    assert grades[-5:] == ["none", "planned", "whole", "most", "whole"]
    said = text_of(page)
    assert "Polled on 5 days, with failures on 1 and planned maintenance on 4." in said
    assert "99.37 %, 5 of 1,000 polls failed, 200 of 1,000 polls in planned maintenance" in said
    assert "100 %, 200 of 1,000 polls in planned maintenance" in said
    assert "all 1,000 polls in planned maintenance" in said
    assert "nobody could tell, 600 of 1,000 polls in planned maintenance" in said
    listed = said.split("Days with planned maintenance")[1].split("Days with failures")[0]
    assert listed.count("in planned maintenance") == 4
