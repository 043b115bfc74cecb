"""The status page and its JSON: who may see it, what it says, what it costs."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.maintenance import plan_window
from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.gateways.base import Side
from migrations_app.models import Flag, Gateway, HealthState, HealthSummary, Plan, Service, TrafficSample
from migrations_app.observe.uptime import DAYS, day_of
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from migrations_app.web import status
from tests.factories import make_healthy, put_behind
from tests.web.conftest import HTMX, text_of


@pytest.fixture(autouse=True)
def _as_it_is():
    status.kept.forget()
    yield
    status.kept.forget()


@pytest.fixture
def anybody():
    return Client()


def areas(client):
    return {one["area"]: one for one in json.loads(client.get("/status.json").content)["areas"]}


@pytest.mark.parametrize("address", ["/status/", "/status.json"])
def test_without_the_setting_it_wants_an_account(plan, anybody, clients, address):
    answer = anybody.get(address)
    assert (answer.status_code, answer["Location"]) == (302, f"/sign-in/?next={address}")
    assert {role: clients[role].get(address).status_code for role in Role} == dict.fromkeys(Role, 200)
    assert "no-store" in clients[Role.SUPPORT].get(address)["Cache-Control"]


@pytest.mark.parametrize("address", ["/status/", "/status.json"])
def test_with_the_setting_everybody_sees_it_and_it_may_be_kept_for_seconds(plan, anybody, settings, address):
    settings.STATUS_PUBLIC = True
    answer = anybody.get(address)
    assert answer.status_code == 200
    assert set(answer["Cache-Control"].split(", ")) == {"public", "max-age=5"}
    assert "Cookie" in answer["Vary"]
    assert anybody.post(address).status_code == 405


def test_a_stranger_sees_no_way_into_the_rest(plan, anybody, settings):
    settings.STATUS_PUBLIC = True
    page = anybody.get("/status/").content.decode()
    assert 'href="/audit/"' not in page
    assert "127.0.0.1" not in page
    assert "USE_AUTH_SERVICE" not in page


def test_it_tells_each_area_in_plain_words(plan, support):
    make_healthy()
    reconcile_all()
    said = text_of(support.get("/status/"))
    assert "Everything works." in said
    assert "Sign-in" in said
    assert "Served by The old system" in said
    assert len(areas(support)) == Service.objects.count()


def test_what_moved_is_told_with_its_moment(plan, support):
    make_healthy()
    put_behind(1)
    reconcile_all()
    moved = areas(support)["Notifications"]
    assert (moved["served_by"], moved["last_change"]) == ("The new system", "Moved to the new system")
    assert moved["last_change_at"] is not None
    assert areas(support)["Sign-in"]["served_by"] == "The old system"


def test_what_a_gateway_ran_when_it_was_last_seen_is_not_told_as_what_it_runs(plan, support):
    make_healthy()
    reconcile_all()
    assert areas(support)["Sign-in"]["served_by"] == "The old system"
    Gateway.objects.update(observed_at=timezone.now() - timedelta(minutes=1))
    status.kept.forget()
    found = areas(support)["Sign-in"]
    assert (found["standing"], found["served_by"]) == (
        "unknown",
        "It cannot be told just now which system serves it",
    )


def test_a_gateway_that_answers_no_more_tells_of_no_failover(plan, support):
    make_healthy()
    put_behind(1)
    reconcile_all()
    Gateway.objects.update(failing_over={"storage": "it takes no connections"})
    noticed = areas(support)["Storage locations"]
    status.kept.forget()
    Gateway.objects.update(observed_generation=None)
    found = areas(support)["Storage locations"]
    assert found["served_by"] == "It cannot be told just now which system serves it"
    assert found["how_well"] != noticed["how_well"]


def test_a_side_that_fails_and_requests_that_fail_are_told(plan, support):
    make_healthy()
    put_behind(1)
    reconcile_all()
    HealthState.objects.filter(target="notification").update(state="unhealthy", error="answered 500, expected 200")
    TrafficSample.objects.create(
        service=Service.objects.get(key="storage"),
        side=Side.SERVICE.value,
        read_at=timezone.now() - timedelta(seconds=5),
        requests=50,
        errors=5,
    )
    found = areas(support)
    assert found["Notifications"]["standing"] == "down"
    assert found["Storage locations"]["how_well"] == "5 of 50 requests failed in the last minute."
    status.kept.forget()
    said = text_of(support.get("/status/"))
    assert "Notifications, Storage locations: not everything works." in said
    assert "answered 500" not in said


def test_without_a_plan_it_says_so(db, anybody, settings):
    settings.STATUS_PUBLIC = True
    assert "No plan is loaded yet" in text_of(anybody.get("/status/"))
    assert json.loads(anybody.get("/status.json").content)["areas"] == []


def test_one_reading_answers_everybody_for_seconds(plan, anybody, settings, django_assert_num_queries):
    settings.STATUS_PUBLIC = True
    with django_assert_num_queries(7):
        anybody.get("/status.json")
    with django_assert_num_queries(0):
        anybody.get("/status.json")
        anybody.get("/status/")


def test_while_the_database_is_away_the_last_reading_is_shown_with_its_time(plan, anybody, settings, monkeypatch):
    settings.STATUS_PUBLIC = True
    before = json.loads(anybody.get("/status.json").content)

    def away():
        raise DatabaseError("gone")

    monkeypatch.setattr(status, "load_status", away)
    monkeypatch.setattr(status, "KEPT_FOR", 0)
    assert json.loads(anybody.get("/status.json").content) == before
    status.kept.forget()
    answer = anybody.get("/status/")
    assert (answer.status_code, answer["Retry-After"]) == (503, "0")
    assert "the database does not answer" in answer.content.decode()
    answer = anybody.get("/status.json")
    assert (answer.status_code, list(answer.json())) == (503, ["error"])


def test_it_refreshes_a_part_of_the_page(plan, support):
    part = support.get("/status/", headers=HTMX).content.decode()
    assert part.lstrip().startswith('<div id="panel"')
    assert "<!doctype" in support.get("/status/").content.decode()


def test_who_is_signed_in_gets_a_page_that_nobody_else_is_given(plan, support, settings):
    settings.STATUS_PUBLIC = True
    assert "no-store" in support.get("/status/")["Cache-Control"]


def test_times_are_of_the_plans_zone(plan, support):
    Plan.objects.update(timezone="Asia/Tokyo")
    assert json.loads(support.get("/status.json").content)["as_of"].endswith("+09:00")


# -- 90 days ----------------------------------------------------------------------------------------------------------


def days_of(target, uptime, at=None):
    HealthSummary.objects.update_or_create(
        target=target,
        defaults={
            "refreshed_at": at or timezone.now(),
            "sparkline": [None] * 48,
            "days": [uptime] * DAYS if isinstance(uptime, int) else uptime,
        },
    )


def moved(flag, before, after, at):
    """As an action would have told it then. What is asked of the flag now stays as it is."""
    with transaction.atomic():
        record(AuditKind.FLAG_WEIGHT_SET, actor=SYSTEM, subject=flag, before={flag: before}, after={flag: after}, at=at)


def test_each_area_has_the_days_of_the_side_that_served_it(plan, support):
    days_of("monolith", 9_990)
    days_of("auth", 9_000)
    now = timezone.now()
    moved("USE_AUTH_SERVICE", 0, 100, day_of(now, 20) + timedelta(hours=9))
    moved("USE_AUTH_SERVICE", 100, 0, day_of(now, 10) + timedelta(hours=9))
    found = areas(support)
    assert found["Sign-in"]["uptime_90_days"] == [9_990] * 69 + [9_000] * 11 + [9_990] * 10
    assert found["Notifications"]["uptime_90_days"] == [9_990] * 90
    page = support.get("/status/")
    named = f"{day_of(now, 20).day} {day_of(now, 20):%B}"
    assert f"<title>{named}: 90.00 %</title>" in page.content.decode()
    said = text_of(page)
    assert "Checked on 90 of the last 90 days: something failed on each." in said


def test_an_area_that_only_the_new_system_has_is_not_told_of_the_old_one(plan, support):
    days_of("monolith", 9_990)
    area = Service.objects.get(key="reports").area
    assert areas(support)[area]["uptime_90_days"] == [None] * 90


def test_sums_of_yesterday_are_those_of_yesterday(plan, support):
    now = timezone.now()
    days_of("monolith", [*range(DAYS)], at=day_of(now, 1) + timedelta(hours=5))
    assert areas(support)["Sign-in"]["uptime_90_days"] == [*range(1, DAYS), None]
    status.kept.forget()
    days_of("monolith", [*range(DAYS)], at=now - timedelta(days=200))
    assert areas(support)["Sign-in"]["uptime_90_days"] == [None] * 90


def test_before_the_first_minute_is_summed_up_nothing_is_known_of_the_days(plan, support):
    assert areas(support)["Sign-in"]["uptime_90_days"] == [None] * 90
    assert "nothing is told: it was not in use, or not checked." in text_of(support.get("/status/"))


def test_the_days_cost_the_same_with_more_moves(plan, support):
    def queries():
        status.kept.forget()
        with CaptureQueriesContext(connection) as captured:
            status.load_status()
        return len(captured)

    before = queries()
    now = timezone.now()
    for flag in Flag.objects.all():
        days_of(flag.service.key, 9_000)
        for back in range(1, 30):
            moved(flag.key, 0, back, day_of(now, back))
    assert queries() == before == 7


def test_planned_maintenance_is_told_of_the_sides_that_serve_an_area(plan, people, anybody, settings, time_machine):
    settings.STATUS_PUBLIC = True
    time_machine.move_to(datetime(2026, 11, 24, 12, 0, tzinfo=UTC), tick=False)
    make_healthy()
    reconcile_all()
    now, manager = timezone.now(), people[Role.RELEASE_MANAGER]
    for targets, begin in ((["monolith"], 2), (["rag"], 1), (["monolith"], 24 * 8)):
        plan_window(
            title="a disk is changed",
            targets=targets,
            starts_at=now + timedelta(hours=begin),
            ends_at=now + timedelta(hours=begin + 1),
            actor=manager,
        )
    told = {area: one["maintenance"] for area, one in areas(anybody).items()}
    zone = ZoneInfo(Plan.objects.get().timezone)
    begin = (now + timedelta(hours=2)).astimezone(zone)
    expected = f"24 November {begin:%H:%M} to {begin + timedelta(hours=1):%H:%M}: it may not work then"
    # Nothing is on: the monolith serves all that it ever had, and the window of the new side is nobody's.
    assert set(told.values()) == {expected}
    assert "Planned maintenance" in text_of(anybody.get("/status/"))
    put_behind(1)
    time_machine.shift(1)
    reconcile_all()
    status.kept.forget()
    told = {area: one["maintenance"] for area, one in areas(anybody).items()}
    on = Service.objects.get(key="rag").area
    assert told[on].startswith(f"24 November {begin - timedelta(hours=1):%H:%M} to ")
