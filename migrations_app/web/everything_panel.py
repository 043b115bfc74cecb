"""What a rollback of everything moves, in numbers: for the page that asks, and for the pages that lead there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from migrations_app.actions.dependents import weeks_in_words
from migrations_app.gateways.base import MONOLITH_WEIGHT
from migrations_app.models.gateways import still_on

from .board import Board, ServiceRow


@dataclass(frozen=True, slots=True)
class Everything:
    """The services that have traffic on the new side, and the numbers of their weeks. False while there are none."""

    services: tuple[ServiceRow, ...]
    numbers: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.services)

    @property
    def weeks(self) -> str:
        """In words."""
        return weeks_in_words(self.numbers)

    @property
    def requests(self) -> int:
        """Of the last minute that were meant for the new side."""
        return sum(one.traffic.meant_for_new for one in self.services)

    @property
    def new_side_only(self) -> str:
        """Titles of those that the monolith never had."""
        return in_words(one.row.title for one in self.services if one.row.new_side_only)


def everything_of(board: Board) -> Everything:
    """What is asked for, and what a gateway that is ahead of this database still sends there."""
    ahead = still_on(board.plan, board.gateways)
    on = [
        (week.week.number, one)
        for week in board.weeks
        for one in week.services
        if one.row.weight > MONOLITH_WEIGHT or one.row.key in ahead
    ]
    return Everything(tuple(one for _, one in on), tuple(dict.fromkeys(number for number, _ in on)))


def in_words(names: Iterable[str]) -> str:
    *others, last = list(names) or [""]
    return f"{', '.join(others)} and {last}" if others else last
