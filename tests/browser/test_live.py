"""Live pages in a real browser: told by a stream, and what they do when there is none."""

from __future__ import annotations

import re

import pytest
from django.contrib.sessions.models import Session

from controlplane.embedded.children import free_port
from migrations_app.actions.prerequisites import tick, untick
from migrations_app.choices import Health
from migrations_app.live import Topic, tell
from migrations_app.models import HealthState, Prerequisite
from migrations_app.roles import Role
from tests.browser.conftest import Dashboard, people_by_role
from tests.factories import load_tracseq, make_healthy, make_people
from tests.web.streams import backends, cut_off, dashboard_process

pytestmark = pytest.mark.django_db(transaction=True)
SOON = 1_000  # ms: from a change elsewhere to the page, on an idle machine a tenth of it
# Far less than the 20 seconds after which a page asks anyway, and room for a busy machine.
BEFORE_IT_ASKS_ANYWAY = 8_000


def word(page):
    return page.locator("#pulse-word")


def is_live(page):
    word(page).get_by_text("Live", exact=True).wait_for()


def asked_for(page, part):
    """The addresses with this end that the page asks for, from now on."""
    found = []
    page.on("request", lambda request: found.append(request.url) if request.url.endswith(part) else None)
    return found


def sign_off_first(week=1):
    first = Prerequisite.objects.filter(week__number=week, phase="start").first()
    tick(prerequisite_id=first.pk, actor=people_by_role()[Role.APPROVER])
    return first


def test_a_change_elsewhere_shows_without_a_reload_and_without_waiting_for_the_next_question(dashboard):
    page = dashboard.page("support", at="/weeks/1/")
    is_live(page)
    page.evaluate("window.same = true")
    page.evaluate(
        """() => new MutationObserver(() => {
          if (document.querySelector("#gate-state").textContent.includes("1/")) window.seen ??= Date.now();
        }).observe(document.body, { subtree: true, childList: true, characterData: true })"""
    )
    first = sign_off_first()
    page.wait_for_function("() => window.seen", timeout=BEFORE_IT_ASKS_ANYWAY)
    signed = Prerequisite.objects.get(pk=first.pk).sign_offs.get().ticked_at.timestamp() * 1000
    assert page.evaluate("window.seen") - signed < SOON
    assert page.evaluate("window.same")


def test_a_live_page_asks_only_when_it_is_told(dashboard):
    page = dashboard.page(at="/weeks/1/")
    is_live(page)
    page.wait_for_load_state("networkidle")
    questions = asked_for(page, "/weeks/1/live/?lines=" + page.locator("#lines").input_value())
    page.wait_for_timeout(5_000)
    assert len(questions) <= 1
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 503, expected 200")
    tell(Topic.HEALTH, "rag")
    page.locator("#service-rag").get_by_text("answered 503, expected 200").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    assert 1 <= len(questions) <= 3


def test_what_is_being_typed_and_the_focus_survive_what_is_told(dashboard):
    page = dashboard.page(at="/weeks/3/")
    is_live(page)
    note = page.get_by_label(re.compile("^Note")).first
    note.fill("half a no")
    first = sign_off_first(3)
    page.get_by_text("This has changed since you opened it.").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    assert note.input_value() == "half a no"
    assert page.evaluate("document.activeElement.id") == note.get_attribute("id")
    note.fill("")
    page.locator("h1").click()
    # Nobody is in the middle of something any more: it shows what is so, without being told again.
    page.locator("#gate").get_by_text("approver").wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    untick(prerequisite_id=first.pk, actor=people_by_role()[Role.APPROVER])
    page.locator("#gate-state").get_by_text(re.compile(r"^0/\d")).wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)


def test_a_listener_that_is_cut_off_comes_back_and_the_page_catches_up(dashboard):
    page = dashboard.page(at="/weeks/1/")
    is_live(page)
    # What happens while nobody listens is told by nobody.
    page.evaluate(
        """() => {
          const word = document.querySelector("#pulse-word");
          new MutationObserver(() => { (window.words ??= []).push(word.textContent) })
            .observe(word, { childList: true, characterData: true, subtree: true });
        }"""
    )
    cut_off(backends(listening=True))
    sign_off_first()
    page.locator("#gate-state").get_by_text(re.compile("^1/")).wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    is_live(page)
    assert page.evaluate("window.words") in (["Reconnecting", "Live"], None)


def test_without_streams_the_page_polls_and_says_so(dashboard):
    page = dashboard.page(at="/freezes/")
    page.route(re.compile(r"/live\?"), lambda route: route.fulfill(status=503, body="too many"))
    page.goto("/weeks/1/")
    word(page).get_by_text("Polling", exact=True).wait_for(timeout=20_000)
    sign_off_first()
    page.locator("#gate-state").get_by_text(re.compile("^1/")).wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    page.unroute(re.compile(r"/live\?"))
    page.evaluate("dispatchEvent(new Event('online'))")
    is_live(page)


def test_a_hidden_page_keeps_no_stream_and_catches_up_when_it_is_shown(dashboard):
    page = dashboard.page(at="/weeks/1/")
    is_live(page)
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    questions = asked_for(page, "/weeks/1/live/?lines=" + page.locator("#lines").input_value())
    sign_off_first()
    page.wait_for_timeout(3_000)
    assert questions == []
    assert page.locator("#gate-state").get_by_text(re.compile("^1/")).count() == 0
    page.evaluate(hide, False)
    page.locator("#gate-state").get_by_text(re.compile("^1/")).wait_for(timeout=BEFORE_IT_ASKS_ANYWAY)
    is_live(page)


def test_who_is_signed_out_elsewhere_is_told_soon(dashboard):
    page = dashboard.page(at="/weeks/1/")
    is_live(page)
    Session.objects.all().delete()
    page.get_by_text("Your session has ended.").wait_for(timeout=12_000)
    word(page).get_by_text("Signed out", exact=True).wait_for()
    questions = asked_for(page, "/live/")
    page.wait_for_timeout(3_000)
    assert questions == []


def test_a_dashboard_that_is_started_again_is_found_again(transactional_db, chromium, tmp_path):
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    make_people()
    port, log = free_port(), tmp_path / "dashboard.log"
    found = Dashboard(f"http://127.0.0.1:{port}", chromium)
    try:
        with dashboard_process(port, log):
            page = found.page(at="/weeks/1/")
            is_live(page)
        page.locator("#pulse").get_by_text(re.compile(r"^Reconnecting: data \d+ s old$")).wait_for()
        sign_off_first()
        with dashboard_process(port, log):
            word(page).get_by_text("Live", exact=True).wait_for(timeout=40_000)
            page.locator("#gate-state").get_by_text(re.compile("^1/")).wait_for()
        assert found.faults == []
    finally:
        for context in found.contexts:
            context.close()


def test_the_word_is_read_out_and_the_seconds_are_not(dashboard):
    page = dashboard.page(at="/weeks/1/")
    is_live(page)
    assert word(page).get_attribute("role") == "status"
    assert page.locator("#pulse-age").get_attribute("aria-hidden") == "true"
    assert page.locator("#pulse").inner_text().strip() == "Live"
    shape = "getComputedStyle(document.querySelector('#pulse'), '::before').content"
    live = page.evaluate(shape)
    page.context.set_offline(True)
    page.locator("#pulse").get_by_text(re.compile(r"^Reconnecting: data \d+ s old$")).wait_for(timeout=20_000)
    assert page.evaluate(shape) != live
    page.context.set_offline(False)
    is_live(page)
