"""Slows the guessing of passwords: failed sign-ins are counted by account name and source, and by source alone.

A source is an address, or of IPv6 a network (`source`). Many people can share one. So that one of them cannot lock out
the others, whoever has signed in lately and has the right password is let in past the limit of the source. To everybody
else the answer is the same there, whether the name exists or not; and past a second limit nothing is looked at.

Counted in Django's cache, which is this process's memory: with several web processes the limits are for each.
"""

from __future__ import annotations

import hashlib
import math
import time
import unicodedata
from datetime import timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address
from threading import Lock

from django.contrib.auth.models import User
from django.core.cache import cache
from django.utils import timezone

WINDOW = 300  # seconds
LIMIT = 10  # failures of one account name from one source within the window
SOURCE_LIMIT = 100  # failures of one source within the window, whatever the name
LAST_LIMIT = 200  # the same, after which no password is looked at any more: each takes half a second to compare
KNOWN_FOR = timedelta(days=30)  # after a sign-in from anywhere, how long the source's limit spares the account
CUSTOMER = 64  # bits of an IPv6 network that a single customer has: whoever has one has all addresses in it
TELL_EVERY = 60  # seconds between two audit events on failures of one name from one source
TELL_MOST = 10  # audit events on failures of one name within that time, from wherever they come
TELL_WITHIN = 24 * 3600  # seconds for which failures that no event has told yet are kept

_lock = Lock()  # the cache cannot add to a value in one step, and requests run in threads


def plain(name: str) -> str:
    """The name as signing in reads it: Django's form takes off spaces, and composes what looks the same."""
    return unicodedata.normalize("NFKC", name).strip()


def source(address: str) -> str:
    """What an address is counted as."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or IPv6Network((int(found), CUSTOMER), strict=False))


def wait_for(name: str, address: str) -> int:
    """Seconds until a password for this name is looked at again, 0 when it is now."""
    now = time.time()
    return math.ceil(max(_wait(_pair(name, address), LIMIT, now), _wait(_source(address), LAST_LIMIT, now)))


def wait_of(address: str) -> int:
    """Seconds until the source is below its limit again. Until then `is_known` tells who is let in."""
    return math.ceil(_wait(_source(address), SOURCE_LIMIT, time.time()))


def is_known(user: User) -> bool:
    """Ask it before the account is signed in: that is kept as its last time."""
    return user.last_login is not None and user.last_login >= timezone.now() - KNOWN_FOR


def failed(name: str, address: str) -> None:
    now = time.time()
    with _lock:
        for key, limit in ((_pair(name, address), LIMIT), (_source(address), LAST_LIMIT)):
            cache.set(key, [*_recent(key, now), now][-limit:], WINDOW)


def succeeded(name: str, address: str) -> None:
    """Forget the failures of this account name from this source."""
    cache.delete(_pair(name, address))


def to_tell(subject: str, address: str) -> dict[str, int]:
    """Count one failure; what an audit event is to tell of it now, nothing when it is kept for a later one.

    `failures` from this source since the event before; `elsewhere`: of the subject from others, which were more than
    there may be events.
    """
    key, all_of_it, now = _untold(subject, address), _key("all", subject), time.time()
    with _lock:
        untold, told_at = cache.get(key, (0, 0.0))
        events, elsewhere = cache.get(all_of_it, ([], 0))
        events = [moment for moment in events if moment > now - TELL_EVERY]
        if now - told_at < TELL_EVERY:
            cache.set(key, (untold + 1, told_at), TELL_WITHIN)
            return {}
        if len(events) >= TELL_MOST:
            cache.set(all_of_it, (events, elsewhere + 1), TELL_WITHIN)
            return {}
        cache.set(key, (0, now), TELL_WITHIN)
        cache.set(all_of_it, ([*events, now], 0), TELL_WITHIN)
    return {"failures": untold + 1} | ({"elsewhere": elsewhere} if elsewhere else {})


def _wait(key: str, limit: int, now: float) -> float:
    failures = _recent(key, now)
    return failures[-limit] + WINDOW - now if len(failures) >= limit else 0.0


def _pair(name: str, address: str) -> str:
    return _key("pair", plain(name).casefold(), source(address))


def _source(address: str) -> str:
    return _key("source", source(address))


def _untold(subject: str, address: str) -> str:
    return _key("untold", subject, source(address))


def _key(*parts: str) -> str:
    joined = "\n".join(parts).encode("utf-8", "surrogatepass")
    return f"sign-in:{hashlib.sha256(joined).hexdigest()}"


def _recent(key: str, now: float) -> list[float]:
    return [moment for moment in cache.get(key, []) if moment > now - WINDOW]
