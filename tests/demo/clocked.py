"""`python -m tests.demo.clocked MODULE ARGUMENTS`: run a process of the demo and tell how long it takes to end.

Until SIGTERM or SIGINT it runs as `python -m MODULE` does, but for the kind of event loop. From then on time passes
only where it waits for time to pass, and the last line of its output says how much of it did: what the process chose to
wait after the signal, in seconds, however busy the machine is.
"""

import asyncio
import importlib
import signal
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from tests.demo.clock import Clock

Handler = Callable[[int, FrameType | None], object]


def main(module: str, *arguments: str) -> int:
    """Exit status of the module's own `main`."""
    clock = Clock(outside=lambda: False, real=True)
    signalled: list[float] = []
    set_handler = signal.signal

    def set_noted(number: int, handler: Handler | int | None) -> Handler | int | None:
        if not callable(handler) or handler is signal.default_int_handler:
            return set_handler(number, handler)

        def noted(number: int, frame: FrameType | None) -> None:
            signalled.append(clock.leave_real_time())
            handler(number, frame)

        return set_handler(number, noted)

    signal.signal = set_noted
    asyncio.events.new_event_loop = lambda: clock
    uvicorn.Config.get_loop_factory = lambda _: lambda: clock
    status = importlib.import_module(module).main(list(arguments))
    print(f"ended {clock.time() - signalled[0]:.6f} s after the signal", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
