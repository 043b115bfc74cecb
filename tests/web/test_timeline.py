"""The timeline: the current week, what needs whom, shares of traffic, the axis, and the cost of it all."""

import re
from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.choices import Health
from migrations_app.gateways.base import Side
from migrations_app.models import Flag, Gateway, HealthState, Plan, Prerequisite, Route, Service, TrafficSample, Week
from migrations_app.roles import Role
from migrations_app.web.axis import axis_of
from migrations_app.web.board import Traffic, load_board
from tests.factories import make_healthy, memory_gateway, put_behind, tick_all
from tests.web.conftest import HTMX, lines_of, text_of


def traffic(key, side, requests, at=None, failovers=0):
    TrafficSample.objects.create(
        service=Service.objects.get(key=key),
        side=side,
        read_at=at or timezone.now(),
        requests=requests,
        errors=failovers,
        failovers=failovers,
    )


def current(client):
    content = client.get("/").content.decode()
    assert content.count('aria-current="step"') == 1
    return int(re.search(r'aria-current="step".*?href="/weeks/(\d+)/"', content, re.DOTALL)[1])


def test_every_week_stands_in_order_with_risk_gate_and_next_step(manager):
    said = text_of(manager.get("/"))
    titles = [week.title for week in Week.objects.order_by("number")]
    assert [said.index(title) for title in titles] == sorted(said.index(title) for title in titles)
    for words in (
        "Low risk",
        "Medium risk",
        "High risk",
        f"0/{lines_of(3)}",
        f"Wait for week 2 to soak, and {lines_of(3) + 1} more",
    ):
        assert words in said


def test_without_a_plan_it_says_how_to_load_one(db, people, client):
    client.force_login(people[Role.SUPPORT].account)
    for page in ("/", "/gateway/", "/live/"):
        response = client.get(page)
        assert response.status_code == 200
        assert "manage.py plan load plans/tracseq-phase2.yaml" in text_of(response)


def test_the_current_week_is_the_first_that_is_not_on_and_stays_while_it_soaks(manager, people):
    assert current(manager) == 1
    tick_all(1, people[Role.RELEASE_MANAGER])
    manager.post("/weeks/1/enable/")
    assert current(manager) == 1
    assert re.search(r"Soaking (48 h|47 h 59 min) left", text_of(manager.get("/")))
    Week.objects.filter(number=1).update(soak_started_at=timezone.now() - timedelta(hours=49))
    assert current(manager) == 2
    manager.post("/weeks/1/rollback/")
    assert current(manager) == 1
    assert "Rolled back" in text_of(manager.get("/"))


def test_the_share_is_that_of_observed_requests(manager):
    assert "No traffic in the last minute" in text_of(manager.get("/"))
    traffic("rag", Side.SERVICE, 30)
    traffic("storage", Side.MONOLITH, 70)
    traffic("auth", Side.MONOLITH, 100)
    traffic("auth", Side.SERVICE, 5000, at=timezone.now() - timedelta(seconds=61))
    said = text_of(manager.get("/"))
    assert "15 % of 200 requests in the last minute were answered by the new side" in said
    assert "30 %" in said


@pytest.mark.parametrize(
    ("old", "new", "share"), [(0, 0, None), (7, 0, 0), (0, 7, 100), (9999, 1, 1), (1, 9999, 99), (1, 1, 50)]
)
def test_a_share_is_never_rounded_to_all_or_nothing(old, new, share):
    assert Traffic(old, new).share == share


def test_needs_are_asked_only_of_who_can_meet_them(clients, people):
    waiting = "1 line waits" if lines_of(1) == 1 else f"{lines_of(1)} lines wait"
    for role, asked in ((Role.RELEASE_MANAGER, True), (Role.APPROVER, True), (Role.SUPPORT, False)):
        said = text_of(clients[role].get("/"))
        assert (f"Week 1: {waiting} for a sign-off." in said) == asked
        assert ("Nothing needs you now." in said) != asked
    tick_all(1, people[Role.RELEASE_MANAGER])
    assert "Week 1 is ready." in text_of(clients[Role.RELEASE_MANAGER].get("/"))
    assert "Nothing needs you now." in text_of(clients[Role.APPROVER].get("/"))


def test_an_ill_service_that_carries_traffic_is_loud(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    manager.post("/weeks/1/enable/")
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    said = text_of(manager.get("/"))
    assert "RAG service is unhealthy and carries traffic." in said
    assert "answered 500, expected 200" in said


def test_what_the_monolith_answers_in_its_place_is_the_old_sides_and_loud(manager, people):
    """Its health page is fine, and all that it is asked for is a 500."""
    traffic("rag", Side.SERVICE, 100, failovers=100)
    assert "fails over" not in text_of(manager.get("/"))  # nothing is meant for it any more
    tick_all(1, people[Role.RELEASE_MANAGER])
    manager.post("/weeks/1/enable/")
    traffic("rag", Side.SERVICE, 50, failovers=47)
    traffic("storage", Side.SERVICE, 850, failovers=1)
    said = text_of(manager.get("/"))
    assert "85 % of 1,000 requests in the last minute were answered by the new side" in said
    assert "RAG service fails over. The monolith answered 147 of 150 requests of the last minute in its place." in said
    assert "Storage service fails over" not in said
    assert said.count("fails over") == 1
    week = load_board().week(1)
    assert (week.traffic, week.traffic.meant_for_new) == (Traffic(148, 852, 148), 1000)
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY)
    assert "fails over" not in text_of(manager.get("/"))  # the louder one is told


def links(client):
    found = re.findall(r'<a id="(need-[\w-]+)" class="need[^"]*" href="([^"]+)"', client.get("/").content.decode())
    return dict(found)


