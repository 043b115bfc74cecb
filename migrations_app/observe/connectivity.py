"""Whether failed polls tell of their targets, or only that the poller itself is cut off. Pure: it is told the moments.

A poll that brought nothing back (refused, no way there, too slow) tells of its target as soon as anything else has
answered since it began: another target, or the gateway. While nothing has, it is in doubt; once every other target has
failed in the same way since, and the gateway too, nobody can tell how they all are.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum


class Word(Enum):
    """What a failed poll tells."""

    OF_TARGET = "it has failed"
    NOTHING = "the poller is cut off"
    IN_DOUBT = "wait"


class Connectivity:
    """Keeps what came back and what did not. Moments are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._answered = float("-inf")  # when an answer came last
        self._silent: dict[str, float] = {}  # target -> when its last poll ended with nothing
        self._gateway_silent = float("-inf")  # when the last question to the gateway that brought nothing was sent
        self._cut_off = False

    @property
    def cut_off(self) -> bool:
        """Whether nothing has answered since it was found that nothing does."""
        return self._cut_off

    def answered(self, at: float) -> None:
        """Something came back, be it nonsense."""
        self._answered = max(self._answered, at)
        self._cut_off = False

    def silent(self, target: str, at: float) -> None:
        """A poll of this target has ended with nothing."""
        self._silent[target] = at

    def gateway_silent(self, asked: float) -> None:
        """The gateway was asked at this moment and did not answer."""
        self._gateway_silent = max(self._gateway_silent, asked)

    def judge(self, target: str, begun: float, others: Collection[str]) -> Word:
        """What a poll of `target` that began at `begun` and brought nothing tells; `others` are polled beside it."""
        if self._answered >= begun:
            return Word.OF_TARGET
        if self._cut_off:
            return Word.NOTHING
        asked_gateway = self._gateway_silent >= begun
        if asked_gateway and all(self._silent.get(o, float("-inf")) >= begun for o in others if o != target):
            self._cut_off = True
            return Word.NOTHING
        return Word.IN_DOUBT
