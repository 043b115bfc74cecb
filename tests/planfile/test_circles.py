"""Circles in a graph of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from migrations_app.planfile.circles import circles


def test_no_circle_in_a_long_row():
    assert circles({number: {number - 1} if number else set() for number in range(5000)}) == []


def test_each_knot_gives_a_circle_from_its_lowest_number():
    edges = {1: {2}, 2: {1}, 3: {1}, 4: {6}, 5: {4}, 6: {5, 1}, 7: set()}
    assert circles(edges) == [[1, 2], [4, 6, 5]]


@given(st.dictionaries(st.integers(0, 7), st.sets(st.integers(0, 7))))
def test_what_is_found_are_circles_and_none_is_missed(edges):
    edges = {number: edges.get(number, set()) for number in range(8)}
    found = circles(edges)
    for circle in found:
        assert all(after in edges[before] for before, after in zip(circle, [*circle[1:], circle[0]], strict=True))
    # Without the circles' nodes, what is left can be put in a row.
    left = {node: targets for node, targets in edges.items() if not any(node in circle for circle in found)}
    while loose := [node for node, targets in left.items() if not targets & left.keys()]:
        left = {node: targets for node, targets in left.items() if node not in loose}
    assert not left
