"""Tells the web processes that something has changed, in the transaction that changes it (PostgreSQL's NOTIFY).

A message is sent when the transaction commits, and carries keys alone: whoever hears it asks for the page's parts anew,
and those ask who is asking. It is a hint: lost when nobody listens, and pages that missed one catch up by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from enum import StrEnum

from django.db import connection

CHANNEL = "switchyard_live"
MOST_BYTES = 7900  # of one message; PostgreSQL takes less than 8000


class Topic(StrEnum):
    """What has changed, and what the keys name."""

    PLAN = "plan"  # somebody, or a rule, did something that the audit log has: the week's number, "" for none
    ACCOUNT = "account"  # who may do what; no page is told
    GATEWAY = "gateway"  # what a gateway runs, or why not: its key
    LOOK = "look"  # a gateway was looked at, and is as it was: its key; no page is told
    HEALTH = "health"  # a target's state: its key
    POLL = "poll"  # a target was polled: its key
    TRAFFIC = "traffic"  # the gateway's counters were read
    CHECK = "check"  # automatic checks were run


def tell(topic: Topic, *keys: str) -> None:
    """Tell when the transaction commits, at once outside of one. No key: nobody knows which, it may be any."""
    tell_all({topic: keys or ("",)})


def tell_all(changes: Mapping[Topic, Collection[str]]) -> None:
    """As `tell`, for several topics; one without keys is left out. One question to the database, about 0.2 ms."""
    told = [message for topic, keys in changes.items() if keys for message in messages(topic, *keys)]
    if told:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, told) FROM unnest(%s::text[]) AS told", [CHANNEL, told])


def messages(topic: Topic, *keys: str) -> list[str]:
    """What is sent: `["health", ["auth", "rag"]]`, in as many messages as the keys need; no key is one `""`."""
    told: list[str] = []
    some: list[str] = []
    size = len(topic) + 10
    for key in keys or ("",):
        more = len(json.dumps(key)) + 2
        if some and size + more > MOST_BYTES:
            told.append(json.dumps([topic, some]))
            some, size = [], len(topic) + 10
        some.append(key)
        size += more
    return [*told, json.dumps([topic, some])]
