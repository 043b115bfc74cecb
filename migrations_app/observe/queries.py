"""Asks what triggers of the kind `query` ask for: the only writer of their answers.

All at once, each with QUERY_WITHIN seconds, and without a lock or a transaction: one that hangs holds up nobody but
itself. Asked as health is polled (observe.polls): allowed networks alone, no redirect, no proxy, no cookie, bounded.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import math
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from migrations_app.gates.checks.json_values import NOTHING, found_at, shown
from migrations_app.gates.checks.printable import printable
from migrations_app.models import QueryAnswer
from migrations_app.observe.networks import Networks
from migrations_app.observe.polls import LONGEST_ERROR, Line, Lines, Target, body_as_json
from migrations_app.observe.watched import Key, watched
from migrations_app.planfile.triggers import QueryTrigger

MISSED = 3  # intervals: an answer that is older is none
MOST_LOOKUPS = 8  # questions to the name server at once
Found = tuple[float | None, str]


def asked_of(trigger: QueryTrigger) -> str:
    """Changes with whatever an answer rests on: an answer to another question counts for nothing."""
    text = json.dumps([trigger.address, trigger.path, trigger.above, trigger.below])
    return hashlib.sha256(text.encode()).hexdigest()


def ask_queries(now: datetime | None = None) -> int:
    """Ask for each trigger whose flag, or one of whose week, is on; the number of answers stored."""
    asked: dict[Key, QueryTrigger] = {}
    for subject in watched():
        asked |= {subject.key_of(one): one for one in subject.triggers if isinstance(one, QueryTrigger)}
    if not asked:
        return 0
    answers = asyncio.run(_ask_all(list(asked.values())))
    at = now or timezone.now()
    before = {(row.flag_id, row.week_id, row.key): row for row in QueryAnswer.objects.all()}
    rows = [
        _row(key, trigger, before.get(key), found, at)
        for (key, trigger), found in zip(asked.items(), answers, strict=True)
    ]
    QueryAnswer.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["flag", "week", "key"],
        update_fields=["asked", "at", "value", "error", "past_since"],
    )
    return len(rows)


def _row(key: Key, trigger: QueryTrigger, before: QueryAnswer | None, found: Found, at: datetime) -> QueryAnswer:
    """Past its limit since the first of the answers that were, each of them soon after the one before."""
    (value, error), asked, since = found, asked_of(trigger), None
    if value is not None and trigger.past(value):
        soon = timedelta(seconds=MISSED * settings.QUERY_INTERVAL)
        unbroken = before is not None and before.asked == asked and abs(at - before.at) <= soon and before.past_since
        since = min(unbroken or at, at)
    flag, week, name = key
    return QueryAnswer(
        flag_id=flag, week_id=week, key=name, asked=asked, at=at, value=value, error=error, past_since=since
    )


async def _ask_all(triggers: Sequence[QueryTrigger]) -> list[Found]:
    # Not the loop's own threads: those would be waited for, and a name server may hang.
    lookups = ThreadPoolExecutor(MOST_LOOKUPS, thread_name_prefix="query-lookup")
    shared = Lines(Networks(settings.HEALTH_NETWORKS), _tls(), lookups)
    try:
        return await asyncio.gather(*(Question(trigger, shared).ask() for trigger in triggers))
    finally:
        lookups.shutdown(wait=False, cancel_futures=True)


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class Question(Line):
    """The question of one trigger."""

    def __init__(self, trigger: QueryTrigger, shared: Lines) -> None:
        super().__init__(Target(trigger.key, trigger.address, timeout=settings.QUERY_WITHIN, status=("2xx",)), shared)
        self._trigger = trigger
        self._value: float | None = None

    async def ask(self) -> Found:
        """The number, or None and why there is none. Raises nothing."""
        try:
            result = await self.poll()
        finally:
            await self.close()
        return (None, result.error) if result.error else (self._value, "")

    def _judged(self, status: int, body: bytes, encoding: str) -> str:
        if wrong := super()._judged(status, body, encoding):
            return wrong
        document = body_as_json(body, encoding)
        if document is NOTHING:
            return "the answer is no JSON"
        self._value, error = _prometheus(document) if self._trigger.prometheus else _at(document, self._trigger)
        return error


def _at(document: Any, trigger: QueryTrigger) -> Found:
    path = trigger.path or ""
    found = found_at(document, path)
    if found is NOTHING:
        return None, f"the answer has no {path}"
    return _number(found, path)


def _prometheus(document: Any) -> Found:
    """https://prometheus.io/docs/prometheus/latest/querying/api: a scalar, or a vector of one."""
    if found_at(document, "status") != "success":
        reason = found_at(document, "error")
        return None, f"Prometheus says: {shown(reason) if isinstance(reason, str) else 'no success'}"
    kind, result = found_at(document, "data.resultType"), found_at(document, "data.result")
    if kind == "vector" and isinstance(result, list):
        if len(result) != 1:
            many = f"{len(result)} series; it must give one" if result else "nothing"
            return None, f"the query gives {many}"
        result = found_at(document, "data.result.0.value")
    elif kind != "scalar":
        return None, f"the query gives {f'a {kind}' if kind in ('matrix', 'string') else 'nothing'}, not a number"
    return _number(found_at({"value": result}, "value.1"), "its value")


def _number(found: Any, where: str) -> Found:
    """A number, or text that is one, as Prometheus has it. What is not finite is none.

    No other text is told: every viewer reads why there is no number, and an answer may hold anything.
    """
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None, f"{where} is {'missing' if found is NOTHING else shown(found)}, not a number"
    try:
        value = float(found)
    except ValueError:
        return None, f"{where} is text, not a number"
    except OverflowError:
        return None, f"{where} is too large a number"
    if not math.isfinite(value):
        return None, printable(f"{where} is {shown(found)}, not a number", LONGEST_ERROR)
    return value, ""
