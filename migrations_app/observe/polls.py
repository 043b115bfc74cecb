"""One health poll with httpx: a GET of one address, with one deadline, judged and told in words. No Django.

Each target has a line of its own: one kept connection, to an address that was looked up and checked (observe.networks)
and is then connected to as it stands, so that no second answer of the name server gets between. No redirect is
followed, no proxy of the environment used, no cookie kept. What an answer may do is bounded: by the limits of
observe.wire, when unpacked by BODY_LIMIT, and by the deadline, which stands around all of it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import json
import logging
import socket
import ssl
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from migrations_app.gates.checks.json_values import NOTHING, equal, found_at, shown, told
from migrations_app.gates.checks.printable import printable
from migrations_app.observe.networks import Networks
from migrations_app.observe.wire import BODY_LIMIT, AnswerTooLong, Doing, Progress, Wire

LONGEST_ERROR = 300  # characters
LOOKED_UP_FOR = 30.0  # seconds that the addresses of a name are kept
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What to poll and how. `key` is the service's key, or "monolith"; times are seconds.

    `status` has numbers and classes such as `2xx`; `values` pairs of a place in the JSON and the JSON text that it must
    equal. `fail_after` and `recover_after` count polls in a row.
    """

    key: str
    url: str
    interval: float = 2.0
    timeout: float = 1.5
    status: tuple[int | str, ...] = (200,)
    values: tuple[tuple[str, str], ...] = ()
    fail_after: int = 1
    recover_after: int = 1


@dataclass(frozen=True, slots=True)
class PollResult:
    """One poll, with its error inside; `healthy` is None when nobody can tell.

    Times are milliseconds from the beginning of the poll: until connected (0 on a kept connection), until the answer
    began and until it was read whole; None for what did not come. `answered`: something came back, be it nonsense.
    `asked`: there was somebody to ask; not so when no address of the target may be connected to.
    """

    target: str
    polled_at: datetime
    healthy: bool | None
    status_code: int | None = None
    milliseconds: float | None = None
    error: str = ""
    connect_ms: float | None = None
    first_byte_ms: float | None = None
    answered: bool = True
    asked: bool = True


class _Refused(Exception):
    """There is no address that may be connected to; the message says why."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What the lines of one event loop share. `lookups` runs the questions to the name server."""

    networks: Networks
    tls: ssl.SSLContext
    lookups: Executor | None = None


