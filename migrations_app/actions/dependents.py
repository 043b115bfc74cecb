"""Which weeks rest on which, for rolling back in the order in which they would fall."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models import Flag, Week


def last_first() -> list[Week]:
    """All weeks of the plan: each before those that it rests on, the highest number first among equals."""
    weeks = {week.number: week for week in Week.objects.all()}
    return [weeks[number] for number in reverse_order(weeks, _before())]


def weeks_resting_on(number: int) -> list[Week]:
    """The weeks that come after this one, and after those, in the same order. `number` itself is not among them."""
    before = _before()
    numbers = resting_on(number, before)
    weeks = {week.number: week for week in Week.objects.filter(number__in=numbers)}
    return [weeks[one] for one in reverse_order(weeks, before)]


def still_on_after(number: int) -> list[int]:
    """Numbers of the weeks that rest on this one and have traffic on the new side, in the same order."""
    on = set(Flag.objects.filter(weight__gt=MONOLITH_WEIGHT).values_list("week_id", flat=True))
    return [week.number for week in weeks_resting_on(number) if week.pk in on] if on else []


def resting_on(number: int, before: Mapping[int, Iterable[int]]) -> set[int]:
    """Numbers of the weeks that rest on one, however far. `before`: number of a week -> those that it comes after."""
    found: set[int] = set()
    waiting = {number}
    while waiting:
        waiting = {week for week, earlier in before.items() if not waiting.isdisjoint(earlier)} - found - {number}
        found |= waiting
    return found


def reverse_order(numbers: Collection[int], before: Mapping[int, Iterable[int]]) -> list[int]:
    """Each week before those that it rests on, however far; the highest number first among equals."""
    left = set(numbers)
    ordered: list[int] = []
    while left:
        # A plan has no circles; were there one, its weeks would come by their numbers.
        free = {number for number in left if not resting_on(number, before) & left} or left
        ordered.append(max(free))
        left.remove(ordered[-1])
    return ordered


def weeks_in_words(numbers: Sequence[int]) -> str:
    """In the order given: "week 4", "weeks 4 and 3", "weeks 5, 4 and 3"."""
    *others, last = map(str, numbers)
    return f"weeks {', '.join(others)} and {last}" if others else f"week {last}"


def _before() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for week, earlier in Week.after.through.objects.values_list("from_week__number", "to_week__number"):
        found.setdefault(week, []).append(earlier)
    return found
