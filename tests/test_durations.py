"""Lengths of time: how plan files and commands write them, and how people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations_app.durations import LONGEST, format_duration, in_words, parse_duration, to_the_second


@pytest.mark.parametrize(
    ("text", "length", "written"),
    [
        ("0s", timedelta(0), "0h"),
        ("30s", timedelta(seconds=30), "30s"),
        ("90s", timedelta(seconds=90), "90s"),
        ("120s", timedelta(minutes=2), "2m"),
        ("15m", timedelta(minutes=15), "15m"),
        ("90m", timedelta(minutes=90), "90m"),
        ("48h", timedelta(hours=48), "48h"),
        ("3d", timedelta(days=3), "72h"),
        ("90d", LONGEST, "2160h"),
        ("7776000s", LONGEST, "2160h"),
    ],
)
def test_a_length_is_read_and_written_in_the_largest_unit_that_leaves_no_rest(text, length, written):
    assert parse_duration(text) == length
    assert format_duration(length) == written


@pytest.mark.parametrize(
    "value", ["", "5", "s", "5 s", "-5s", "1.5h", "5w", "5S", "5s\n", "٣h", "12345678s", 5, 5.0, None, True, [], b"5s"]
)
def test_anything_else_is_refused_in_words(value):
    with pytest.raises(ValueError, match=r"^expected a length of time such as 30s, 15m, 48h or 3d$"):
        parse_duration(value)


@pytest.mark.parametrize("text", ["91d", "2161h", "7776001s"])
def test_what_is_longer_than_any_plan_is_refused(text):
    with pytest.raises(ValueError, match=r"^longer than 90 days$"):
        parse_duration(text)


@given(st.integers(0, 90 * 86_400))
def test_every_whole_number_of_seconds_comes_back(seconds):
    length = timedelta(seconds=seconds)
    assert parse_duration(format_duration(length)) == length == parse_duration(length)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (48 * 3600, "48 h"),
        (72 * 3600, "72 h"),
        (72 * 3600 + 1, "3 d"),
        (73 * 3600, "3 d 1 h"),
        (90 * 86_400, "90 d"),
    ],
)
def test_people_read_two_units_at_most(seconds, words):
    assert in_words(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.001, "0.1 s"),
        (0.4, "0.4 s"),
        (9.91, "10 s"),
        (10.2, "11 s"),
        (59.5, "1 min"),
        (340, "5 min 40 s"),
        (299.9, "5 min"),
        (3600, "1 h"),
        (3661, "1 h 2 min"),
        (7 * 86_400, "168 h"),
    ],
)
def test_what_is_held_against_a_limit_is_never_told_as_less_than_it_is(seconds, words):
    assert to_the_second(timedelta(seconds=seconds)) == words
