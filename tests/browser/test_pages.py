"""Every page in a real browser: accessible, narrow, touchable, and quiet towards the policy and the network."""

from __future__ import annotations

import re
from datetime import time, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone

from migrations_app.actions.approvals import request_approval
from migrations_app.actions.evidence import UploadedEvidence
from migrations_app.actions.flags import set_weight
from migrations_app.actions.freezes import add_freeze
from migrations_app.actions.maintenance import plan_window
from migrations_app.actions.overrides import override_gate
from migrations_app.actions.prerequisites import tick, untick
from migrations_app.actions.rollouts import start_rollout
from migrations_app.actor import Actor
from migrations_app.choices import AuditKind, Health
from migrations_app.live import Topic, tell
from migrations_app.models import (
    AuditEvent,
    DowntimeClock,
    DowntimeSpan,
    HealthState,
    Plan,
    Prerequisite,
    Service,
    Week,
)
from migrations_app.roles import Role
from tests.browser.conftest import people_by_role
from tests.factories import approve, put_behind, tick_all

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
PAGES = [
    "/",
    "/weeks/1/",
    "/weeks/3/",
    "/weeks/4/",
    "/weeks/6/",
    "/services/",
    "/services/rag/",
    "/services/auth/",
    "/gateway/",
    "/audit/",
    "/weeks/3/enable/",
    "/weeks/2/",
    "/weeks/4/override/",
    "/rollback/",
    "/freezes/",
    "/maintenance/",
    "/status/",
    "/nothing/",
]


def pages():
    """With one event that has much to tell and one that keeps a gate."""
    events = AuditEvent.objects.filter(kind__in=[AuditKind.PLAN_LOADED, AuditKind.GATE_OVERRIDDEN])
    assert events.count() == 2
    return [*PAGES, *(f"/audit/{row.pk}/" for row in events)]


def was_down(number: int, service: str, length: timedelta) -> None:
    """So long until now, and within planned maintenance before that; and for a minute nobody knows."""
    week, now = Week.objects.get(number=number), timezone.now()
    told = {"down": length, "planned": length, "not_known": timedelta(minutes=1), "requests": 1234, "failed": 41}
    DowntimeClock.objects.create(week=week, since=now, counted_until=now, running=False, **told)
    for begin, planned in ((now - 2 * length, True), (now - length, False)):
        span = {"begins_at": begin, "ends_at": begin + length, "requests": 45, "failed": 41, "planned": planned}
        DowntimeSpan.objects.create(week=week, service=service, **span)


@pytest.fixture
def lively(dashboard):
    """Every kind of cell shows.

    Week 1 is partly on and partly in steps, it was down, and one service of it is ill and past its point of no return;
    week 2 soaks, the gate of week 3 is open, that of week 4 waits for an approval and is overridden in part; freezes of
    both kinds are to come, maintenance is on and to come, and time runs faster.
    """
    people = people_by_role()
    manager = people[Role.RELEASE_MANAGER]
    put_behind(2)
    for number in (1, 3):
        tick_all(number, manager)
    row = Prerequisite.objects.get(week__number=3, key="support-standby")
    untick(prerequisite_id=row.pk, actor=manager)
    file = UploadedEvidence("rota.txt", b"Ada")
    tick(prerequisite_id=row.pk, actor=manager, note="Ada", link="https://rota.example/w49", evidence=file)
    approve(3, people)
    request_approval(number=4, actor=manager, reason="the samples team is here")
    override_gate(
        number=4, lines=["approval"], minutes=60, actor=people[Role.ADMINISTRATOR], reason="the approvers are asleep"
    )
    soon = timezone.now() + timedelta(days=30)
    add_freeze(title="Year's end", actor=manager, starts_at=soon, ends_at=soon + timedelta(days=9))
    add_freeze(title="Nights", actor=manager, weekdays=f"{soon.isoweekday()}", from_time=time(1), until_time=time(2))
    everything = ["monolith", *Service.objects.values_list("key", flat=True)]
    plan_window(title="New disks", targets=everything[:8], ends_at=soon, actor=manager)
    plan_window(title="New racks", targets=everything, starts_at=soon, ends_at=soon + timedelta(hours=9), actor=manager)
    Plan.objects.update(time_scale=60)
    start_rollout(key="USE_STORAGE_SERVICE", actor=manager)
    set_weight(key="USE_RAG_SERVICE", weight=100, actor=manager)
    Service.objects.filter(key__in=["rag", "auth"]).update(point_of_no_return="what was written there stays there")
    was_down(1, "rag", timedelta(seconds=41))
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    return dashboard


