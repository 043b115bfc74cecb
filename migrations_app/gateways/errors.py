"""What can go wrong between us and a gateway. Every message is a sentence that an operator can act on."""

from __future__ import annotations

from collections.abc import Collection


class GatewayError(Exception):
    """The root: a gateway did not do, or could not be asked, what we wanted.

    `replaced`: what of somebody else's was overwritten all the same, before it went wrong; a sentence each.
    """

    replaced: tuple[str, ...] = ()


class InvalidTable(GatewayError):
    """The routing table cannot be expressed on this gateway; names the route and the field."""


class StaleGeneration(GatewayError):
    """The gateway has a higher generation than the one offered. Nothing was written."""

    def __init__(self, offered: int, current: int) -> None:
        super().__init__(f"generation {offered} is older than generation {current}, which the gateway already has")
        self.offered = offered
        self.current = current


class Pinned(GatewayError):
    """The table sends requests of pinned flags to the new side. Nothing was written."""

    def __init__(self, flags: Collection[str]) -> None:
        super().__init__(f"pinned to the old side: {', '.join(sorted(flags))}")
        self.flags = frozenset(flags)


class Obsolete(GatewayError):
    """Nobody knows what was applied last: nothing was, the note of it is lost, or an older version wrote it."""


class Rejected(GatewayError):
    """The gateway, or its validator, refuses the configuration. What ran before keeps running."""


class NotConfirmed(GatewayError):
    """The configuration was handed over, but the gateway did not say in time that it runs it."""


class Unreachable(GatewayError):
    """The gateway does not answer."""


class Unplaced(Unreachable):
    """Nothing tells this process where the gateway is."""


class FolderUnusable(GatewayError):
    """The gateway's folder is not there, or cannot be read or written."""


class FolderBusy(GatewayError):
    """Another process holds the lock of the gateway's folder for longer than we wait."""