def test_what_needs_you_leads_to_where_it_is_met(manager, people):
    first = Prerequisite.objects.filter(week__number=1, kind="manual", phase="start").first()
    assert links(manager) == {"need-sign-off": f"/weeks/1/#line-{first.pk}"}
    tick_all(1, people[Role.RELEASE_MANAGER])
    assert links(manager) == {"need-enable": "/weeks/1/#lever"}
    manager.post("/weeks/1/enable/")
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    Gateway.objects.update(observed_at=timezone.now() - timedelta(seconds=12))
    found = links(manager)
    assert found == {"need-gateway": "/gateway/", "need-service-rag": "/weeks/1/#row-rag"}
    week = manager.get("/weeks/1/").content.decode()
    for anchor in (f"line-{first.pk}", "lever", "row-rag"):
        assert f'id="{anchor}" tabindex="-1"' in week


def test_the_first_line_that_waits_is_the_one_that_is_shown(manager, people):
    put_behind(1, 2)
    assert current(manager) == 3
    lines = list(Prerequisite.objects.filter(week__number=3, kind="manual", phase="start"))
    manager.post(f"/prerequisites/{lines[0].pk}/tick/")
    assert links(manager)["need-sign-off"] == f"/weeks/3/#line-{lines[1].pk}"


def test_the_header_says_when_the_gateway_is_away_or_the_workers_have_stopped(manager):
    assert "Gateway: in step" in text_of(manager.get("/"))
    Gateway.objects.update(observed_at=timezone.now() - timedelta(seconds=12))
    assert re.search(r"Gateway: state is 1[23] s old", text_of(manager.get("/")))
    memory_gateway().answers = False
    from migrations_app.reconcile.loop import reconcile_all

    reconcile_all()
    assert "Gateway: does not answer" in text_of(manager.get("/live/", headers=HTMX))


def test_a_panel_for_htmx_is_no_page_and_is_kept_apart_from_it(manager):
    for address in ("/", "/weeks/1/", "/services/rag/", "/gateway/"):
        page, panel = manager.get(address), manager.get(address, headers=HTMX)
        assert "<html" in page.content.decode()
        assert panel.content.decode().strip().startswith('<div id="panel"')
        for response in (page, panel):
            assert "HX-Request" in response["Vary"]
            assert "no-store" in response["Cache-Control"]


def test_the_axis_places_weeks_today_and_what_really_ran(plan):
    rows = load_board().weeks
    zone = UTC
    axis = axis_of(rows, datetime(2026, 12, 14, tzinfo=UTC), zone)
    assert (axis.first, axis.last, axis.note) == (date(2026, 11, 23), date(2027, 1, 3), "")
    assert axis.today == 50.0
    assert (axis.bars[1].x, axis.bars[1].width) == (0.0, 16.67)
    assert axis.bars[4].x == 50.0
    assert axis_of(rows, datetime(2026, 11, 22, 12, tzinfo=UTC), zone).note == "starts in 1 day"
    late = axis_of(rows, datetime(2027, 1, 8, tzinfo=UTC), zone)
    assert (late.today, late.note) == (None, "planned end was 5 days ago")
    assert axis_of([], datetime(2026, 12, 14, tzinfo=UTC), zone) is None


def test_the_bar_shows_since_when_a_week_has_run(manager, people):
    with time_machine.travel("2026-11-30T00:00:00Z", tick=False):
        make_healthy()
        tick_all(1, people[Role.RELEASE_MANAGER])
        from migrations_app.actions.weeks import enable_week

        enable_week(number=1, actor=people[Role.RELEASE_MANAGER])
    axis = axis_of(load_board().weeks, datetime(2026, 12, 7, tzinfo=UTC), UTC)
    assert axis.bars[1].actual == (16.67, 16.66)


def grow(weeks, services):
    """More weeks, each with more services, beside the plan that is loaded."""
    plan = Plan.objects.get()
    for number in range(10, 10 + weeks):
        week = Week.objects.create(
            plan=plan,
            number=number,
            title=f"Week {number}",
            risk="low",
            planned_start="2027-02-01",
            planned_end="2027-02-07",
        )
        Prerequisite.objects.create(week=week, key="one", title="One")
        for index in range(services):
            name = f"s{number}-{index}"
            service = Service.objects.create(plan=plan, key=name, title=name, host="127.0.0.1", port=4000)
            Route.objects.create(plan=plan, service=service, prefix=f"/api/{name}")
            Flag.objects.create(plan=plan, key=f"USE_{number}_{index}", service=service, week=week)
            traffic(name, Side.MONOLITH, 3)


# What each page asks of the database at most, session and account included.
MOST_QUERIES = {
    "/": 8,
    "/live/": 8,
    "/weeks/1/": 10,
    "/weeks/1/live/": 10,
    "/services/rag/": 11,
    "/services/rag/live/": 8,
    "/services/rag/past/": 8,
    "/gateway/": 10,
    "/gateway/live/": 10,
    "/audit/": 12,
}


def queries(client, address):
    with CaptureQueriesContext(connection) as found:
        assert client.get(address).status_code == 200
    return len(found)


@pytest.mark.parametrize("address", MOST_QUERIES)
def test_the_queries_of_a_page_do_not_grow_with_the_plan(manager, people, address):
    queries(manager, address)
    small = queries(manager, address)
    grow(weeks=5, services=12)
    for row in Prerequisite.objects.filter(week__number__gte=10):
        from migrations_app.actions.prerequisites import tick

        tick(prerequisite_id=row.pk, actor=SYSTEM)
    assert queries(manager, address) == small
    assert small <= MOST_QUERIES[address]


def test_a_week_that_soaks_costs_the_timeline_no_query(manager):
    put_behind(1)
    before = queries(manager, "/")
    put_behind(2, 3, 4)
    assert queries(manager, "/") == before
