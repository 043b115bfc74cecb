"""The JSON API: the actions of the pages, for scripts and chat-ops. One table drives its addresses and docs/api.md.

The same actions, permissions and audit events; whoever calls is the account of a bearer token (web/api_auth.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from django.contrib.auth.decorators import login_not_required
from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from migrations_app.actions.change import Change
from migrations_app.actions.confirm import as_json, confirm
from migrations_app.actions.everything import roll_back_everything
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import Actor
from migrations_app.errors import ActionError, Busy, GateClosed, Invalid, NotFound, NotPermitted, Pinned, first_line
from migrations_app.roles import Permission

from .api_auth import caller_of, keep_use
from .api_state import blocking, state
from .notices import status_of
from .problems import API, Problem

KEY = "Idempotency-Key"
JSON = "application/json"


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a character that cannot be stored")
    return text


class Body(BaseModel):
    """What every change may carry."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[str, Field(max_length=1000), AfterValidator(_storable)] = ""


class EnableBody(Body):
    """`past_no_return`: a point of no return that the plan tells of is passed knowingly."""

    past_no_return: bool = False


class WeightBody(EnableBody):
    weight: Annotated[int, Field(ge=0, le=100)]


class WeekBody(Body):
    with_later: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: who, where (`at` is what the address names), with which body, and the key that makes it count once."""

    actor: Actor
    at: dict[str, Any]
    body: Any
    request_key: UUID | None

    @property
    def click(self) -> dict[str, Any]:
        """What every action takes of it."""
        return {"actor": self.actor, "reason": self.body.reason, "request_key": self.request_key}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and method. `act` is an action; without one it tells the state. `example` is a body for the docs."""

    method: str
    route: str  # below API, as Django writes it
    name: str
    wants: Permission
    about: str
    act: Callable[[Asked], Change] | None = None
    body: type[Body] = Body
    example: str = ""


ENDPOINTS = (
    Endpoint(
        "GET",
        "state",
        "api-state",
        Permission.VIEW_PLAN,
        "The plan, its generation, every week with its gate, every flag with what each gateway runs.",
    ),
    Endpoint(
        "POST",
        "flags/<slug:key>/weight",
        "api-flag-weight",
        Permission.ENABLE,
        "Send `weight` per cent of a service to the new side. Up needs the gate open, down does not; 0 rolls back.",
        lambda asked: set_weight(
            key=asked.at["key"],
            weight=asked.body.weight,
            past_no_return=asked.body.past_no_return,
            **asked.click,
        ),
        WeightBody,
        '{"weight": 25, "reason": "first quarter"}',
    ),
    Endpoint(
        "POST",
        "flags/<slug:key>/rollback",
        "api-flag-rollback",
        Permission.ROLL_BACK,
        "Move one service back to the monolith. No gate, no reason needed.",
        lambda asked: roll_back_flag(key=asked.at["key"], **asked.click),
    ),
    Endpoint(
        "POST",
        "weeks/<int:number>/enable",
        "api-week-enable",
        Permission.ENABLE,
        "Move all services of a week to the new side, if its gate is open. A high risk needs a reason, a point of no "
        "return `past_no_return`.",
        lambda asked: enable_week(number=asked.at["number"], past_no_return=asked.body.past_no_return, **asked.click),
        EnableBody,
        example='{"reason": "as planned"}',
    ),
    Endpoint(
        "POST",
        "weeks/<int:number>/rollback",
        "api-week-rollback",
        Permission.ROLL_BACK,
        "Move all services of a week back; `with_later`: those of the weeks that rest on it too, at the same moment.",
        lambda asked: roll_back_week(number=asked.at["number"], with_later=asked.body.with_later, **asked.click),
        WeekBody,
        '{"with_later": true}',
    ),
    Endpoint(
        "POST",
        "rollback",
        "api-rollback",
        Permission.ROLL_BACK,
        "Move everything back to the monolith.",
        lambda asked: roll_back_everything(**asked.click),
        example='{"reason": "it burns"}',
    ),
)


def urls() -> list[URLPattern]:
    """Of all endpoints, for web.urls."""
    by_route: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in ENDPOINTS:
        by_route[endpoint.route].append(endpoint)
    below = API.removeprefix("/")
    return [path(f"{below}{route}", _view(tuple(some)), name=some[0].name) for route, some in by_route.items()]


