"""Which addresses are polled: those in the networks that are allowed, and some never. No Django.

A plan is written by people, and names may resolve to anything. Without this the poller, which runs inside, would ask
whatever a plan names, the keys of the machine at the cloud's metadata address among it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Never, whatever is allowed; with the words for it.
_NEVER: dict[Network, str] = {
    ipaddress.ip_network(network): what
    for what, networks in {
        "an address of cloud metadata": (
            "169.254.169.254/32",
            "169.254.170.2/32",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
        ),
        "a link-local address": ("169.254.0.0/16", "fe80::/10"),
        "a multicast address": ("224.0.0.0/4", "ff00::/8"),
        "no address of a host": ("0.0.0.0/8", "240.0.0.0/4", "::/128"),
    }.items()
    for network in networks
}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.ip_network("::/96")
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}  # the upper half of the interface identifier


class Networks:
    """The networks that may be polled, as CIDRs. Raises ValueError for what is none."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = tuple(ipaddress.ip_network(network) for network in allowed)

    def refusal(self, address: str) -> str:
        """Why this numeric address is not connected to; empty when it may be."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return f"{address} is not an address"
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped  # the same connection
        for one in (found, *_within(found)):
            for network, what in _NEVER.items():
                if one in network:
                    inside = "" if one == found else f", which leads to {one}"
                    return f"{address}{inside} is {what}, which is never polled"
        if not any(found in network for network in self._allowed):
            return f"{address} is in none of the networks that may be polled (HEALTH_NETWORKS)"
        return ""


def _within(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to by way of a translator or a tunnel."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    number = int(address)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    if address in _NAT64_LOCAL:
        # RFC 6052: the four bytes lie around the ninth, which is zero, or last, by the length of the prefix in use.
        raw = address.packed
        for first in (raw[6:8] + raw[9:11], raw[7:8] + raw[9:12], raw[9:13], raw[12:16]):
            if first[0]:
                yield ipaddress.IPv4Address(first)
    if address in _COMPATIBLE and number > 1:
        yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    if number >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)
