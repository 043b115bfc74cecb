"""How large the body of a request may be, held to while it comes in.

Under ASGI Django stores the whole body in a file before any middleware, and so before anybody is signed in. So a body
that is too large is kept from it: it gets none of one that says its length, and of one that does not, as much as is
allowed. The request itself goes on, and the middleware refuses it (web/access.py), with a page or a problem. What is
still to come of the body is never asked for; the server drops it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from django.http import HttpRequest

from migrations_app.actions.evidence import MOST_BYTES

from .asgi import Application, Message, Receive, Scope, Send
from .problems import API

LARGEST = MOST_BYTES + 256 * 1024  # bytes: one file, and the words around it
LARGEST_OF_API = 16 * 1024  # bytes; a thousand characters of a reason, however they are written, and the rest
BODY = "switchyard.body"  # where in the ASGI scope the middleware finds what came


@dataclass(slots=True)
class Body:
    """The body of one request. `cut`: there was more than may be."""

    read: int = 0  # bytes
    cut: bool = False


def largest(path: str) -> int:
    """In bytes."""
    return LARGEST_OF_API if path.startswith(API) else LARGEST


def is_too_large(request: HttpRequest) -> bool:
    """Also under a server without ASGI, where a body has the length that it says."""
    body = getattr(request, "scope", {}).get(BODY)
    said = request.META.get("CONTENT_LENGTH") or "0"
    return _says_more(said, largest(request.path)) or (body is not None and body.cut)


def with_bounded_bodies(django: Application) -> Application:
    """The ASGI application that hands on no more of a body than may be."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await django(scope, receive, send)
            return
        most = largest(scope["path"])
        said = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
        body = Body(cut=any(_says_more(value.decode("latin-1"), most) for value in said))
        ended = False

        async def bounded() -> Message:
            nonlocal ended
            if ended:
                # Django asks once more, to hear when the client goes; it gives that up when it has answered.
                await asyncio.get_running_loop().create_future()
            if not body.cut:
                message = await receive()
                body.read += len(message.get("body", b""))
                body.cut = body.read > most
                if not body.cut:
                    return message
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}

        await django({**scope, BODY: body}, bounded, send)

    return application


def _says_more(length: str, most: int) -> bool:
    return not (length.isascii() and length.isdecimal()) or len(length) > 18 or int(length) > most
