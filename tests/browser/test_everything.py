"""Everything back in a real browser: the dialog, the phone, the keyboard, and without JavaScript."""

from __future__ import annotations

import pytest

from migrations_app.choices import AuditKind
from migrations_app.live import Topic, tell
from migrations_app.models import AuditEvent, Flag
from tests.factories import put_behind

pytestmark = pytest.mark.django_db(transaction=True)


def on() -> bool:
    return Flag.objects.filter(weight__gt=0).exists()


def test_on_a_phone_it_is_within_the_thumbs_reach_asks_once_and_tells_that_it_worked(dashboard):
    page = dashboard.page(viewport={"width": 320, "height": 700}, has_touch=True)
    assert page.locator("#rollback-everything").count() == 0
    put_behind(1, 2)  # elsewhere: the page shows it by itself
    tell(Topic.PLAN)
    button = page.locator("#rollback-everything")
    button.wait_for()
    for _ in range(2):
        box = button.bounding_box()
        assert box["y"] > 700 * 0.8
        assert box["y"] + box["height"] <= 700
        assert box["height"] >= 44
        page.mouse.wheel(0, 900)
    button.tap()
    page.get_by_text("4 services of weeks 1 and 2 go back").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "rollback-everything"
    assert on()
    button.tap()
    page.locator("#confirm-everything").tap()
    page.get_by_text("Everything is rolled back.").first.wait_for()
    assert not on()
    assert button.count() == 0
    page.get_by_text("You rolled back everything").wait_for()
    assert AuditEvent.objects.filter(kind=AuditKind.EVERYTHING_ROLLED_BACK).count() == 1


def test_without_javascript_the_question_is_a_page_and_the_reason_is_given_afterwards(dashboard):
    put_behind(1)
    page = dashboard.page(java_script_enabled=False)
    page.locator("#rollback-everything").click()
    page.wait_for_url("**/rollback/*")
    page.get_by_text("3 services of week 1 go back").wait_for()
    page.locator("#confirm-everything").click()
    page.get_by_text("Everything is rolled back. Applied on the gateway in").wait_for()
    assert not on()
    page.get_by_text("You rolled back everything").click()
    page.get_by_label("What was wrong").fill("errors everywhere")
    page.get_by_role("button", name="Keep the reason").click()
    page.get_by_text("Your reason is kept with the rollback.").wait_for()
    assert AuditEvent.objects.get(kind=AuditKind.REASON_GIVEN).reason == "errors everywhere"
    page.goto("/")
    assert page.get_by_text("You rolled back everything").count() == 0