def _view(endpoints: tuple[Endpoint, ...]) -> Callable[..., HttpResponse]:
    @login_not_required
    @csrf_exempt  # no cookie is ever read here, so nobody's browser can be made to act
    def view(request: HttpRequest, **at: Any) -> HttpResponse:
        try:
            return _answer(request, endpoints, at)
        except Problem as problem:
            return problem.response()
        except OperationalError as error:
            detail = (
                f"The database does not answer ({first_line(error)}). Whether a change was carried out is not known:"
                f" send it again with the same {KEY}."
            )
            return _later("database-away", "The database is away", detail).response()

    return view


def _answer(request: HttpRequest, endpoints: tuple[Endpoint, ...], at: dict[str, Any]) -> HttpResponse:
    """Raises Problem."""
    actor, token = caller_of(request)
    try:
        endpoint = _endpoint(request, endpoints)
        asked = Asked(actor, at, _body(request, endpoint), _request_key(request)) if endpoint.act else None
        if endpoint.act is None or asked is None:
            actor.require(endpoint.wants, "see the plan")
            told = state()
        else:
            told = _result(endpoint.act(asked))
    except ActionError as refusal:
        raise problem_of(refusal) from refusal
    finally:
        keep_use(token)
    return JsonResponse(told, encoder=DjangoJSONEncoder, headers={"Cache-Control": "no-store"})


def _endpoint(request: HttpRequest, endpoints: tuple[Endpoint, ...]) -> Endpoint:
    method = "GET" if request.method == "HEAD" else request.method
    for endpoint in endpoints:
        if endpoint.method == method:
            return endpoint
    allowed = [endpoint.method for endpoint in endpoints]
    allowed += ["HEAD"] if "GET" in allowed else []
    problem = Problem(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Not by this method",
        f"This address takes {' and '.join(allowed)}, not {request.method}.",
    )
    problem.headers["Allow"] = ", ".join(allowed)
    raise problem


def _body(request: HttpRequest, endpoint: Endpoint) -> Body:
    """An empty body is an empty object. Raises Problem: 415, 422."""
    raw = request.body
    if raw.strip() and request.content_type != JSON:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "Not JSON",
            f"Send JSON, and say so: Content-Type: {JSON}. Nothing was done.",
        )
    try:
        return endpoint.body.model_validate_json(raw.strip() or b"{}")
    except ValidationError as wrong:
        errors = [
            {"field": ".".join(map(str, error["loc"])) or "body", "detail": error["msg"]}
            for error in wrong.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise _invalid(errors) from None


def _request_key(request: HttpRequest) -> UUID | None:
    sent = request.headers.get(KEY, "").strip()
    if not sent:
        return None
    try:
        return UUID(sent)
    except ValueError:
        raise _invalid([{"field": KEY, "detail": "Send a UUID, a new one for each change that is meant."}]) from None


def _invalid(errors: list[dict[str, str]]) -> Problem:
    detail = "; ".join(f"{error['field']}: {error['detail']}" for error in errors)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "The request makes no sense", detail, errors=errors)


def _later(kind: str, title: str, detail: str) -> Problem:
    problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, kind, title, detail)
    problem.headers["Retry-After"] = "1"
    return problem


def problem_of(refusal: ActionError) -> Problem:
    """What a refused action answers."""
    said = str(refusal)
    if isinstance(refusal, GateClosed):
        lines = blocking(refusal.verdict)
        return Problem(
            HTTPStatus.CONFLICT, "gate-closed", "The gate is closed", said, week=refusal.verdict.week, blocking=lines
        )
    if isinstance(refusal, Busy):
        return _later("busy", "The plan is busy", said)
    if isinstance(refusal, NotPermitted):
        return Problem(HTTPStatus.FORBIDDEN, "not-permitted", "Not for this account's role", said)
    if isinstance(refusal, NotFound):
        return Problem(HTTPStatus.NOT_FOUND, "not-found", "There is nothing here", said)
    if isinstance(refusal, Invalid):
        more = {"errors": [{"field": refusal.field, "detail": said}]} if refusal.field else {}
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "The request makes no sense", said, **more)
    pinned = isinstance(refusal, Pinned)
    kind, title = ("pinned", "Held on the old side") if pinned else ("stale", "Things have changed since")
    return Problem(status_of(refusal), kind, title, said)


def _result(change: Change) -> dict[str, Any]:
    """What came of a change, after waiting briefly for the gateway's own word."""
    event = change.event if change.event and change.event.generation else None
    return as_json(change, confirm(change.generation, event=event))
