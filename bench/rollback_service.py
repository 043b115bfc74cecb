"""`python -m bench.rollback_service PORT=NAME ...`: services that can fall ill while they are asked.

As `bench.upstreams`, and all of them at once answer 500 after SIGUSR1, take SLOW seconds for each answer after SIGUSR2,
and are well again after SIGHUP. What is asked for their health is answered well at all times: it is the requests of
users that fail.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import uvloop

from bench.upstreams import HOST, Upstream, answer

SLOW = 0.4  # seconds
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\nx-side: service\r\ncontent-length: 0\r\n\r\n"


@dataclass
class Mood:
    """How the services are just now. At most one of the two is set."""

    failing: bool = False
    slow: bool = False

    def become(self, *, failing: bool = False, slow: bool = False) -> None:
        self.failing, self.slow = failing, slow


class Ailing(Upstream):
    """One connection. Requests on it come one after the other."""

    def __init__(self, reply: bytes, mood: Mood) -> None:
        super().__init__(reply)
        self._mood = mood
        self._path = b""

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_message_complete(self) -> None:
        if self._path.endswith(b"/health"):
            super().on_message_complete()
        elif self._mood.slow:
            asyncio.get_running_loop().call_later(SLOW, super().on_message_complete)
        elif self._mood.failing and self._transport is not None:
            self._transport.write(_FAILED)
        else:
            super().on_message_complete()


async def serve(servers: Mapping[int, str]) -> None:
    """Listen on every port until SIGTERM. Raises OSError for a port that is taken."""
    loop, stopped, mood = asyncio.get_running_loop(), asyncio.Event(), Mood()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: mood.become(failing=True))
    loop.add_signal_handler(signal.SIGUSR2, lambda: mood.become(slow=True))
    loop.add_signal_handler(signal.SIGHUP, mood.become)
    for port, name in servers.items():
        reply = answer(name)
        await loop.create_server(lambda reply=reply: Ailing(reply, mood), HOST, port, backlog=1024)
    await stopped.wait()


def main(arguments: list[str]) -> int:
    """Exit status 0 after a signal."""
    servers = {int(port): name for port, _, name in (argument.partition("=") for argument in arguments)}
    uvloop.run(serve(servers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
