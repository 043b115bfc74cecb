"""Asks addresses over HTTP for the checks: bounded in time and size, and by nothing but what it is told.

No redirect is followed and no proxy of the environment is used; no cookie is kept, which could let a request pass for
another reason than the one that is looked at. An error is told in words of our own: a library's can hold what was sent.
"""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self

import httpx

from migrations_app.models import Plan, Service

BODY_LIMIT = 64 * 1024  # bytes of an answer


class NoJson(Exception):
    """A body that holds no JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to its end; without one, `status` is None and `error` says why, as in `the monolith <error>`."""

    status: int | None
    body: bytes = b""
    error: str = ""

    def json(self) -> Any:
        """Raises NoJson."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NoJson from None


class Asker:
    """All requests in its block together have so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._client = httpx.AsyncClient(
            verify=_tls(),
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113  # one deadline for all, below
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"user-agent": "switchyard-checks", "accept-encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        self._deadline = asyncio.get_running_loop().time() + self._seconds
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: object = None
    ) -> Answer:
        """`body` is sent as JSON. Raises nothing: the error is inside."""
        try:
            # Around all of it: an answer that trickles passes every limit on a single read.
            async with asyncio.timeout_at(self._deadline):
                return await self._ask(method, url, headers, body)
        except TimeoutError:
            return Answer(None, error=f"gives no complete answer within {self._seconds:.1f} s")
        except httpx.ConnectError:
            return Answer(None, error="takes no connection")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as problem:
            return Answer(None, error=f"gives no answer ({type(problem).__name__})")

    async def _ask(self, method: str, url: str, headers: Mapping[str, str] | None, body: object) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        sent = {**(headers or {}), **({} if content is None else {"content-type": "application/json"})}
        async with self._client.stream(method, url, headers=sent, content=content) as answer:
            received = bytearray()
            async for chunk in answer.aiter_raw():
                received += chunk
                if len(received) > BODY_LIMIT:
                    return Answer(None, error=f"answers with more than {BODY_LIMIT // 1024} kB")
            return Answer(answer.status_code, bytes(received))


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def url_of_monolith(plan: Plan, path: str) -> str:
    return f"http://{plan.monolith}{path}"


def url_of_service(service: Service, path: str) -> str:
    return f"http://{service.upstream}{path}"
