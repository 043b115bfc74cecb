"""Every port is looked at before anything starts, so that a taken one is one line and not a half-started estate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from controlplane.embedded.children import port_is_free
from controlplane.embedded.errors import StartFailed


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A loopback port, what wants it ("the dashboard"), and the setting that moves it."""

    number: int
    wanted_by: str
    setting: str


def check(wanted: Sequence[WantedPort]) -> None:
    """Raises StartFailed, in one line, when a port is taken or two parts want the same."""
    seen: dict[int, WantedPort] = {}
    for port in wanted:
        if port.number in seen:
            other = seen[port.number]
            raise StartFailed(
                f"Port {port.number} is wanted by {other.wanted_by} and by {port.wanted_by}: "
                f"change {other.setting} or {port.setting}."
            )
        seen[port.number] = port
    taken = [port for port in wanted if not port_is_free(port.number)]
    if not taken:
        return
    first, *others = taken
    also = f" (also taken: {', '.join(str(port.number) for port in others)})" if others else ""
    raise StartFailed(
        f"Port {first.number} is taken{_holder(first.number)}; {first.wanted_by} wants it: "
        f"set {first.setting} to move it{also}."
    )


def _holder(number: int) -> str:
    """Who listens there, as far as we may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == number and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""  # another user's process, or a system that does not tell
    return ""
