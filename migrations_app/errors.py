"""What an action can refuse, as one tree. Every message is a sentence for the person who acted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migrations_app.gates.verdict import Verdict


def first_line(error: BaseException) -> str:
    """What it says, on one line; its name when it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class ActionError(Exception):
    """The root: the action changed nothing (but for Partly), and says why."""


class NotPermitted(ActionError):
    """The actor lacks the permission."""


class NotFound(ActionError):
    """What the action names is not in the plan."""


class Invalid(ActionError):
    """The request makes no sense: a weight outside 0-100, an automatic prerequisite ticked by hand.

    `field` is what of the request is wrong, where that is one thing.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Stale(ActionError):
    """The page that asked was older than what is stored: somebody else has changed this meanwhile."""


class Pinned(ActionError):
    """The flag is held on the old side; whoever wants it on has to lift that first."""


class Busy(ActionError):
    """Another change holds the plan for longer than a click waits."""


class GateClosed(ActionError):
    """The gate of the week is closed. `verdict` has every reason, and the audit log has it too.

    `subject` is what was to be changed, as the audit log calls it.
    """

    def __init__(self, verdict: Verdict, subject: str = "") -> None:
        super().__init__(verdict.sentence())
        self.verdict, self.subject = verdict, subject


class Partly(ActionError):
    """A part of what was asked for was done, and stays; the rest was refused: why, and by what, is the `__cause__`."""


class PlanConflict(ActionError):
    """The plan would change what a started week promised, or what carries traffic. `conflicts`: a sentence each."""

    def __init__(self, conflicts: list[str]) -> None:
        super().__init__("\n".join(conflicts))
        self.conflicts = conflicts
