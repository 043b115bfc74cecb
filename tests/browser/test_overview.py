"""The overview in a real browser: it follows what happens, keeps the focus, and works without JavaScript."""

from __future__ import annotations

import pytest

from migrations_app.choices import Health
from migrations_app.live import Topic, tell
from migrations_app.models import HealthState

pytestmark = pytest.mark.django_db(transaction=True)
BEFORE_IT_ASKS_ANYWAY = 8_000  # ms, less than the 20 seconds after which a page asks anyway


def is_live(page):
    page.locator("#pulse-word").get_by_text("Live", exact=True).wait_for()


def falls_ill(target, error="answered 503, expected 200"):
    HealthState.objects.filter(target=target).update(state=Health.UNHEALTHY, error=error)
    tell(Topic.HEALTH, target)


def test_a_row_that_changes_is_shown_and_the_others_stay_the_very_ones(dashboard):
    page = dashboard.page("support", at="/services/")
    is_live(page)
    page.locator("#open-rag").focus()
    page.evaluate("for (const row of document.querySelectorAll('.fleet [data-same]')) row.seen = true")
    falls_ill("rag")
    page.locator("#row-rag").get_by_text("answered 503, expected 200").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    assert page.locator("#row-rag").get_by_text("Unhealthy", exact=True).count() == 1
    assert page.locator("#tally").inner_text().startswith("1")
    assert page.evaluate("document.querySelector('#row-rag').seen") is None
    assert page.evaluate("document.querySelector('#row-auth').seen") is True
    assert page.evaluate("document.activeElement.id") == "open-rag"


def test_a_search_stands_in_the_way_of_nothing(dashboard):
    page = dashboard.page(at="/services/?q=service&state=unhealthy")
    page.get_by_text("fits this filter").wait_for()
    is_live(page)
    falls_ill("rag")
    page.locator("#row-rag").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    assert page.locator("#id_q").input_value() == "service"
    assert page.url.endswith("/services/?q=service&state=unhealthy")


def test_whoever_is_typing_is_told_and_not_interrupted(dashboard):
    page = dashboard.page(at="/services/?sort=trouble")
    is_live(page)
    page.locator("#id_q").press_sequentially("ra")
    falls_ill("rag")
    page.locator("#changed").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    assert page.locator("#id_q").input_value() == "ra"
    assert page.evaluate("document.activeElement.id") == "id_q"
    page.locator("#show-change").click()
    page.locator(".fleet ul > #row-rag:first-child").wait_for()


def test_without_javascript_it_filters_and_leads_on(dashboard):
    page = dashboard.page(at="/services/", java_script_enabled=False)
    page.get_by_label("Search").fill("identity")
    page.get_by_label("State").select_option("Healthy")
    page.get_by_role("button", name="Filter").click()
    assert page.url.endswith("/services/?q=identity&state=healthy&sort=")
    assert page.locator(".fleet [data-same]").count() == 1
    page.get_by_role("link", name="Auth service", exact=True).click()
    assert page.url.endswith("/services/auth/")
