"""`flags_on`: how many of the flags are fully on the new side."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from migrations_app.choices import CheckState
from migrations_app.gates.checks import INSTANT
from migrations_app.gates.checks.flags_on import flags_on
from migrations_app.gates.seen import SeenPrerequisite, Snapshot
from migrations_app.gates.verdict import judge

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def seen(weights, *prerequisites) -> Snapshot:
    return Snapshot(6, NOON, prerequisites, (), weights)


@pytest.mark.parametrize(
    ("parameters", "weights", "held", "value"),
    [
        ({"all": True}, {1: {"A": 100}, 2: {"B": 100}}, True, "2 of 2 flags fully on"),
        ({"all": True}, {1: {"A": 100}, 2: {"B": 99}}, False, "1 of 2 flags fully on"),
        ({"weeks": [1]}, {1: {"A": 100}, 2: {"B": 0}}, True, "1 of 1 flags fully on"),
        ({"weeks": [2]}, {1: {"A": 100}, 2: {"B": 0}}, False, "0 of 1 flags fully on"),
        ({"weeks": [1, 2]}, {1: {"A": 100}, 2: {"B": 0}}, False, "1 of 2 flags fully on"),
        ({"weeks": [7]}, {1: {"A": 100}}, False, "0 of 0 flags fully on"),
    ],
)
def test_it_holds_while_every_named_flag_is_fully_on(parameters, weights, held, value):
    found = flags_on(parameters, seen(weights))
    assert (found.state == CheckState.HELD, found.value) == (held, value)


def test_it_says_which_flags_to_enable():
    found = flags_on({"all": True}, seen({1: {"B": 0, "A": 50}, 2: {"C": 100}}))
    assert found.act == "Enable A, B."
    assert found.limit == "3 of 3"


@pytest.mark.parametrize("parameters", [{}, {"all": False}, {"all": True, "weeks": [1]}, {"weeks": ["one"]}])
def test_parameters_that_make_no_sense_raise_nothing_but_what_is_expected(parameters):
    with pytest.raises(ValidationError):
        flags_on(parameters, seen({1: {"A": 100}}))


def test_a_row_whose_parameters_make_no_sense_is_unknown_and_blocks_nothing_else():
    """A plan file cannot say this; a row written by an older version, or by hand, can."""
    lines = (
        SeenPrerequisite(1, "broken", "Broken", "", None, "flags_on", {"weeks": "all"}),
        SeenPrerequisite(2, "sound", "Sound", "", None, "flags_on", {"all": True}),
    )
    found = judge(seen({1: {"A": 100}}, *lines), INSTANT)
    assert [line.held for line in found.lines] == [False, True]
    assert found.lines[0].value.startswith("cannot tell: ")
