"""The flow in a real browser: by keyboard, by mouse, twice, in two tabs, without JavaScript, and while things break."""

from __future__ import annotations

import re

import psycopg
import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from playwright.sync_api import expect

from migrations_app.actions.prerequisites import tick
from migrations_app.choices import AuditKind, Health
from migrations_app.live import Topic, tell
from migrations_app.models import AuditEvent, Flag, HealthState, Prerequisite, SignOff
from migrations_app.roles import Role
from tests.browser.conftest import people_by_role
from tests.factories import approve, make_healthy, put_behind

pytestmark = pytest.mark.django_db(transaction=True)
APPLIED = re.compile(r"Applied on the gateway in \d+ ms\.")


def focused(page):
    return page.evaluate("document.activeElement.id")


def wait_for_focus(page, wanted):
    """The words of an outcome come a moment before the focus does."""
    page.wait_for_function("wanted => document.activeElement.id === wanted", arg=wanted)


def press(page, key, until, most=60):
    """Press a key until the element with this id has the focus."""
    for _ in range(most):
        if focused(page) == until:
            return
        page.keyboard.press(key)
    raise AssertionError(f"{until} was never reached; the focus is on {focused(page)!r}")


def on_flags():
    return set(Flag.objects.filter(weight=100).values_list("key", flat=True))


def test_the_keyboard_alone_is_enough_and_the_focus_survives(dashboard):
    first, *others = Prerequisite.objects.filter(week__number=1, phase="start")
    for other in others:
        tick(prerequisite_id=other.pk, actor=people_by_role()[Role.APPROVER])
    page = dashboard.page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press(page, "Tab", "open-current")
    page.keyboard.press("Enter")
    page.wait_for_url("**/weeks/1/")

    press(page, "Tab", "enable-week-1")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"Not enabled: \d things? (is|are) in the way")).wait_for()
    wait_for_focus(page, "enable-week-1")

    note = page.get_by_label(re.compile("^Note")).first
    press(page, "Tab", note.get_attribute("id"))
    page.keyboard.type("all three answer 200")
    page.keyboard.press("Enter")
    page.get_by_text(f"Signed off: {first.title}").first.wait_for()
    wait_for_focus(page, f"line-{first.pk}")

    press(page, "Shift+Tab", "enable-week-1")
    page.keyboard.press("Enter")
    page.get_by_text(APPLIED).first.wait_for()
    wait_for_focus(page, "lever")
    assert len(on_flags()) == 3

    press(page, "Tab", "rollback-week")
    page.keyboard.press("Enter")
    page.get_by_text("Week 1 is rolled back.").first.wait_for()
    wait_for_focus(page, "lever")
    assert on_flags() == set()


def test_the_dialog_of_a_high_risk_has_cancel_focused_and_escape_gives_the_focus_back(dashboard):
    put_behind(2)
    approve(3, people_by_role())
    page = dashboard.page(at="/weeks/3/")
    sign_all_off(page)
    page.get_by_role("button", name="Enable week 3").click()
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    page.keyboard.press("Escape")
    wait_for_focus(page, "enable-week-3")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Enable week 3?")
    dialog.get_by_role("button", name="Enable week 3").click()
    assert dialog.is_visible()  # the reason is required
    dialog.get_by_label(re.compile("Why now")).fill("backup done, support is here")
    dialog.get_by_role("button", name="Enable week 3").click()
    page.get_by_text(APPLIED).first.wait_for()
    wait_for_focus(page, "lever")
    assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ENABLED).first().reason == "backup done, support is here"


def sign_all_off(page):
    """By keyboard: a click that follows at once, where another button has just come to lie, is dropped."""
    buttons = page.get_by_role("button", name="Sign off")
    for left in reversed(range(buttons.count())):
        buttons.first.press("Enter")
        expect(buttons).to_have_count(left)


def test_a_double_click_is_one_change_and_hits_nothing_that_appears_below_it(dashboard):
    page = dashboard.page(at="/weeks/1/")
    sign_all_off(page)
    page.get_by_role("button", name="Enable week 1").dblclick()
    page.get_by_text(APPLIED).first.wait_for()
    page.wait_for_timeout(300)
    assert AuditEvent.objects.filter(kind=AuditKind.WEEK_ENABLED).count() == 1
    assert not AuditEvent.objects.filter(kind=AuditKind.WEEK_ROLLED_BACK).exists()
    assert len(on_flags()) == 3


def test_the_second_half_of_a_double_click_does_not_hit_what_has_just_appeared_there(dashboard):
    page = dashboard.page(at="/weeks/1/")
    box = page.get_by_role("button", name="Sign off").first.bounding_box()
    spot = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    # The worst case: Undo comes to lie under the pointer, and the second click lands as soon as it is there.
    page.evaluate(
        """([x, y]) => document.addEventListener("htmx:afterSettle", () => {
          const click = { bubbles: true, cancelable: true, detail: 2, clientX: x, clientY: y };
          const undo = document.querySelector("[id^=untick-]");
          if (!undo || window.landed) return;
          window.landed = true;
          undo.dispatchEvent(new MouseEvent("click", click));
        })""",
        spot,
    )
    page.mouse.click(*spot)
    page.wait_for_function("() => window.landed")
    page.wait_for_timeout(500)
    assert SignOff.objects.filter(withdrawn_at__isnull=True).count() == 1
    page.get_by_role("button", name="Undo").click(position={"x": 3, "y": 3})
    page.get_by_text("Sign-off withdrawn").first.wait_for()


