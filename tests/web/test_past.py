"""The past on a service's page: charts of both sides, what moved it, 90 days, and changes of state."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.gateways.base import NO_LATENCY, Side
from migrations_app.models import HealthChange, HealthDay, HealthMinute, TrafficMinute
from migrations_app.observe.uptime import refresh_summaries
from migrations_app.roles import Role
from tests.factories import make_healthy, tick_all
from tests.web.conftest import HTMX, text_of


@pytest.fixture
def minute():
    return timezone.now().replace(second=0, microsecond=0)


def serve(minute, side, milliseconds_range, *, ago, requests=100, errors=0, **more):
    """A minute of requests, all answered in one range of response times."""
    latency = list(NO_LATENCY)
    latency[milliseconds_range] = requests
    TrafficMinute.objects.create(
        service="auth",
        side=side.value,
        bucket=minute - timedelta(minutes=ago),
        requests=requests,
        errors=errors,
        latency=latency,
        **more,
    )


def polled(model, bucket, polls=60, failed=0):
    model.objects.create(
        target="auth", bucket=bucket, polls=polls, failed=failed, unknown=0, total_us=1, latency=list(NO_LATENCY)
    )


def paths(page, key):
    return re.findall(rf'<path class="line {key}" d="([^"]*)"', page.content.decode())


def test_both_sides_are_drawn_and_told_in_words_and_in_a_table(manager, minute):
    for ago in (20, 19, 18):
        serve(minute, Side.MONOLITH, 5, ago=ago, errors=1)
    for ago in (10, 9):
        serve(minute, Side.SERVICE, 8, ago=ago)
    page = manager.get("/services/auth/")
    latency_new, errors_new = paths(page, "new")
    latency_old, errors_old = paths(page, "old")
    assert all(path.startswith("M") for path in (latency_new, errors_new, latency_old, errors_old))
    said = text_of(page)
    assert "New side: 30 ms last, 30 ms at most; old side: 9.8 ms last, 9.8 ms at most." in said
    assert "New side: 0 % last, 0 % at most; old side: 1 % last, 1 % at most." in said
    assert len(re.findall(r"<tr data-x=", page.content.decode())) == 2 * 5


def rows_of(page, key):
    """The table of a chart: its heads, then its rows, as words."""
    table = page.content.decode().split(f'id="chart-{key}-table"')[1].split("</table>")[0]
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in table.split("<tr")[1:]]


def test_failures_are_told_apart_in_the_summary_and_in_the_table(manager, minute):
    serve(minute, Side.MONOLITH, 5, ago=20, requests=1000, errors=1, client_errors=30)
    over = {"failovers": 3, "failed_failovers": 2}
    serve(minute, Side.SERVICE, 5, ago=20, requests=1000, errors=2, client_errors=10, retries=4, **over)
    serve(minute, Side.SERVICE, 5, ago=10, requests=1000, errors=3, client_errors=5, retries=2, failovers=1)
    page = manager.get("/services/auth/")
    said = text_of(page)
    assert (
        "Of 2,000 requests to the new side 5 got 5xx or no answer, of which the monolith answered 4 while failing "
        "over (2 of them no better); 15 got 4xx; 6 were sent twice. "
        "Of 1,000 requests to the old side 1 got 5xx or no answer; 30 got 4xx." in said
    )
    heads, first, second = rows_of(page, "errors")
    assert heads == [
        "From",
        "New side, 5xx or no answer",
        "Old side, 5xx or no answer",
        "New side, 4xx",
        "New side, sent twice",
        "New side, failed over to the monolith",
        "New side, failed on the monolith too",
        "Old side, 4xx",
    ]
    assert first[1:] == ["new side 0.20 %", "old side 0.10 %", "10", "4", "3", "2", "30"]
    assert second[1:] == ["new side 0.30 %", "none", "5", "2", "1", "0", "none"]
    assert rows_of(page, "latency")[0] == ["From", "New side", "Old side"]


def test_what_did_not_happen_is_not_told(manager, minute):
    serve(minute, Side.MONOLITH, 5, ago=20)
    serve(minute, Side.SERVICE, 5, ago=20, requests=1, errors=1, retries=1)
    page = manager.get("/services/auth/")
    said = text_of(page)
    assert "Of 1 request to the new side 1 got 5xx or no answer; 0 got 4xx; 1 was sent twice." in said
    assert "requests to the old side" not in said
    assert "failing over" not in said
    assert rows_of(page, "errors")[0][3:] == ["New side, sent twice"]


def test_a_range_is_chosen_by_a_link_and_nonsense_is_the_shortest(manager, minute):
    serve(minute, Side.MONOLITH, 5, ago=200)
    assert "No traffic is summed up for this time" in text_of(manager.get("/services/auth/"))
    page = manager.get("/services/auth/?range=6h")
    assert "The last 6 hours" in text_of(page)
    assert 'id="range-6h" aria-current="true"' in page.content.decode()
    assert "The last hour" in text_of(manager.get("/services/auth/?range=../../etc"))


def test_what_moved_it_is_drawn_and_listed_with_who_and_why(manager, people, minute):
    make_healthy()
    tick_all(1, people[Role.RELEASE_MANAGER])
    actor = people[Role.RELEASE_MANAGER]
    set_weight(key="USE_RAG_SERVICE", weight=100, actor=actor, reason="as planned")
    roll_back_flag(key="USE_RAG_SERVICE", actor=actor, reason="too slow")
    TrafficMinute.objects.create(
        service="rag", side="monolith", bucket=minute - timedelta(minutes=5), requests=1, errors=0, latency=NO_LATENCY
    )
    page = manager.get("/services/rag/")
    marks = re.findall(r'<path class="mark (\w+)" d="[^"]*"><title>([^<]*)</title>', page.content.decode())
    assert marks[:2] == [
        ("up", f"0 % to 100 % by {actor.name}"),
        ("back", f"100 % to 0 % by {actor.name}"),
    ]
    assert "too slow" in text_of(page)
    assert "too slow" not in text_of(manager.get("/services/storage/"))


def test_ninety_days_are_bars_and_the_bad_ones_are_named(manager, minute):
    today = minute.replace(hour=0, minute=0)
    polled(HealthDay, today, 1000)
    polled(HealthDay, today - timedelta(days=1), 1000, failed=5)
    polled(HealthDay, today - timedelta(days=2), 1000, failed=500)
    refresh_summaries(timezone.now())
    page = manager.get("/services/auth/")
    grades = re.findall(r'<rect class="(\w+)"', page.content.decode())
    assert (len(grades), grades[-3:]) == (90, ["less", "most", "whole"])
    assert set(grades[:-3]) == {"none"}
    said = text_of(page)
    assert "Polled on 3 days, with failures on 2." in said
    assert "99.50 %, 5 of 1,000 polls failed" in said
    assert "Uptime, 90 days 83.16 %" in said


def test_changes_of_state_are_listed_with_their_reasons(manager):
    assert "Its state has not changed since it was first polled." in text_of(manager.get("/services/auth/"))
    HealthChange.objects.create(
        target="auth", at=timezone.now(), was="healthy", state="unhealthy", reason="answered 500, expected 200"
    )
    assert "Healthy Unhealthy answered 500, expected 200" in text_of(manager.get("/services/auth/"))


def test_the_past_refreshes_on_its_own_and_keeps_its_range(support, minute):
    serve(minute, Side.MONOLITH, 5, ago=100)
    part = support.get("/services/auth/past/?range=6h", headers=HTMX).content.decode()
    assert part.lstrip().startswith('<div id="past" hx-get="/services/auth/past/?range=6h"')
    assert 'class="line old"' in part
    assert support.get("/services/nothing/past/").status_code == 404


def test_its_questions_are_the_same_for_an_hour_and_a_quarter(support, minute, django_assert_num_queries):
    polled(HealthMinute, minute - timedelta(minutes=5))
    support.get("/services/auth/past/")
    with django_assert_num_queries(6):
        support.get("/services/auth/past/?range=1h")
    for day in range(90):
        polled(HealthDay, minute.replace(hour=0, minute=0) - timedelta(days=day))
    with django_assert_num_queries(6):
        support.get("/services/auth/past/?range=90d")


def test_a_service_that_only_the_new_side_has_shows_one_line(manager, minute):
    page = manager.get("/services/reports/")
    assert "old side" not in text_of(page).split("What moved it")[0].split("Response time")[1].split("90 days")[0]
