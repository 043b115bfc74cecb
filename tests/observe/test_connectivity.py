"""When nothing answers, is it they, or is it us?"""

from __future__ import annotations

import pytest

from migrations_app.observe.connectivity import Connectivity, Word

ALL = ("auth", "rag", "monolith")


@pytest.fixture
def seen() -> Connectivity:
    return Connectivity()


def test_an_answer_of_anybody_since_it_began_makes_a_failure_the_targets_own(seen):
    seen.silent("auth", 10.5)
    seen.answered(10.1)
    assert seen.judge("auth", 10.0, ALL) is Word.OF_TARGET


def test_an_answer_from_before_tells_nothing(seen):
    seen.answered(9.9)
    seen.silent("auth", 10.5)
    assert seen.judge("auth", 10.0, ALL) is Word.IN_DOUBT


def test_nobody_can_tell_once_all_others_and_the_gateway_brought_nothing_since(seen):
    seen.silent("auth", 10.5)
    seen.gateway_silent(10.5)
    assert seen.judge("auth", 10.0, ALL) is Word.IN_DOUBT
    seen.silent("rag", 10.6)
    assert seen.judge("auth", 10.0, ALL) is Word.IN_DOUBT
    seen.silent("monolith", 10.7)
    assert seen.judge("auth", 10.0, ALL) is Word.NOTHING
    assert seen.cut_off


def test_it_takes_the_gateway_too(seen):
    for target in ALL:
        seen.silent(target, 10.5)
    seen.gateway_silent(9.9)
    assert seen.judge("auth", 10.0, ALL) is Word.IN_DOUBT


def test_with_one_target_the_gateway_decides(seen):
    seen.silent("auth", 10.5)
    assert seen.judge("auth", 10.0, ["auth"]) is Word.IN_DOUBT
    seen.gateway_silent(10.6)
    assert seen.judge("auth", 10.0, ["auth"]) is Word.NOTHING


def test_while_it_is_cut_off_no_failure_tells_anything_until_something_answers(seen):
    seen.silent("auth", 10.5)
    seen.gateway_silent(10.6)
    assert seen.judge("auth", 10.0, ["auth"]) is Word.NOTHING
    assert seen.judge("auth", 12.0, ALL) is Word.NOTHING
    seen.answered(13.0)
    assert not seen.cut_off
    assert seen.judge("auth", 12.5, ALL) is Word.OF_TARGET
    assert seen.judge("auth", 14.0, ALL) is Word.IN_DOUBT