def axe_finds_nothing(page):
    # The themes differ in nothing but colours.
    for theme, options in (("light", RULES), ("dark", CONTRAST)):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # no colour is on its way to another
        found = Axe().run(page, options=options)
        assert found.response["violations"] == [], f"{page.url}, {theme}\n{found.generate_report()}"


@pytest.mark.django_db(transaction=True)
def test_axe_finds_nothing_on_any_page_in_either_theme(lively):
    page = lively.page("administrator")
    for address in ("/weeks/4/", "/weeks/4/override/", "/weeks/6/"):
        page.goto(address)
        axe_finds_nothing(page)
    axe_finds_nothing(lively.page("approver", at="/weeks/4/"))
    page = lively.page()
    for address in pages():
        page.goto(address)
        for summary in page.locator("main summary").all():
            summary.click()
        axe_finds_nothing(page)
    page.goto("/weeks/3/")
    page.get_by_role("button", name="Enable week 3").click()
    axe_finds_nothing(page)
    page.goto("/")
    page.locator("#rollback-everything").click()
    axe_finds_nothing(page)
    page.context.clear_cookies()
    page.goto("/sign-in/")
    axe_finds_nothing(page)


# Links within running text are exempt (WCAG 2.5.8, inline); so is what only shows once it has the focus. What ticks a
# box is its whole label.
SMALL = """(least) => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea, summary')]
  .filter((one) => one.checkVisibility() && !one.matches('.skip'))
  .filter((one) => one.matches('button, .button') || !one.closest('p:not(.standing), li, td, h2, h3'))
  .map((one) => [one, (one.type === 'checkbox' ? one.labels[0] : one).getBoundingClientRect()])
  .filter(([, box]) => box.width > 1 && (box.height < least - 0.5 || box.width < least - 0.5))
  .map(([one, box]) => `${one.outerHTML.slice(0, 90)} ${box.width}x${box.height}`)"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("account", ["release-manager", "administrator", "approver"])
def test_pages_fit_their_width_and_targets_their_finger(lively, account):
    page = lively.page(account)
    for address in [*pages(), "/weeks/4/"]:
        page.goto(address)
        for summary in page.locator("main summary").all():
            summary.click()
        for width, least in ((1280, 24), (390, 44), (320, 44)):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (address, width)
            assert page.evaluate(SMALL, least) == [], (address, width)


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

    Plan.objects.update(time_scale=1)
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
    tell(Topic.TRAFFIC)
    page.locator("#total:not([data-old])").wait_for()
    # The same words came anew: the link is still the very one, for a click that is half done.
    assert link.evaluate("(link) => link.isConnected && link === document.activeElement")
    put_behind(2)
    tick_all(3, manager)
    approve(3, people_by_role())
    set_weight(key="USE_AUTH_SERVICE", weight=100, actor=manager, reason="the backup is done")
    HealthState.objects.filter(target="auth").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    tell(Topic.HEALTH, "auth")
    page.locator("#need-service-auth").wait_for()
    assert page.locator("#need-sign-off:focus").count() == 1
    address = need.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{address}")
    page.locator(f"#{address.partition('#')[2]}:target").wait_for()
