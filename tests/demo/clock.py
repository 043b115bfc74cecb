"""An event loop with a clock of its own: how long code waits can be told exactly, on a machine however busy."""

import asyncio
import selectors
import time
from collections.abc import Callable

# Real seconds after which a test that waits for something outside fails instead of hanging.
PATIENCE_S = 30.0


class Clock(asyncio.SelectorEventLoop):
    """Its time stands still while there is something to do, and moves at once to the next timer while there is not.

    `outside` says whether something outside the loop, such as a server's answer, is still to come, so that time has to
    stand still for it; by default that is so while a socket is waited for. With `real` the clock is that of the machine
    until `leave_real_time` is called.
    """

    def __init__(self, outside: Callable[[], bool] | None = None, *, real: bool = False) -> None:
        self.outside = outside
        self.real = real
        self._now = 0.0
        self._waits = _Waits(self)
        super().__init__(self._waits)
        # What the loop itself waits for: its own wake-up pipe.
        self._own = len(self._waits.get_map())

    def time(self) -> float:
        """Seconds; the same for however long the machine takes."""
        return time.monotonic() if self.real else self._now

    def leave_real_time(self) -> float:
        """From here on time is the loop's own. Gives what it is now."""
        if self.real:
            self._now, self.real = time.monotonic(), False
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Let time pass as it does while the machine is too busy to run the loop."""
        self._now += seconds

    def expects_something(self) -> bool:
        """Whether time must stand still for what comes from outside."""
        return len(self._waits.get_map()) > self._own if self.outside is None else self.outside()


class _Waits(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._since: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._clock.real:
            return super().select(timeout)
        if (ready := super().select(0)) or timeout == 0:
            self._since = None
            return ready
        if timeout is not None and not self._clock.expects_something():
            self._since = None
            self._clock.pass_time(timeout)
            return []
        self._since = self._since or time.monotonic()
        assert time.monotonic() - self._since < PATIENCE_S, "what was expected from outside did not come"
        return super().select(0.01)
