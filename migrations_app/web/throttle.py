"""Slows the guessing of passwords: failed sign-ins are counted by account name and address, and by address alone.

Many people can share one address (a proxy, an office). So that one of them cannot lock out the others, a name that has
signed in lately is held to the limit of name and address alone.

Counted in Django's cache, which is this process's memory: with several web processes the limits are for each.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from datetime import timedelta
from threading import Lock

from django.contrib.auth.models import User
from django.core.cache import cache
from django.utils import timezone

WINDOW = 300  # seconds
LIMIT = 10  # failures of one account name from one address within the window
ADDRESS_LIMIT = 100  # failures of one address within the window, whatever the name
KNOWN_FOR = timedelta(days=30)  # after a sign-in from anywhere, how long the address's limit spares the name
TELL_EVERY = 60  # seconds between two audit events on failures of one name from one address
TELL_WITHIN = 24 * 3600  # seconds for which failures that no event has told yet are kept

_lock = Lock()  # the cache cannot add to a value in one step, and requests run in threads


def plain(name: str) -> str:
    """The name as signing in reads it: Django's form takes off spaces, and composes what looks the same."""
    return unicodedata.normalize("NFKC", name).strip()


def wait_for(name: str, address: str) -> int:
    """Seconds until another try is taken, 0 when it is taken now. Asks the database only past the address's limit."""
    now = time.time()
    wait = _wait(_pair(name, address), LIMIT, now)
    of_address = _wait(_address(address), ADDRESS_LIMIT, now)
    if of_address > wait and not _known(name):
        wait = of_address
    return -int(-wait // 1)


def failed(name: str, address: str) -> None:
    now = time.time()
    with _lock:
        for key, limit in ((_pair(name, address), LIMIT), (_address(address), ADDRESS_LIMIT)):
            cache.set(key, [*_recent(key, now), now][-limit:], WINDOW)


def succeeded(name: str, address: str) -> None:
    """Forget the failures of this account name from this address."""
    cache.delete(_pair(name, address))


def to_tell(subject: str, address: str) -> int:
    """Count one failure; how many an audit event is to tell now. 0: the last event is not a minute old, keep it."""
    key, now = _untold(subject, address), time.time()
    with _lock:
        untold, told_at = cache.get(key, (0, 0.0))
        due = now - told_at >= TELL_EVERY
        cache.set(key, (0, now) if due else (untold + 1, told_at), TELL_WITHIN)
    return untold + 1 if due else 0


def _wait(key: str, limit: int, now: float) -> float:
    failures = _recent(key, now)
    return failures[-limit] + WINDOW - now if len(failures) >= limit else 0.0


def _known(name: str) -> bool:
    if "\x00" in name:
        return False
    return User.objects.filter(
        username=plain(name), is_active=True, last_login__gte=timezone.now() - KNOWN_FOR
    ).exists()


def _pair(name: str, address: str) -> str:
    return _key("pair", plain(name).casefold(), address)


def _address(address: str) -> str:
    return _key("address", address)


def _untold(subject: str, address: str) -> str:
    return _key("untold", subject, address)


def _key(*parts: str) -> str:
    joined = "\n".join(parts).encode("utf-8", "surrogatepass")
    return f"sign-in:{hashlib.sha256(joined).hexdigest()}"


def _recent(key: str, now: float) -> list[float]:
    return [moment for moment in cache.get(key, []) if moment > now - WINDOW]
