"""Charts from numbers."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations_app.web.charts import HEIGHT, WIDTH, Chart, Event, Series, draw, nice_top

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def chart(*series: Series, events=(), hours=1, zone=UTC) -> Chart:
    return draw(
        series,
        since=NOON - timedelta(hours=hours),
        until=NOON,
        step=MINUTE,
        say=lambda value: f"{value:g} ms",
        zone=zone,
        events=events,
    )


def line(*values, key="new", begins=-10):
    return Series(key, key, [(NOON + MINUTE * (begins + index), value) for index, value in enumerate(values)])


def test_the_line_goes_through_the_middle_of_each_step_at_its_height():
    found = chart(line(50, 100, 0, begins=-30))
    assert found.lines[0].path == "M508.33 50L525 0L541.67 100"
    assert found.ups == ("100 ms", "50 ms", "0 ms")


def test_a_missing_step_and_an_unknown_value_are_gaps():
    missing = Series("new", "new", [(NOON - 30 * MINUTE, 1.0), (NOON - 29 * MINUTE, 1.0), (NOON - 20 * MINUTE, 1.0)])
    assert chart(missing).lines[0].path == "M508.33 0L525 0 M675 0h1"
    assert chart(line(1, None, 1, begins=-30)).lines[0].path == "M508.33 0h1 M541.67 0h1"


def test_what_lies_outside_is_left_out():
    series = Series("new", "new", [(NOON - timedelta(hours=2), 900.0), (NOON - MINUTE, 3.0), (NOON, 900.0)])
    found = chart(series)
    assert found.ups[0] == "5 ms"
    assert len(found.readings) == 1


def test_readings_tell_both_lines_of_a_step_in_one_sentence():
    found = chart(line(3, 4), line(7, None, key="old"))
    assert [reading.words for reading in found.readings] == ["11:50: new 3 ms, old 7 ms", "11:51: new 4 ms"]


def test_labels_and_readings_are_in_the_zone_that_is_asked_for():
    found = chart(line(1), zone=ZoneInfo("Asia/Tokyo"))
    assert found.unders == ("20:00", "20:15", "20:30", "20:45", "21:00")
    assert found.readings[0].when == "20:50"
    assert chart(line(1), hours=48).unders[0] == "20 Nov 12:00"


def test_events_stand_where_they_happened_in_order():
    events = [
        Event(NOON - timedelta(minutes=15), "back", "rolled back"),
        Event(NOON - timedelta(minutes=30), "up", "enabled"),
        Event(NOON - timedelta(hours=3), "up", "long ago"),
    ]
    assert [(mark.x, mark.key) for mark in chart(line(1), events=events).marks] == [(500, "up"), (750, "back")]


def test_nothing_is_drawn_of_nothing():
    found = chart(Series("new", "new", []))
    assert found.empty
    assert found.lines[0].path == ""


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.2, 1), (1, 1), (1.1, 2), (3, 5), (51, 100), (100, 100), (201, 500), (30_000, 50_000)]
)
def test_the_top_is_a_round_number(value, top):
    assert nice_top(value) == top


@given(st.lists(st.one_of(st.none(), st.floats(0, 30_000)), max_size=60))
def test_nothing_is_ever_drawn_outside_of_the_drawing(values):
    path = chart(line(*values, begins=-60)).lines[0].path
    numbers = path.replace("M", " ").replace("L", " ").replace("h1", "").split()
    for x, y in zip(numbers[::2], numbers[1::2], strict=True):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT
