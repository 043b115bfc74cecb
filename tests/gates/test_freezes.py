"""When a freeze is on: on a calendar's edges, on both nights of daylight saving, and against a table of minutes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migrations_app.gates.freezes import span_at
from migrations_app.models import Freeze

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
MINUTE = timedelta(minutes=1)


def recurring(weekdays: str, begin: str, end: str, zone: str = BERLIN) -> Freeze:
    return Freeze(
        title="recurring",
        weekdays=weekdays,
        from_time=time.fromisoformat(begin),
        until_time=time.fromisoformat(end),
        timezone=zone,
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(text: str, zone: str = BERLIN, *, fold: int = 0) -> datetime:
    """The moment at which the clock of the zone shows this; with `fold` 1, when it does for the second time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def test_a_one_off_freeze_has_its_first_moment_and_not_its_last():
    begin, end = utc("2026-12-20T18:00"), utc("2027-01-04T08:00")
    freeze = Freeze(title="holidays", starts_at=begin, ends_at=end, timezone=BERLIN)
    tick = timedelta(microseconds=1)
    assert span_at(freeze, begin - tick) is None
    assert span_at(freeze, begin) == (begin, end)
    assert span_at(freeze, end - tick) == (begin, end)
    assert span_at(freeze, end) is None


@pytest.mark.parametrize(
    "freeze",
    [
        Freeze(starts_at=utc("2026-12-20T18:00"), ends_at=utc("2027-01-04T08:00"), timezone=BERLIN),
        recurring("1234567", "00:00", "00:00"),
    ],
    ids=["one-off", "recurring"],
)
def test_a_lifted_freeze_is_never_on(freeze):
    now = utc("2026-12-24T18:00")
    assert span_at(freeze, now) is not None
    freeze.lifted_at = now - timedelta(days=1)
    assert span_at(freeze, now) is None


def test_a_recurring_freeze_is_on_within_its_hours_of_its_days():
    freeze = recurring("5", "16:00", "20:00")  # Fridays; 27 November 2026 is one
    begin, end = shown("2026-11-27T16:00"), shown("2026-11-27T20:00")
    assert begin == utc("2026-11-27T15:00")
    assert span_at(freeze, begin - MINUTE) is None
    assert span_at(freeze, begin) == (begin, end)
    assert span_at(freeze, end - MINUTE) == (begin, end)
    assert span_at(freeze, end) is None
    for days in range(1, 7):
        assert span_at(freeze, begin + timedelta(days=days)) is None
    assert span_at(freeze, begin + timedelta(days=7)) is not None


@pytest.mark.parametrize("weekday", range(1, 8))
def test_each_weekday_alone_freezes_that_day_and_the_morning_after(weekday):
    freeze = recurring(str(weekday), "18:00", "08:00")
    monday = date(2026, 11, 23)
    for day in range(7):
        noon = shown(f"{monday + timedelta(days=day)}T12:00")
        assert span_at(freeze, noon) is None
        evening, morning = noon + timedelta(hours=8), noon + timedelta(hours=18)
        frozen = day + 1 == weekday
        assert (span_at(freeze, evening) is not None) is frozen
        assert (span_at(freeze, morning) is not None) is frozen


def test_a_night_on_sunday_ends_on_monday():
    freeze = recurring("7", "22:00", "06:00")
    span = (shown("2026-11-29T22:00"), shown("2026-11-30T06:00"))
    assert span_at(freeze, shown("2026-11-29T23:59")) == span
    assert span_at(freeze, shown("2026-11-30T00:00")) == span
    assert span_at(freeze, shown("2026-11-30T05:59")) == span
    assert span_at(freeze, shown("2026-11-30T06:00")) is None
    assert span_at(freeze, shown("2026-11-29T05:00")) is None


def test_the_weekday_is_that_of_the_zone_and_not_of_utc():
    freeze = recurring("1", "00:00", "02:00", "Pacific/Kiritimati")  # 14 h ahead of UTC
    assert span_at(freeze, utc("2026-11-22T10:30")) is not None  # a Sunday in UTC
    assert span_at(freeze, utc("2026-11-23T10:30")) is None


def test_whole_days_that_follow_on_each_other_are_one_span():
    weekend = recurring("67", "00:00", "00:00")
    span = (shown("2026-11-28T00:00"), shown("2026-11-30T00:00"))
    for moment in ("2026-11-28T00:00", "2026-11-28T13:00", "2026-11-29T00:00", "2026-11-29T23:59"):
        assert span_at(weekend, shown(moment)) == span
    assert span_at(weekend, shown("2026-11-27T23:59")) is None
    assert span_at(weekend, shown("2026-11-30T00:00")) is None
    six = recurring("123456", "00:00", "00:00")
    assert span_at(six, shown("2026-11-23T09:00")) == (shown("2026-11-23T00:00"), shown("2026-11-29T00:00"))
    assert span_at(six, shown("2026-11-28T09:00")) == (shown("2026-11-23T00:00"), shown("2026-11-29T00:00"))


def test_all_seven_whole_days_are_always_frozen_and_end_ever_later():
    always = recurring("1234567", "09:00", "09:00")
    for hours in range(0, 14 * 24, 5):
        now = utc("2026-10-20T00:00") + timedelta(hours=hours)
        begin, end = span_at(always, now)
        assert begin <= now < end
        assert end - now > timedelta(days=5)


# The clock leaps from 02:00 to 03:00 on the first of each pair, and goes from 03:00 (02:00) back to 02:00 (01:00) on
# the second.
NIGHTS = [(BERLIN, "2027-03-28", "2026-10-25"), (NEW_YORK, "2027-03-14", "2026-11-01")]


@pytest.mark.parametrize(("zone", "forward", "back"), NIGHTS)
def test_a_night_is_an_hour_shorter_or_longer_when_the_clock_is_put(zone, forward, back):
    freeze = recurring("6", "22:00", "06:00", zone)
    for day, hours in ((forward, 7), (back, 9), ("2027-01-10", 8)):
        end = shown(f"{day}T06:00", zone)
        begin = end - timedelta(hours=hours)
        assert begin.astimezone(ZoneInfo(zone)).hour == 22
        assert span_at(freeze, begin - MINUTE) is None
        assert span_at(freeze, begin) == (begin, end)
        assert span_at(freeze, end - MINUTE) == (begin, end)
        assert span_at(freeze, end) is None


@pytest.mark.parametrize(("zone", "forward", "_back"), NIGHTS)
def test_a_time_that_the_clock_leaps_over_counts_as_the_leap(zone, forward, _back):
    leap = shown(f"{forward}T03:00", zone)
    assert span_at(recurring("7", "02:30", "05:00", zone), leap) == (leap, shown(f"{forward}T05:00", zone))
    assert span_at(recurring("7", "02:30", "05:00", zone), leap - MINUTE) is None
    evening = recurring("6", "22:00", "02:30", zone)
    assert span_at(evening, leap - MINUTE) == (leap - timedelta(hours=4), leap)
    assert span_at(evening, leap) is None
    within = recurring("7", "02:10", "02:50", zone)  # there is no such time that night
    assert not any(span_at(within, leap + step * MINUTE) for step in range(-180, 180))
    assert span_at(within, shown(f"{forward}T02:10", zone) + timedelta(days=7) - timedelta(hours=1)) is not None


@pytest.mark.parametrize(("zone", "_forward", "back", "hour"), [(*NIGHTS[0], "02"), (*NIGHTS[1], "01")])
def test_an_hour_that_the_clock_shows_twice_is_frozen_from_the_first_to_the_last(zone, _forward, back, hour):
    first, second = (shown(f"{back}T{hour}:30", zone, fold=fold) for fold in (0, 1))
    assert second - first == timedelta(hours=1)
    until = recurring("6", "22:00", f"{hour}:30", zone)
    assert span_at(until, second - MINUTE)[1] == second
    assert span_at(until, first + 5 * MINUTE)[1] == second
    assert span_at(until, second) is None
    begins = recurring("7", f"{hour}:30", "06:00", zone)
    assert span_at(begins, first - MINUTE) is None
    assert span_at(begins, first)[0] == first
    assert span_at(begins, second - 20 * MINUTE)[0] == first  # the clock shows 02:10 once more


def test_a_clock_that_leaps_at_midnight_begins_the_day_with_the_leap():
    freeze = recurring("7", "00:00", "03:00", "America/Havana")  # 14 March 2027: 00:00 is 01:00
    leap = shown("2027-03-14T01:00", "America/Havana")
    assert span_at(freeze, leap) == (leap, leap + timedelta(hours=2))
    assert span_at(freeze, leap - MINUTE) is None


def test_a_day_that_a_zone_has_left_out_has_no_freeze():
    """Samoa went from Thursday, 29 December 2011, to Saturday, the 31st."""
    friday = recurring("5", "08:00", "20:00", "Pacific/Apia")
    leap = utc("2011-12-30T10:00")
    assert not any(span_at(friday, leap + step * timedelta(minutes=30)) for step in range(-96, 96))
    night = recurring("4", "22:00", "06:00", "Pacific/Apia")
    assert span_at(night, leap - MINUTE) == (leap - timedelta(hours=2), leap)
    assert span_at(night, leap) is None


