"""Planned maintenance in a real browser: planned, seen elsewhere at once, ended; with and without JavaScript."""

from __future__ import annotations

import re
from datetime import UTC, timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.maintenance import end_window, plan_window
from migrations_app.models import MaintenanceWindow
from migrations_app.roles import Role
from tests.browser.conftest import people_by_role

pytestmark = pytest.mark.django_db(transaction=True)
BEFORE_IT_ASKS_ANYWAY = 15_000  # milliseconds; a page that hears asks by itself every 20 s
HOUR = timedelta(hours=1)


def plan_one(title: str, **more) -> None:
    now = timezone.now()
    actor = people_by_role()[Role.ADMINISTRATOR]
    plan_window(**({"title": title, "targets": ["auth"], "ends_at": now + 2 * HOUR, "actor": actor} | more))


@pytest.mark.parametrize("javascript", [True, False])
def test_a_window_is_planned_and_ended(dashboard, javascript):
    page = dashboard.page(at="/", java_script_enabled=javascript)
    page.get_by_role("link", name="Maintenance").click()
    page.get_by_label("What is being done").fill("New disks")
    page.get_by_label(re.compile("^Until")).fill(f"{timezone.now().astimezone(UTC) + HOUR:%Y-%m-%dT%H:%M}")
    page.get_by_label("Everything").check()
    page.get_by_role("button", name="Plan the window").click()
    page.get_by_text("Maintenance planned: New disks.").first.wait_for()
    page.locator("#windows-1 + ul").get_by_role("heading", name="New disks").wait_for()
    page.locator("summary", has_text="End it").click()
    page.get_by_role("button", name=re.compile("^End now")).click()
    page.get_by_text("Maintenance ended: New disks.").first.wait_for()
    row = MaintenanceWindow.objects.get()
    assert (row.planned_by, row.ended_by, row.cancelled) == ("release-manager", "release-manager", False)


def test_an_open_page_shows_what_somebody_else_plans_and_ends_at_once(dashboard):
    page = dashboard.page(at="/maintenance/")
    page.locator("#pulse-word", has_text="Live").wait_for()
    plan_one("New disks")
    page.get_by_role("heading", name="New disks").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    end_window(window_id=MaintenanceWindow.objects.get().pk, actor=people_by_role()[Role.ADMINISTRATOR])
    page.get_by_role("heading", name="New disks").wait_for(state="detached", timeout=BEFORE_IT_ASKS_ANYWAY)
    page.get_by_text("None: every poll counts.").wait_for()


def test_one_that_begins_by_time_moves_by_itself(dashboard):
    page = dashboard.page(at="/maintenance/")
    page.locator("#pulse-word", has_text="Live").wait_for()
    plan_one("New disks", starts_at=timezone.now() + timedelta(seconds=5))
    page.locator("#windows-2 + ul").get_by_role("heading", name="New disks").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    page.locator("#windows-1 + ul").get_by_role("heading", name="New disks").wait_for(timeout=40_000)


@pytest.mark.parametrize("written", ["a title", "a service"])
def test_what_is_half_written_is_not_swapped_away(dashboard, written):
    page = dashboard.page(at="/maintenance/")
    page.locator("#pulse-word", has_text="Live").wait_for()
    if written == "a title":
        page.get_by_label("What is being done").fill("New racks")
    else:
        page.get_by_label("Everything").check()
    plan_one("New disks")
    page.locator("#changed").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    if written == "a title":
        assert page.get_by_label("What is being done").input_value() == "New racks"
    else:
        assert page.get_by_label("Everything").is_checked()
    page.get_by_role("button", name="Show it as it is now").click()
    page.get_by_role("heading", name="New disks").wait_for()