def test_another_tab_sees_the_change_by_itself_and_a_half_written_note_survives_it(dashboard):
    writer, other = dashboard.page(at="/weeks/3/"), dashboard.page("approver", at="/weeks/3/")
    watcher = dashboard.page("support", at="/weeks/3/")
    note = writer.get_by_label(re.compile("^Note")).first
    note.fill("half a no")
    other.get_by_role("button", name="Sign off").last.click()
    other.get_by_text("Signed off: The rollback plan").first.wait_for()
    watcher.locator("#gate-state").get_by_text(re.compile(r"^1/\d$")).wait_for()
    assert "approver" in watcher.locator("#gate").inner_text()
    writer.get_by_text("This has changed since you opened it.").wait_for()
    assert note.input_value() == "half a no"
    assert focused(writer) == note.get_attribute("id")
    writer.get_by_role("button", name="Sign off").first.click()
    writer.get_by_text("Nothing was done; look again.").wait_for()
    assert SignOff.objects.count() == 1


def test_health_refreshes_without_taking_the_focus_or_closing_the_dialog(dashboard):
    page = dashboard.page(at="/weeks/1/")
    page.locator("#enable-week-1").focus()
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 503, expected 200")
    tell(Topic.HEALTH, "rag")
    page.locator("#service-rag").get_by_text("answered 503, expected 200").wait_for()
    page.wait_for_timeout(2500)
    wait_for_focus(page, "enable-week-1")


def test_everything_works_without_javascript(dashboard):
    page = dashboard.page(at="/weeks/1/", java_script_enabled=False)
    page.get_by_role("button", name="Enable week 1").click()
    assert "in the way No traffic has moved." in page.inner_text("main")
    for _ in range(Prerequisite.objects.filter(week__number=1, phase="start").count()):
        page.get_by_label(re.compile("^Note")).first.fill("seen")
        page.get_by_role("button", name="Sign off").first.click()
        assert "Signed off:" in page.inner_text("main")
    page.get_by_role("button", name="Enable week 1").click()
    page.wait_for_url("**/weeks/1/")
    assert APPLIED.search(page.inner_text("main"))
    page.reload()
    page.goto("/")
    page.get_by_role("button", name="Roll back week 1").click()
    page.wait_for_url("**/weeks/1/")
    assert "Week 1 is rolled back." in page.inner_text("main")
    assert on_flags() == set()
    put_behind(2)
    approve(3, people_by_role())
    page.goto("/weeks/3/")
    for _ in range(Prerequisite.objects.filter(week__number=3, phase="start").count()):
        page.get_by_role("button", name="Sign off").first.click()
    page.get_by_role("button", name="Enable week 3").click()
    page.get_by_label(re.compile("Why now")).fill("rehearsed")
    page.get_by_role("button", name="Enable week 3").click()
    assert APPLIED.search(page.inner_text("main"))
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in/")


def test_back_forward_and_reload_give_whole_pages(dashboard):
    page = dashboard.page(at="/weeks/1/")
    sign_all_off(page)
    page.goto("/weeks/3/")
    page.go_back()
    assert page.locator("header.bar").count() == 1
    assert "The gate is open." in page.inner_text("#gate-state")
    page.go_forward()
    page.reload()
    assert "Enable auth service" in page.inner_text("h1")


def test_an_expired_session_never_puts_a_page_inside_the_panel(dashboard):
    page = dashboard.page(at="/weeks/1/")
    Session.objects.all().delete()
    page.get_by_text("Your session has ended.").wait_for()
    page.get_by_role("button", name="Enable week 1").click()
    page.wait_for_url("**/sign-in/**")
    assert "next=%2Fweeks%2F1%2F" in page.url


def test_a_dashboard_that_is_away_is_told_and_the_age_of_the_data_shown(dashboard):
    page = dashboard.page(at="/weeks/1/")
    page.locator("#pulse").get_by_text("Live", exact=True).wait_for()
    page.context.set_offline(True)
    page.get_by_role("button", name="Enable week 1").click()
    page.get_by_text("It is not known whether this was carried out.").wait_for()
    page.get_by_text(re.compile(r"Reconnecting: data \d+ s old")).wait_for()
    page.context.set_offline(False)
    page.locator("#pulse").get_by_text("Live", exact=True).wait_for()


def test_the_share_on_the_timeline_moves_while_one_looks(dashboard):
    from django.utils import timezone

    from migrations_app.models import Service, TrafficSample

    page = dashboard.page()
    page.get_by_text("No traffic in the last minute").wait_for()
    TrafficSample.objects.create(
        service=Service.objects.get(key="rag"), side="service", read_at=timezone.now(), requests=40, errors=0
    )
    tell(Topic.TRAFFIC)
    page.get_by_text("of 40 requests in the last minute").wait_for()
    make_healthy(Health.UNHEALTHY, error="down")
    tell(Topic.HEALTH, "rag")
    page.get_by_text("Unhealthy").first.wait_for()


def test_a_busy_plan_is_told_in_the_panel_and_a_proxys_503_never_takes_its_place(dashboard):
    page = dashboard.page(at="/weeks/1/")
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("SELECT 1 FROM migrations_app_plan FOR UPDATE")
        page.get_by_role("button", name="Enable week 1").click()
        page.locator("#panel #outcome.loud").get_by_text("The plan is busy.").wait_for()
    page.route("**/weeks/1/enable/", lambda route: route.fulfill(status=503, body="no healthy upstream"))
    page.get_by_role("button", name="Enable week 1").click()
    page.locator("#notices").get_by_text("The answer was not from Switchyard.").wait_for()
    assert page.locator("#panel #gate-state").count() == 1
