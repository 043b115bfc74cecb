"""Every page in a real browser: accessible, narrow, touchable, and quiet towards the policy and the network."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from migrations_app.actions.flags import set_weight
from migrations_app.actor import Actor
from migrations_app.choices import Health
from migrations_app.models import HealthState
from tests.factories import tick_all

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
PAGES = [
    "/",
    "/weeks/1/",
    "/weeks/3/",
    "/weeks/6/",
    "/services/rag/",
    "/gateway/",
    "/audit/",
    "/weeks/3/enable/",
    "/nothing/",
]


@pytest.fixture
def lively(dashboard):
    """Week 1 is partly on and one service of it is ill, the gate of week 3 is open: every kind of cell shows."""
    from django.contrib.auth.models import User

    manager = Actor.signed_in(User.objects.get(username="release-manager"))
    for number in (1, 3):
        tick_all(number, manager)
    set_weight(key="USE_RAG_SERVICE", weight=100, actor=manager)
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    return dashboard


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page_in_either_theme(lively, theme):
    page = lively.page(color_scheme=theme)
    for address in PAGES:
        page.goto(address)
        found = Axe().run(page, options=RULES)
        assert found.response["violations"] == [], f"{address}\n{found.generate_report()}"
    page.goto("/weeks/3/")
    page.get_by_role("button", name="Enable week 3").click()
    found = Axe().run(page, options=RULES)
    assert found.response["violations"] == [], found.generate_report()
    page.context.clear_cookies()
    page.goto("/sign-in/")
    assert Axe().run(page, options=RULES).response["violations"] == []


# Links within running text are exempt (WCAG 2.5.8, inline); so is what only shows once it has the focus.
SMALL = """(least) => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea, summary')]
  .filter((one) => one.checkVisibility() && !one.matches('.skip'))
  .filter((one) => one.matches('button, .button') || !one.closest('p:not(.standing), li, td, h2, h3'))
  .map((one) => [one, one.getBoundingClientRect()])
  .filter(([, box]) => box.width > 1 && (box.height < least - 0.5 || box.width < least - 0.5))
  .map(([one, box]) => `${one.outerHTML.slice(0, 90)} ${box.width}x${box.height}`)"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("width", "least"), [(1280, 24), (390, 44), (320, 44)])
def test_pages_fit_their_width_and_targets_their_finger(lively, width, least):
    page = lively.page(viewport={"width": width, "height": 844})
    for address in PAGES:
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert page.evaluate(SMALL, least) == [], address


@pytest.mark.django_db(transaction=True)
def test_on_a_phone_rollback_is_at_the_bottom_within_the_thumbs_reach(lively):
    page = lively.page(at="/weeks/1/", viewport={"width": 390, "height": 844}, has_touch=True)
    for _ in range(2):
        box = page.get_by_role("button", name="Roll back week 1").bounding_box()
        assert box["y"] > 844 * 0.8
        assert box["y"] + box["height"] <= 844
        page.mouse.wheel(0, 900)
    page.get_by_role("button", name="Roll back week 1").tap()
    page.get_by_text("Week 1 is rolled back.").first.wait_for()


@pytest.mark.django_db(transaction=True)
def test_times_are_in_the_viewers_zone_with_the_exact_one_on_hover(dashboard):
    page = dashboard.page(at="/audit/", timezone_id="Asia/Tokyo")
    time = page.locator("#panel time").first
    exact = time.get_attribute("title")
    assert exact.endswith(" UTC")
    shown = int(time.inner_text().split()[-1].split(":")[0])
    assert shown == (int(exact[11:13]) + 9) % 24


@pytest.mark.django_db(transaction=True)
def test_a_time_to_come_is_shown_to_the_minute_and_one_that_has_been_to_the_second(lively):
    from django.contrib.auth.models import User

    from migrations_app.actions.weeks import enable_week

    HealthState.objects.filter(target="rag").update(state=Health.HEALTHY, error="")
    enable_week(number=1, actor=Actor.signed_in(User.objects.get(username="release-manager")))
    page = lively.page(at="/weeks/1/")
    soak = page.locator("#standing time[data-shown]").inner_text()
    ticked = page.locator(".lines time[data-shown]").first.inner_text()
    assert re.fullmatch(r"\d+ \w+ \d\d:\d\d", soak)
    assert re.fullmatch(r"(\d+ \w+ )?\d\d:\d\d:\d\d", ticked)


@pytest.mark.django_db(transaction=True)
def test_what_needs_you_is_reached_by_keyboard_and_stays_in_place_while_the_page_refreshes(dashboard):
    from django.contrib.auth.models import User

    manager = Actor.signed_in(User.objects.get(username="release-manager"))
    page = dashboard.page()
    need = page.locator("#need-sign-off")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.locator("#need-sign-off:focus").count():
            break
    link = need.element_handle()
    page.evaluate("document.getElementById('total').dataset.old = ''")
    page.locator("#total:not([data-old])").wait_for()
    # The poll brought the same words: the link is still the very one, for a click that is half done.
    assert link.evaluate("(link) => link.isConnected && link === document.activeElement")
    tick_all(3, manager)
    set_weight(key="USE_AUTH_SERVICE", weight=100, actor=manager, reason="the backup is done")
    HealthState.objects.filter(target="auth").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    page.locator("#need-service-auth").wait_for()
    assert page.locator("#need-sign-off:focus").count() == 1
    address = need.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{address}")
    page.locator(f"#{address.partition('#')[2]}:target").wait_for()
