"""Audit events by kind, counted exactly without reading the log anew at each scrape."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from django.db.models import Count

from migrations_app.models import AuditEvent
from migrations_app.models.audit import GENESIS

SPAN = 100_000  # events counted by one query
AT_ONCE = 0.5  # seconds for which spans are counted in one reading
TAIL = 50  # newest events whose chain is checked each time; `manage.py audit verify` walks all of it


@dataclass(frozen=True, slots=True)
class AuditReading:
    """`counts` is kind -> events. `intact`: the newest events follow from one another, unaltered.

    `counts` is None as long as a long log is not counted through for the first time.
    """

    counts: Mapping[str, int] | None
    intact: bool


@dataclass(frozen=True, slots=True)
class _Counted:
    """What stands up to and including the row `last`, which is told by its digest: a restored log has another one."""

    counts: Counter[str] = field(default_factory=Counter)
    last: int = 0
    digest: str = GENESIS


class AuditCounts:
    """Counts on from where the last reading ended.

    That is exact: rows are only ever added, and each takes its id under the lock of the chain, so that none appears
    later below one that was counted. When the last row counted is no longer there the log is another one, as after
    restoring a backup, and is counted from its beginning.
    """

    def __init__(self) -> None:
        self._counted = _Counted()

    def read(self) -> AuditReading:
        """Two queries, once the log is counted through. Raises DatabaseError; what was counted before stays counted."""
        tail = list(AuditEvent.objects.order_by("-id")[:TAIL])
        if not tail:
            self._counted = _Counted()
            return AuditReading({}, True)
        counted, newest = self._counted, tail[0]
        if not _holds(counted, tail):
            counted = _Counted()
        until = time.monotonic() + AT_ONCE
        while counted.last < newest.pk:
            counted = self._counted = _and_more(counted, newest)
            if time.monotonic() > until:
                break
        return AuditReading(counted.counts if counted.last == newest.pk else None, _follows(tail))


def _and_more(counted: _Counted, newest: AuditEvent) -> _Counted:
    """With the next span of the events up to the newest."""
    last, digest = newest.pk, newest.digest
    after = AuditEvent.objects.filter(id__gt=counted.last).order_by("id")
    if newest.pk - counted.last > SPAN:
        last, digest = after.values_list("id", "digest")[SPAN - 1 : SPAN].first() or (last, digest)
    more = after.filter(id__lte=last).order_by().values_list("kind").annotate(Count("id"))
    return _Counted(counted.counts + Counter(dict(more)), last, digest)


def _holds(counted: _Counted, tail: list[AuditEvent]) -> bool:
    """Whether the log still has the row up to which was counted."""
    if counted.last == 0:
        return True
    if counted.last < tail[-1].pk:
        return AuditEvent.objects.filter(pk=counted.last, digest=counted.digest).exists()
    return any(event.pk == counted.last and event.digest == counted.digest for event in tail)


def _follows(tail: list[AuditEvent]) -> bool:
    """Newest first. When these are all there are, the oldest is the first of the chain."""
    if len(tail) < TAIL and tail[-1].previous_digest != GENESIS:
        return False
    linked = all(newer.previous_digest == older.digest for newer, older in pairwise(tail))
    return linked and all(event.content_digest() == event.digest for event in tail)
