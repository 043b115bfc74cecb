"""Downtime on the pages of the week, the timeline and the status page; what is not in use costs no question."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.models import DowntimeClock, DowntimeSpan, Week
from migrations_app.web.status import kept
from tests.factories import put_behind
from tests.web.conftest import HTMX, text_of


@pytest.fixture
def begun(manager):
    """Week 3 is on; it may have five minutes of downtime."""
    put_behind(1, 2, 3)
    return manager


def clock(number: int = 3, **values) -> DowntimeClock:
    now, week = timezone.now(), Week.objects.get(number=number)
    told = {"since": week.started_at, "counted_until": now, "requests": 12_034, "failed": 61}
    return DowntimeClock.objects.create(week=week, **told | values)


def span(seconds: float, *, failed: int = 14, requests: int = 14, service: str = "auth", planned: bool = False) -> None:
    now = timezone.now()
    DowntimeSpan.objects.create(
        week=Week.objects.get(number=3),
        service=service,
        begins_at=now - timedelta(seconds=seconds),
        ends_at=now,
        requests=requests,
        failed=failed,
        planned=planned,
    )


def test_before_the_first_move_the_target_is_told(manager):
    assert "Counted from the first move on. Target: under 5 min." in text_of(manager.get("/weeks/3/"))
    assert "Counted from the first move on. Target: none." in text_of(manager.get("/weeks/1/"))
    assert "Counted from the first move on. The plan has no target." in text_of(manager.get("/weeks/4/"))


def test_the_clock_stands_beside_the_target_with_when_it_was(begun):
    clock(down=timedelta(seconds=40), not_known=timedelta(seconds=12), planned=timedelta(minutes=2))
    span(40)
    span(20, planned=True)
    said = text_of(begun.get("/weeks/3/"))
    assert "40 s Target: under 5 min" in said
    assert "Of 12,034 requests to its services 61 failed, from the first move on." in said
    assert "A service is down while at least 50 % of its requests fail." in said
    assert "Not known for 12 s: the gateway was not read then." in said
    assert "2 min more in planned maintenance, which does not count." in said
    assert "Auth service 40 s 14 of 14" in said
    assert "Auth service planned 20 s 14 of 14" in said


@pytest.mark.parametrize(
    ("seconds", "said", "width"),
    [
        (0, "None Target: under 5 min", 0),
        (0.4, "0.4 s Target:", 1),
        (299, "4 min 59 s Target: under 5 min", 100),
        (150, "2 min 30 s Target", 50),
        (300, "5 min Past the target: under 5 min", 100),
        (4000, "1 h 7 min Past the target: under 5 min", 100),
    ],
)
def test_the_bar_fills_up_to_the_target(begun, seconds, said, width):
    clock(down=timedelta(seconds=seconds))
    answer = begun.get("/weeks/3/")
    assert said in text_of(answer)
    assert f'<rect class="fill" width="{width}" height="6">' in answer.content.decode().partition('id="downtime"')[2]


def test_any_downtime_is_past_a_target_of_none(begun):
    clock(1, down=timedelta(seconds=1))
    assert "1 s Past the target: none" in text_of(begun.get("/weeks/1/"))


def test_what_each_service_had_alone_is_told_where_there_are_several(begun):
    clock(1, down=timedelta(seconds=5), of_services={"rag": 2.0, "storage": 4.5})
    assert "Each alone: Storage service 4.5 s, RAG service 2 s. Together they count once." in text_of(
        begun.get("/weeks/1/")
    )


def test_a_week_without_services_has_no_clock(manager):
    assert 'id="downtime"' not in manager.get("/weeks/6/").content.decode()
    assert 'id="downtime"' not in manager.get("/weeks/6/live/").content.decode()


def test_it_refreshes_by_itself(begun):
    clock(down=timedelta(seconds=40))
    said = begun.get("/weeks/3/live/", headers=HTMX).content.decode()
    assert '<div id="downtime" class="downtime" hx-swap-oob="true">' in said
    assert "40 s" in said


def test_the_timeline_tells_of_it_where_there_was_some(begun):
    clock(down=timedelta(seconds=40))
    clock(1)
    said = text_of(begun.get("/"))
    assert said.count("of downtime") == 1
    assert "40 s of downtime, target: under 5 min" in said


def test_the_timeline_asks_no_more_for_it(begun):
    def queries(page: str) -> int:
        with CaptureQueriesContext(connection) as found:
            begun.get(page)
        return len(found)

    pages = ["/", "/live/", "/weeks/3/", "/services/auth/"]
    [queries(page) for page in pages]
    before = [queries(page) for page in pages]
    clock(1)
    clock(3)
    assert [queries(page) for page in pages] == before
    DowntimeClock.objects.update(down=timedelta(seconds=3))
    assert [queries(page) for page in pages] == [*before[:2], before[2] + 1, before[3]]


def test_support_reads_it_in_plain_words_only_where_there_was_some(begun):
    clock(1, down=timedelta(seconds=40), of_services={"storage": 40.0})
    kept.forget()
    areas = {one["area"]: one["how_well"] for one in begun.get("/status.json").json()["areas"]}
    told = {area for area, well in areas.items() if "did not work" in well}
    assert told == {"Storage locations"}
    assert areas["Storage locations"].endswith("Since it began to move it did not work for 40 s in all.")
    kept.forget()