# Zones, and moments near which their clocks are put forward or back; half an hour, a whole day, just after midnight.
EDGES = [
    (BERLIN, utc("2026-10-25T01:00")),
    (BERLIN, utc("2027-03-28T01:00")),
    (NEW_YORK, utc("2026-11-01T06:00")),
    (NEW_YORK, utc("2027-03-14T07:00")),
    ("Australia/Lord_Howe", utc("2026-10-03T15:30")),
    ("Australia/Lord_Howe", utc("2027-04-03T15:00")),
    ("America/Havana", utc("2026-11-01T05:00")),
    ("America/St_Johns", utc("2005-10-30T02:31")),
    ("America/St_Johns", utc("2006-04-02T03:31")),
    ("Pacific/Apia", utc("2011-12-30T10:00")),
    ("Asia/Kathmandu", utc("2026-12-31T18:15")),
    ("UTC", utc("2026-12-31T00:00")),
]
AROUND = 3 * 24 * 60  # minutes to either side of the edge
minutes_of_a_day = st.integers(0, 24 * 60 - 1).map(lambda minute: time(*divmod(minute, 60)))
near_night = st.integers(0, 4 * 60 - 1).map(lambda minute: time(*divmod(minute, 60)))


def table(freeze: Freeze, middle: datetime) -> list[tuple[datetime, bool]]:
    """Minute -> frozen, by reading a clock on the wall through six days and nothing else.

    A freeze of a day begins with the first minute that shows `from_time` or later, and ends after the last one that
    shows less than `until_time`.
    """
    zone = ZoneInfo(freeze.timezone)
    moments = [middle + step * MINUTE for step in range(-AROUND, AROUND)]
    walls = [moment.astimezone(zone).replace(tzinfo=None) for moment in moments]
    frozen = [False] * len(moments)
    day, last = walls[0].date() - timedelta(days=2), walls[-1].date() + timedelta(days=1)
    while day <= last:
        if str(day.isoweekday()) in freeze.weekdays:
            begin = datetime.combine(day, freeze.from_time)
            overnight = freeze.until_time <= freeze.from_time
            end = datetime.combine(day + timedelta(days=overnight), freeze.until_time)
            first = next((index for index, wall in enumerate(walls) if wall >= begin), len(walls))
            after = max((index + 1 for index, wall in enumerate(walls) if wall < end), default=0)
            frozen[first:after] = [True] * max(0, after - first)
        day += timedelta(days=1)
    return list(zip(moments, frozen, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    edge=st.sampled_from(EDGES),
    weekdays=st.sets(st.sampled_from("1234567"), min_size=1),
    begin=minutes_of_a_day | near_night,
    end=minutes_of_a_day | near_night,
    offset=st.integers(0, 6),
)
@example(edge=EDGES[0], weekdays={"6", "7"}, begin=time(2, 30), end=time(2, 30), offset=0)
@example(edge=EDGES[1], weekdays={"6", "7"}, begin=time(2, 30), end=time(2, 30), offset=0)
@example(edge=EDGES[4], weekdays={"7"}, begin=time(2, 10), end=time(2, 20), offset=0)
@example(edge=EDGES[7], weekdays={"7"}, begin=time(0, 0), end=time(5, 0), offset=0)
@example(edge=EDGES[6], weekdays={"1", "2", "3", "4", "5", "6"}, begin=time(0, 0), end=time(0, 0), offset=0)
@example(edge=EDGES[9], weekdays={"4", "5"}, begin=time(22, 0), end=time(3, 0), offset=0)
def test_a_recurring_freeze_is_what_a_table_of_minutes_says(edge, weekdays, begin, end, offset):
    zone, middle = edge
    freeze = Freeze(weekdays="".join(sorted(weekdays)), from_time=begin, until_time=end, timezone=zone)
    minutes = table(freeze, middle)
    for index, (moment, frozen) in enumerate(minutes):
        changes = index > 0 and minutes[index - 1][1] != frozen
        next_changes = index + 1 < len(minutes) and minutes[index + 1][1] != frozen
        if changes or next_changes or index % 7 == offset:
            span = span_at(freeze, moment)
            assert (span is not None) is frozen, f"{moment.astimezone(ZoneInfo(zone))} of {freeze.weekdays}"
            if span is not None:
                assert span[0] <= moment < span[1]
                if begin != end:  # whole days are one span with those beside them
                    assert span_at(freeze, span[0]) == span