class Line:
    """The way to one target. Used by one poll at a time; close it at the end."""

    def __init__(self, target: Target, shared: Lines) -> None:
        self.target = target
        self._shared = shared
        self._invalid = ""
        try:
            self._url = httpx.URL(target.url)
        except httpx.InvalidURL as problem:
            # A host such as 999.1.1.1: of this target alone.
            self._url, self._invalid = httpx.URL("http://invalid"), f"{target.url} is no address: {problem}"
        self._port = self._url.port or (443 if self._url.scheme == "https" else 80)
        self._addresses: list[str] = []
        self._looked_up = float("-inf")
        self._lookup: asyncio.Future[list[Any]] | None = None
        self._address = ""
        self._wire: Wire | None = None
        self._request = self._make_request()
        # Of the poll that is out.
        self._begun = 0.0  # seconds of perf_counter
        self._progress = Progress()

    async def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.aclose()

    async def poll(self) -> PollResult:
        """Raises nothing: the error is inside."""
        polled_at = datetime.now(UTC)
        self._begun = time.perf_counter()
        self._progress = progress = Progress()
        whole, answered, asked = False, True, True
        try:
            # Around the whole poll: a trickling answer passes every per-operation timeout.
            async with asyncio.timeout(self.target.timeout):
                error = await self._ask()
            whole = True
        except TimeoutError:
            error, answered = self._too_slow(), progress.first_byte > 0
        except _Refused as problem:
            error, answered, asked = str(problem), False, False
        except (httpx.HTTPError, OSError) as problem:
            error, answered = self._in_words(problem), _came_back(problem)
        except Exception as problem:
            # Of ours, and of this target alone.
            logger.exception("the poll of %s broke", self.target.key)
            error = f"the poll itself broke ({type(problem).__name__})"
        ended = time.perf_counter()
        if not whole:
            self._next_address()
            await self.close()
        return PollResult(
            self.target.key,
            polled_at,
            not error,
            progress.status,
            self._after(ended) if whole else None,
            printable(error, LONGEST_ERROR),
            (self._after(progress.connected) if progress.connected else 0.0) if progress.doing is Doing.WAIT else None,
            self._after(progress.first_byte) if progress.first_byte else None,
            answered,
            asked,
        )

    def _after(self, moment: float) -> float:
        return (moment - self._begun) * 1000

    async def _ask(self) -> str:
        """One answer, judged. Raises what httpx raises, _Refused and OSError."""
        if self._invalid:
            raise _Refused(self._invalid)
        if self._wire is not None and self._wire.closed:
            self._wire = None
        if self._wire is None or time.monotonic() - self._looked_up > LOOKED_UP_FOR:
            await self._renew_lookup()
        kept = self._wire is not None
        try:
            return await self._get()
        except (httpx.RemoteProtocolError, httpx.NetworkError):
            if not kept or self._progress.connected or self._progress.first_byte:
                raise
        # A kept connection that the other side has just given up says nothing of the target.
        await self.close()
        return await self._get()

    async def _get(self) -> str:
        for left in range(len(self._addresses) - 1, -1, -1):
            try:
                return await self._get_from(self._address)
            except httpx.ConnectError:
                if not left:
                    raise
            self._next_address()
            await self.close()
        raise _Refused("there is no address to connect to")

    async def _get_from(self, address: str) -> str:
        if self._wire is None:
            secure = self._url.scheme == "https"
            self._wire = Wire(address, self._port, tls=self._shared.tls if secure else None, name=self._url.host)
        self._wire.progress = self._progress
        answer = await self._wire.handle_async_request(self._request)
        body = b"".join([chunk async for chunk in answer.aiter_raw()])
        return self._judged(answer.status_code, body, answer.headers.get("content-encoding", ""))

    def _judged(self, status: int, body: bytes, encoding: str) -> str:
        """What is wrong with an answer; empty when it is as expected."""
        return judge(self.target, status, body, encoding)

    def _make_request(self) -> httpx.Request:
        # As it came: what is packed is only unpacked where a value of it is asked for, and then to a limit.
        headers = {"user-agent": "switchyard-health", "accept": "*/*", "accept-encoding": "identity"}
        return httpx.Request("GET", self._url, headers=headers)

    async def _renew_lookup(self) -> None:
        """Look the host up. While it has a connection, a name server that is away or slow is no fault of the target."""
        if self._wire is None:
            await self._look_up()
            return
        try:
            async with asyncio.timeout(self.target.timeout / 4):
                await self._look_up()
        except (TimeoutError, socket.gaierror):
            self._looked_up = time.monotonic()

    async def _look_up(self) -> None:
        """Find the addresses of the host that are allowed. A connection to one that is still among them stays."""
        self._progress.doing = Doing.LOOK_UP
        host = self._url.host
        found = [host] if _is_address(host) else await self._resolve(host)
        refusals = {address: self._shared.networks.refusal(address) for address in found}
        allowed = [address for address, refusal in refusals.items() if not refusal]
        if not allowed:
            raise _Refused(next(iter(refusals.values()), f"no such host: {host} has no address"))
        self._addresses, self._looked_up = allowed, time.monotonic()
        if self._address not in allowed:
            await self.close()
            self._address = allowed[0]

    async def _resolve(self, host: str) -> list[str]:
        """Its addresses by the name server. One question at a time: one that hangs is waited for, not repeated."""
        if self._lookup is None:
            self._lookup = asyncio.get_running_loop().run_in_executor(
                self._shared.lookups, functools.partial(socket.getaddrinfo, host, self._port, type=socket.SOCK_STREAM)
            )
            # Nobody may be left to hear of its failure.
            self._lookup.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        lookup = self._lookup
        await asyncio.wait([lookup])
        self._lookup = None
        return list(dict.fromkeys(str(place[4][0]) for place in lookup.result()))

    def _next_address(self) -> None:
        """The next one is tried after this one failed; and the name is looked up anew."""
        self._looked_up = float("-inf")
        if self._address in self._addresses:
            place = self._addresses.index(self._address) + 1
            self._address = self._addresses[place % len(self._addresses)]

    def _too_slow(self) -> str:
        limit = f"within {self.target.timeout:g} s"
        if self._progress.first_byte:
            return f"no complete answer {limit}"
        if self._progress.doing is Doing.LOOK_UP:
            return f"no address found for {self._url.host} {limit}"
        return f"{'no answer' if self._progress.doing is Doing.WAIT else 'no connection'} {limit}"

    def _in_words(self, problem: Exception) -> str:
        """What went wrong, for people."""
        where = f"{self._url.host}:{self._port}"
        for cause in _causes(problem):
            if words := _known(cause, where):
                return words
        if isinstance(problem, httpx.ConnectError):
            return f"no connection to {where}: {problem}"
        if isinstance(problem, httpx.RemoteProtocolError | AnswerTooLong):
            return str(problem)
        return f"{type(problem).__name__}: {problem}"


