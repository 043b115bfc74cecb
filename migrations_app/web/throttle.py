"""Slows the guessing of passwords: failed sign-ins are counted by account name and address, and by address alone.

Counted in Django's cache, which is this process's memory: with several web processes the limits are for each.
"""

from __future__ import annotations

import hashlib
import time

from django.core.cache import cache

WINDOW = 300  # seconds
LIMIT = 10  # failures of one account name from one address within the window
ADDRESS_LIMIT = 50  # failures of one address within the window, whatever the name


def wait_for(name: str, address: str) -> int:
    """Seconds until another try is taken, 0 when it is taken now."""
    now = time.time()
    waits = [0.0]
    for key, limit in _counters(name, address):
        failures = _recent(key, now)
        if len(failures) >= limit:
            waits.append(failures[-limit] + WINDOW - now)
    return max(0, -int(-max(waits) // 1))


def failed(name: str, address: str) -> None:
    now = time.time()
    for key, limit in _counters(name, address):
        cache.set(key, [*_recent(key, now), now][-limit:], WINDOW)


def succeeded(name: str, address: str) -> None:
    """Forget the failures of this account name from this address."""
    cache.delete(_counters(name, address)[0][0])


def _counters(name: str, address: str) -> list[tuple[str, int]]:
    both = hashlib.sha256(f"{name.casefold()}\n{address}".encode()).hexdigest()
    return [(f"sign-in:{both}", LIMIT), (f"sign-in-address:{address}", ADDRESS_LIMIT)]


def _recent(key: str, now: float) -> list[float]:
    return [moment for moment in cache.get(key, []) if moment > now - WINDOW]
