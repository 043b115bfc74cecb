"""The streams of one web process, and the one connection to PostgreSQL that all of them hear by.

Everything here runs in the event loop of that process; only the question who may still listen is asked in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import psycopg
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connection
from django.db.models import Q
from django.utils import timezone

from migrations_app.live import CHANNEL, Topic
from migrations_app.roles import Permission

logger = logging.getLogger(__name__)

MOST_STREAMS = 1000  # in this process
MOST_OF_ACCOUNT = 20
# A browser has six connections to a server over HTTP/1.1, all its windows together: two stay for everything else.
MOST_OF_SESSION = 4
BEAT_EVERY = 15.0  # seconds without an event before a stream says that it is alive
EVENT_EVERY = 0.25  # seconds between two events of a stream, at least
STEADY_EVERY = 5.0  # the same where only what changes all the time has changed
STEADY = frozenset({Topic.POLL, Topic.TRAFFIC})
WRITE_WITHIN = 30.0  # seconds for a browser that does not read
PING_EVERY = 5.0  # seconds between questions whether PostgreSQL still is at the other end
PING_WITHIN = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before the listener connects again; doubles with each
GUARD_EVERY = 5.0  # seconds between questions who may still listen
GUARD_WITHIN = 60.0  # seconds without an answer to that, before all streams end
# Longer than the header takes to call the gateway's state old: pages must not learn that from silence.
LOOKED_WITHIN = 5.5

Wanted = Mapping[Topic, frozenset[str] | None]
SIGNED_OUT, CLOSING = "signed-out", "closing"  # why a stream ends


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who may listen to what, by the view that judged it. `wanted`: topic -> keys, None for all."""

    session: str
    account: int
    auth_hash: str
    wanted: Wanted

    def wants(self, topic: Topic, keys: Collection[str]) -> bool:
        if topic not in self.wanted:
            return False
        only = self.wanted[topic]
        # No key at all: nobody knows which, so it may be any.
        return only is None or "" in keys or not only.isdisjoint(keys)

    def wanted_of(self, topic: Topic, keys: Collection[str]) -> Collection[str]:
        only = self.wanted[topic]
        return keys if only is None else only.intersection({*keys, *(only if "" in keys else ())})


class Refused(Exception):
    """No stream now. Seconds until another try makes sense."""

    def __init__(self, text: str, status: HTTPStatus, retry_after: int) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


def event(name: str, number: int, data: Any = None) -> str:
    """One server-sent event. `number` grows with what this process has heard."""
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"


class Stream:
    """What one page has yet to be told. However much happens meanwhile, that is one event."""

    def __init__(self, ticket: Ticket, hub: Hub) -> None:
        self.ticket = ticket
        self._hub = hub
        self._wake = asyncio.Event()
        self._changed: defaultdict[Topic, set[str]] = defaultdict(set)
        self._first = ""  # what comes before any change
        self._end: str | None = None
        self._last = self._beat = self._last_steady = float("-inf")

    def change(self, topic: Topic, keys: Collection[str]) -> None:
        if self.ticket.wants(topic, keys):
            self._changed[topic].update(self.ticket.wanted_of(topic, keys))
            self._wake.set()

    def say(self, name: str) -> None:
        """`resync`: ask for all; it stands for every change before. `lost`: no change is heard of from now on."""
        self._first = name
        self._changed.clear()
        self._wake.set()

    def end(self, why: str = "") -> None:
        """Without a reason: there is nobody to tell."""
        self._end = why if self._end is None else self._end
        self._wake.set()

    async def run(self, write: Callable[[str], Awaitable[None]]) -> None:
        """Write until the stream is ended, or nobody reads what is written."""
        clock = asyncio.get_running_loop().time
        self._beat = clock()
        while self._end is None:
            self._wake.clear()
            if (due := self._due()) > clock():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(WRITE_WITHIN):
                    await write(self._next(clock()))
            except TimeoutError:
                return
        if self._end:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await write(event("end", self._hub.heard, self._end))

    def _due(self) -> float:
        if self._first:
            return float("-inf")
        due = self._beat + BEAT_EVERY
        if self._changed:
            due = min(due, self._last_steady + STEADY_EVERY)
        if not STEADY.issuperset(self._changed):
            due = min(due, self._last + EVENT_EVERY)
        return due

    def _next(self, now: float) -> str:
        self._beat = now
        if self._first:
            name, self._first = self._first, ""
            return event(name, self._hub.heard)
        if not self._changed:
            return event("beat", self._hub.heard)
        # Whatever the event is for, the page asks for all that it shows.
        self._last = self._last_steady = now
        told = {topic: sorted(keys) for topic, keys in self._changed.items()}
        self._changed.clear()
        return event("change", self._hub.heard, told)


