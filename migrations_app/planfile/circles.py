"""Circles in a graph of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Set


def circles(edges: Mapping[int, Set[int]]) -> list[list[int]]:
    """One circle out of each knot of nodes that reach each other, each beginning with its lowest node.

    Every target must be a key of `edges`. Without recursion: a plan may have hundreds of weeks in a row.
    """
    left = _without_loose_ends({node: set(targets) for node, targets in edges.items()})
    found: list[list[int]] = []
    while left:
        path, seen = [min(left)], {min(left): 0}
        while (following := min(left[path[-1]])) not in seen:
            seen[following] = len(path)
            path.append(following)
        circle = path[seen[following] :]
        lowest = circle.index(min(circle))
        found.append(circle[lowest:] + circle[:lowest])
        for node in circle:
            del left[node]
        left = _without_loose_ends({node: targets & left.keys() for node, targets in left.items()})
    return sorted(found)


def _without_loose_ends(edges: dict[int, set[int]]) -> dict[int, set[int]]:
    """What is left when nodes that lead nowhere are taken away until none is."""
    loose = [node for node, targets in edges.items() if not targets]
    sources: dict[int, set[int]] = {node: set() for node in edges}
    for node, targets in edges.items():
        for target in targets:
            sources[target].add(node)
    while loose:
        gone = loose.pop()
        del edges[gone]
        for source in sources[gone] & edges.keys():
            edges[source].discard(gone)
            if not edges[source]:
                loose.append(source)
    return edges
