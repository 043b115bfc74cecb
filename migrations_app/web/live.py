"""Live pages: a stream of server-sent events that tell a page to ask for its parts anew.

`GET /live?topic=plan&topic=poll:auth` is judged by an ordinary view, with the session and the permission of every page.
It leaves a ticket, and when Django is through with the request, its thread and its database connection given back, the
hub takes the connection over (`with_streams`). So 500 streams cost no thread and no connection to PostgreSQL.

docs/decisions/0009-live.md has the events and the reasons.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from migrations_app.live import Topic
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires
from .asgi import Application, Message, Receive, Scope, Send
from .live_hub import Hub, Refused, Stream, Ticket, Wanted, event

TICKETS = "switchyard.tickets"  # where in the ASGI scope the view leaves its ticket
ASK_AGAIN = 20  # seconds, where there are no streams
UNTOLD = frozenset({Topic.ACCOUNT, Topic.LOOK})
MOST_TOPICS = 20


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """GET parameters `topic`: a topic, or `topic:key`; none stands for all. 400 for one that does not exist."""
    try:
        wanted = wanted_of(request.GET.getlist("topic"))
    except ValueError:
        return HttpResponse("there is no such topic", "text/plain", HTTPStatus.BAD_REQUEST)
    tickets = getattr(request, "scope", {}).get(TICKETS)
    user, session = request.user, request.session.session_key
    if tickets is not None and request.method == "GET" and isinstance(user, User) and session:
        tickets.append(Ticket(session, user.pk, user.get_session_auth_hash(), wanted))
    # A server without streams answers with this much: the browser takes it for one that was cut off, and asks again.
    response = HttpResponse(f"retry: {ASK_AGAIN * 1000}\n{event('resync', 0)}", "text/event-stream")
    response["X-Accel-Buffering"] = "no"
    return response


def wanted_of(asked: list[str]) -> Wanted:
    """Topic -> the keys that count, None for all of them. Raises ValueError."""
    if not asked:
        return dict.fromkeys(set(Topic) - UNTOLD)
    if len(asked) > MOST_TOPICS:
        raise ValueError("too many topics")
    found: dict[Topic, frozenset[str] | None] = {}
    for one in asked:
        name, colon, key = one.partition(":")
        topic = Topic(name)
        if topic in UNTOLD:
            raise ValueError(name)
        before = found.get(topic, frozenset())
        found[topic] = before | {key} if colon and before is not None else None
    return found


def with_streams(django: Application, hub: Hub | None = None) -> Application:
    """The ASGI application that serves streams to those whom the view gave a ticket, and passes on all else."""
    hub = hub or Hub()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await django(scope, receive, send)
            return
        tickets: list[Ticket] = []
        held: list[Message] = []

        async def pass_on(message: Message) -> None:
            if tickets:
                held.append(message)
            else:
                await send(message)

        await django({**scope, TICKETS: tickets}, receive, pass_on)
        if not tickets or not held:
            return
        try:
            stream = hub.admit(tickets[0])
        except Refused as refusal:
            await _refuse(refusal, send)
            return
        _end_streams_on_exit(hub)
        headers = [(name, value) for name, value in held[0]["headers"] if name.lower() != b"content-length"]
        try:
            await send({**held[0], "headers": headers})
            await _serve(stream, receive, send)
        finally:
            hub.dismiss(stream)

    return application


async def _serve(stream: Stream, receive: Receive, send: Send) -> None:
    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        stream.end()

    async def write(text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    gone = asyncio.ensure_future(until_gone())
    try:
        await stream.run(write)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        gone.cancel()


async def _refuse(refusal: Refused, send: Send) -> None:
    body = str(refusal).encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"retry-after", str(refusal.retry_after).encode()),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _end_streams_on_exit(hub: Hub) -> None:
    """uvicorn waits for open responses before it ends, and tells the application only after that.

    So its handlers of the signals, which are there once it serves, are called by ours.
    """
    if hub.watches_exit or threading.current_thread() is not threading.main_thread():
        return
    hub.watches_exit = True
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        _call_before(number, lambda: None if loop.is_closed() else loop.call_soon_threadsafe(hub.close))


def _call_before(number: signal.Signals, first: Callable[[], Any]) -> None:
    previous = signal.getsignal(number)
    if not callable(previous):
        return

    def handle(received: int, frame: Any) -> None:
        first()
        previous(received, frame)

    signal.signal(number, handle)