class Hub:
    """Lets streams in, listens once for all of them, and ends those of whom may no longer see what they show."""

    def __init__(self) -> None:
        self.heard = 0  # messages since this process began
        self.watches_exit = False
        self._streams: set[Stream] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._up = self._closed = False
        self._looked = self._guarded = 0.0
        self._guard_now = asyncio.Event()

    def __len__(self) -> int:
        return len(self._streams)

    def admit(self, ticket: Ticket) -> Stream:
        """Raises Refused. Hand it back by `dismiss`."""
        if self._closed:
            raise Refused("the dashboard is being stopped", HTTPStatus.SERVICE_UNAVAILABLE, 2)
        if len(self._streams) >= MOST_STREAMS:
            raise Refused("too many pages are open", HTTPStatus.SERVICE_UNAVAILABLE, 30)
        accounts = Counter(stream.ticket.account for stream in self._streams)
        sessions = Counter(stream.ticket.session for stream in self._streams)
        if accounts[ticket.account] >= MOST_OF_ACCOUNT or sessions[ticket.session] >= MOST_OF_SESSION:
            raise Refused("you have too many pages open", HTTPStatus.TOO_MANY_REQUESTS, 30)
        stream = Stream(ticket, self)
        self._streams.add(stream)
        if not self._tasks:
            self._guarded = asyncio.get_running_loop().time()
            self._tasks = [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._watch())]
        if self._up:
            stream.say("resync")
        return stream

    def dismiss(self, stream: Stream) -> None:
        self._streams.discard(stream)

    def close(self) -> None:
        """End every stream, let none in any more, and stop listening."""
        self._closed = True
        for stream in self._streams:
            stream.end(CLOSING)
        for task in self._tasks:
            task.cancel()

    # -- hearing ------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**_address(), autocommit=True) as listener:
                    await listener.execute(f"LISTEN {CHANNEL}")
                    pause = FIRST_PAUSE
                    self._now_up(up=True)
                    await self._hear(listener)
            except (psycopg.Error, OSError) as error:  # a TimeoutError is an OSError
                logger.warning("live pages hear nothing from the database: %s", str(error).strip() or "no answer")
            finally:
                self._now_up(up=False)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _hear(self, listener: psycopg.AsyncConnection[Any]) -> None:
        while True:
            async for message in listener.notifies(timeout=PING_EVERY):
                self.take(message.payload)
            # A server that hangs, or a network that swallows everything, closes no connection.
            async with asyncio.timeout(PING_WITHIN):
                await listener.execute("SELECT 1")

    def _now_up(self, *, up: bool) -> None:
        if up == self._up:
            return
        self._up = up
        self._looked = asyncio.get_running_loop().time()
        for stream in self._streams:
            stream.say("resync" if up else "lost")

    def take(self, payload: str) -> None:
        """One message of `migrations_app.live`. One that cannot be read is of another version, and may be anything."""
        self.heard += 1
        try:
            name, keys = json.loads(payload)
            topic, keys = Topic(name), frozenset(map(str, keys))
        except (ValueError, TypeError):
            for stream in self._streams:
                stream.say("resync")
            return
        if topic in (Topic.LOOK, Topic.GATEWAY):
            self._looked = asyncio.get_running_loop().time()
        if topic == Topic.ACCOUNT:
            self._guard_now.set()
        for stream in self._streams:
            stream.change(topic, keys)

    # -- watching -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        guard_at = clock() + GUARD_EVERY
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._guard_now.wait()
            if self._guard_now.is_set() or clock() >= guard_at:
                self._guard_now.clear()
                await self._guard()
                guard_at = clock() + GUARD_EVERY
            if self._up and clock() - self._looked > LOOKED_WITHIN:
                # Nobody looks at the gateway any more, so nobody will tell that either.
                self._looked = clock()
                for stream in self._streams:
                    stream.change(Topic.GATEWAY, frozenset({""}))

    async def _guard(self) -> None:
        clock = asyncio.get_running_loop().time
        asked = {stream: stream.ticket for stream in self._streams}
        if not asked:
            self._guarded = clock()
            return
        try:
            kept = await asyncio.to_thread(may_still_listen, list(asked.values()))
            self._guarded = clock()
        except DatabaseError as error:
            logger.warning("who may still watch is not known: %s", error)
            if clock() - self._guarded < GUARD_WITHIN:
                return
            kept = set()
        for stream, ticket in asked.items():
            if (ticket.session, ticket.account, ticket.auth_hash) not in kept:
                stream.end(SIGNED_OUT)


def may_still_listen(tickets: Collection[Ticket]) -> set[tuple[str, int, str]]:
    """Session, account and password's mark of those whose session lives and whose account may see the plan.

    Two questions to the database, however many they are. For a thread of its own: gives its connection back.
    """
    try:
        sessions = Session.objects.filter(
            session_key__in={ticket.session for ticket in tickets}, expire_date__gt=timezone.now()
        )
        alive = set(sessions.values_list("session_key", flat=True))
        app, _, codename = Permission.VIEW_PLAN.partition(".")
        granted = Q(groups__permissions__codename=codename, groups__permissions__content_type__app_label=app)
        accounts = User.objects.filter(granted, pk__in={ticket.account for ticket in tickets}, is_active=True)
        marks = {account.pk: account.get_session_auth_hash() for account in accounts.distinct()}
    finally:
        connection.close()
    return {
        (ticket.session, ticket.account, ticket.auth_hash)
        for ticket in tickets
        if ticket.session in alive and marks.get(ticket.account) == ticket.auth_hash
    }


def _address() -> dict[str, Any]:
    """How Django itself connects, without what only its own connections understand."""
    own = {"cursor_factory", "context", "prepare_threshold"}
    known = {name: value for name, value in connection.get_connection_params().items() if name not in own}
    return known | {"application_name": "switchyard-live"}
