"""The little that the handlers need of HTTP: a request, an answer, errors, routes and the checking of bodies."""

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qs

from demo.store import Store
from demo.tokens import TokenError, verify

BODY_LIMIT = 5 * 1024 * 1024
PAGE_SIZE, PAGE_LIMIT = 50, 500


class HttpError(Exception):
    """Answer with this status and a JSON body {"error", "detail", ...}."""

    def __init__(self, status: int, error: str, detail: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.detail = detail
        self.headers = headers or {}


@dataclass(frozen=True)
class Answer:
    """What a handler returns: a JSON value, or bytes together with their content type."""

    content: Any
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """The bytes to send."""
        return self.content if isinstance(self.content, bytes) else dump(self.content)


@dataclass
class Request:
    """One request, together with what the process lends to its handlers."""

    method: str
    path: str
    query_string: bytes
    headers: dict[str, str]
    body: bytes
    store: Store
    source: str
    secret: str
    params: dict[str, str] = field(default_factory=dict)

    def query(self, name: str) -> str | None:
        """The first value of a query parameter. Raises 422 for one that PostgreSQL cannot hold."""
        values = parse_qs(self.query_string.decode("latin-1"), keep_blank_values=True).get(name)
        if values and "\x00" in values[0]:
            raise HttpError(422, "unprocessable", {name: "must not hold a NUL character"})
        return values[0] if values else None

    def page(self) -> tuple[int, int]:
        """`limit` (1-500, default 50) and `offset` of the query. Raises 422."""
        limit = self._number("limit", PAGE_SIZE, 1, PAGE_LIMIT)
        return limit, self._number("offset", 0, 0, 10**9)

    def _number(self, name: str, default: int, low: int, high: int) -> int:
        raw = self.query(name)
        if raw is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}", raw) or not low <= int(raw) <= high:
            raise HttpError(422, "unprocessable", {name: f"must be a whole number from {low} to {high}"})
        return int(raw)

    def form(self) -> "Form":
        """The JSON object in the body. Raises 422 when there is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            raise HttpError(422, "unprocessable", {"body": "must be a JSON object"}) from None
        if not isinstance(value, dict):
            raise HttpError(422, "unprocessable", {"body": "must be a JSON object"})
        return Form(value)

    def bearer(self) -> str | None:
        """The bearer token as it was sent, or None."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def actor(self) -> str:
        """Who asks: the token's subject, or "anonymous" without a token. Raises 401 for a token that does not hold."""
        token = self.bearer()
        if token is None:
            return "anonymous"
        try:
            return str(verify(token, self.secret)["sub"])
        except TokenError as error:
            raise unauthorized(str(error)) from None


class Form:
    """Reads fields of a JSON object, collects what is wrong with them, and says it all at once in `check`."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._errors: dict[str, str] = {}

    def text(self, name: str, *, longest: int = 200, default: str | None = None) -> str:
        """A string that is not blank, of at most `longest` characters."""
        value = self._values.get(name, default)
        if not isinstance(value, str) or not value.strip():
            self._errors[name] = "is required and must be text"
        elif len(value) > longest:
            self._errors[name] = f"must have at most {longest} characters"
        elif not storable(value):
            self._errors[name] = "holds a character that cannot be stored"
        else:
            return value
        return ""

    def choice(self, name: str, choices: Iterable[str], *, default: str) -> str:
        """One of `choices`."""
        value = self._values.get(name, default)
        if value not in tuple(choices):
            self._errors[name] = "must be one of " + ", ".join(choices)
            return default
        return str(value)

    def number(self, name: str, *, low: int, high: int, default: int | None = None) -> int:
        """A whole number from `low` to `high`."""
        value = self._values.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._errors[name] = f"must be a whole number from {low} to {high}"
            return low
        return value

    def raw(self, name: str) -> Any:
        """The field as it came, or None."""
        return self._values.get(name)

    def check(self) -> None:
        """Raises 422 with every wrong field."""
        if self._errors:
            raise HttpError(422, "unprocessable", self._errors)


Handler = Callable[[Request], Awaitable[Answer]]
Route = tuple[str, str, Handler]
PATTERNS = {"id": r"[0-9]{1,18}", "name": r"[a-z]+(?:-[a-z]+)*"}


class Router:
    """Finds the handler of a method and a path; `{id}` and `{name}` in a route's path match one segment."""

    def __init__(self, prefix: str, routes: Iterable[Route]) -> None:
        self._plain: dict[str, dict[str, Handler]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Handler]]] = {}
        for method, path, handler in routes:
            whole = prefix + path
            if "{" not in whole:
                self._plain.setdefault(whole, {})[method] = handler
                continue
            pattern = re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{PATTERNS[m[1]]})", re.escape(whole))
            self._patterns.setdefault(whole, (re.compile(pattern), {}))[1][method] = handler

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """The handler and the values of the path. Raises 404 or 405."""
        method = "GET" if method == "HEAD" else method
        methods, params = self._plain.get(path), {}
        if methods is None:
            for pattern, candidates in self._patterns.values():
                if match := pattern.fullmatch(path):
                    methods, params = candidates, match.groupdict()
                    break
        if methods is None:
            raise HttpError(404, "not found", f"nothing is served at {path}")
        if method not in methods:
            allow = ", ".join(sorted(methods))
            raise HttpError(405, "method not allowed", f"{path} takes {allow}", {"allow": allow})
        return methods[method], params


def unauthorized(why: str) -> HttpError:
    """401 with the header that RFC 9110 asks for."""
    return HttpError(401, "unauthorized", why, {"www-authenticate": "Bearer"})


def storable(text: str) -> bool:
    """PostgreSQL's text holds neither NUL nor half of a surrogate pair, and JSON can carry both."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def dump(value: Any) -> bytes:
    """Compact JSON; times as ISO 8601 in UTC."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_encode).encode()


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