def judge(target: Target, status: int, body: bytes, encoding: str = "") -> str:
    """What is wrong with an answer; empty when it is as expected."""
    if status not in target.status and f"{status // 100}xx" not in target.status:
        expected = " or ".join(str(one) for one in target.status)
        return f"answered {status}, expected {expected}"
    if not target.values:
        return ""
    document = body_as_json(body, encoding)
    if document is NOTHING:
        return "the answer is no JSON"
    for place, text in target.values:
        wanted, found = json.loads(text), found_at(document, place)
        if found is NOTHING:
            return f"the answer has no {place}, expected {shown(wanted)}"
        if not equal(found, wanted):
            return f"{place} is {told(found)}, expected {shown(wanted)}"
    return ""


def body_as_json(body: bytes, encoding: str) -> Any:
    """NOTHING when it is none."""
    try:
        return json.loads(_unpacked(body, encoding))
    except (ValueError, RecursionError, zlib.error):
        return NOTHING


def _unpacked(body: bytes, encoding: str) -> bytes:
    """At most BODY_LIMIT bytes: what unpacks to more is cut off, and then no JSON. Raises ValueError, zlib.error."""
    packed = encoding.strip().lower()
    if packed in {"", "identity"}:
        return body
    if packed not in {"gzip", "deflate", "x-gzip"}:
        raise ValueError(packed)
    return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, BODY_LIMIT)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the innermost first."""
    chain: list[BaseException] = []
    one: BaseException | None = problem
    while one is not None and len(chain) < 20:
        chain.append(one)
        group = isinstance(one, BaseExceptionGroup)
        one = one.exceptions[0] if isinstance(one, BaseExceptionGroup) and group else one.__cause__ or one.__context__
    return reversed(chain)


def _known(cause: BaseException, where: str) -> str:
    """Words for an error of the network that everybody meets; empty for any other."""
    host, words = where.rpartition(":")[0], ""
    match cause:
        case ssl.SSLCertVerificationError():
            words = f"its TLS certificate is not accepted: {cause.verify_message}"
        case ssl.SSLError():
            reason = (cause.reason or "no reason given").lower().replace("_", " ")
            words = f"it does not speak TLS as it should ({reason})"
        case socket.gaierror(errno=socket.EAI_AGAIN):
            words = f"the name server does not say who {host} is"
        case socket.gaierror():
            words = f"no such host: {host}"
        case ConnectionRefusedError():
            words = f"no connection: nothing listens on {where}"
        case ConnectionResetError() | BrokenPipeError():
            words = "the connection was reset"
        case OSError(errno=errno.ENETUNREACH | errno.EHOSTUNREACH):
            words = f"no connection: there is no way to {where} from here"
    return words


def _came_back(problem: BaseException) -> bool:
    """Whether an error tells that somebody is there: nonsense, a broken off answer, a certificate."""
    if isinstance(problem, httpx.RemoteProtocolError | AnswerTooLong):
        return True
    return any(isinstance(cause, ssl.SSLError | ConnectionResetError) for cause in _causes(problem))
