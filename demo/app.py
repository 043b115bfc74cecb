"""The ASGI application of one process: its fault, its routes, its headers, and errors as JSON."""

import asyncio
import importlib
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import psycopg

from demo.estate import MONOLITH, ONLY_SERVICES, Member, Settings
from demo.faults import Fault, Spread
from demo.store import Store, StoreUnavailable
from demo.web import BODY_LIMIT, Answer, HttpError, Request, Route, Router

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class App:
    """Answers every request of one process. `fault` may be changed at any time."""

    def __init__(self, member: Member, settings: Settings) -> None:
        self.member = member
        self.fault = Fault()
        self.store = Store(settings.database_url, settings.database_name(member))
        self._own_secret = self._secret = settings.jwt_secret
        self._spread = Spread()
        modules = [importlib.import_module(f"demo.nouns.{noun}") for noun in member.nouns]
        routes: list[Route] = [route for module in modules for route in module.ROUTES]
        # Each service's own health is also under its prefix, where operators reach it through the gateway.
        routes += [("GET", f"/{noun}/health", self._health) for noun in member.nouns]
        self._router = Router(member.prefix, routes)
        self._headers = [
            (b"x-served-by", member.served_by.encode()),
            (b"x-side", member.side.encode()),
        ]

    @property
    def secret_is_own(self) -> bool:
        """Whether tokens are signed and verified with the estate's secret."""
        return self._secret == self._own_secret

    def change_secret(self) -> None:
        """Sign and verify tokens with a new secret that nobody else knows."""
        self._secret = secrets.token_hex(32)

    def restore_secret(self) -> None:
        """Sign and verify tokens with the estate's secret again."""
        self._secret = self._own_secret

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        fault = self.fault
        if fault.kind == "hang":
            # Nothing is ever answered; the connection ends when the client gives up or the fault is lifted.
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if fault.kind == "slow":
            await asyncio.sleep(fault.amount / 1000)
        try:
            if fault.kind == "errors" and self._spread.hit(fault.amount):
                raise HttpError(500, "injected fault", f"{fault} on {self.member.served_by}")
            answer = await self._answer(scope, receive)
        except HttpError as error:
            answer = _refusal(error)
        except StoreUnavailable as error:
            detail = f"database {self.store.database} does not answer: {error}"
            answer = _refusal(HttpError(503, "database unavailable", detail))
        except psycopg.IntegrityError as error:
            answer = _refusal(HttpError(409, "conflict", error.diag.message_detail or str(error)))
        except psycopg.DataError as error:
            answer = _refusal(HttpError(422, "unprocessable", error.diag.message_primary or str(error)))
        except Exception as error:  # noqa: BLE001  the last line of defence: the client gets JSON, the log the reason
            where = f"{scope['method']} {scope['path']}"
            print(f"{self.member.served_by}: error in {where}: {type(error).__name__}: {error}", flush=True)
            answer = _refusal(HttpError(500, "internal error"))
        await self._send(answer, send)

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        body = await _body(receive)
        path = scope["path"].rstrip("/") or "/"
        request = Request(
            method=scope["method"],
            path=path,
            query_string=scope["query_string"],
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body=body,
            store=self.store,
            source=self.member.served_by,
            secret=self._secret,
        )
        if path == "/health" and request.method in {"GET", "HEAD"}:
            return await self._health(request)
        try:
            handler, request.params = self._router.find(request.method, path)
        except HttpError as error:
            noun = path.removeprefix("/api/").partition("/")[0]
            if error.status == 404 and self.member is MONOLITH and noun in ONLY_SERVICES:
                error.detail = f"the monolith has no /api/{noun}: it exists only as a service"
            raise
        return await handler(request)

    async def _health(self, _request: Request) -> Answer:
        state = {"service": self.member.served_by, "side": self.member.side}
        try:
            await self.store.rows("SELECT 1 FROM demo_seed LIMIT 1")
        except StoreUnavailable as error:
            return Answer({**state, "status": "unhealthy", "database": f"down: {error}"}, status=503)
        return Answer({**state, "status": "healthy", "database": "up"})

    async def _send(self, answer: Answer, send: Send) -> None:
        body = answer.body()
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *self._headers,
            *((name.encode(), value.encode()) for name, value in answer.headers.items()),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _refusal(error: HttpError) -> Answer:
    content = {"error": error.error or HTTPStatus(error.status).phrase.lower(), "status": error.status}
    if error.detail is not None:
        content["detail"] = error.detail
    return Answer(content, status=error.status, headers=error.headers)


async def _body(receive: Receive) -> bytes:
    """The whole body. Raises 413 past the limit, after reading it on: the client is still sending."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "client went away")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= BODY_LIMIT:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not message.get("more_body"):
            break
    if size > BODY_LIMIT:
        raise HttpError(413, "too large", f"a body may have at most {BODY_LIMIT} bytes")
    return b"".join(chunks)
