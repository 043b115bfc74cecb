"""The page of the gateways: what is asked of each, what it runs, what it refused, and how to do it by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from migrations_app.choices import AuditKind
from migrations_app.gateways.base import Pin
from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway, Plan, Refusal, Route
from migrations_app.models.gateways import still_on
from migrations_app.roles import Permission, who_may
from migrations_app.templatetags.switchyard import icon

from .access import WebRequest, fresh, requires
from .context import Chrome, chrome
from .forms import new_key
from .gateway_state import FlagState, GatewayState, flag_state, state_of_one
from .notices import Notice

CONFIRMATIONS = 10  # how many of the last are listed
REFUSALS = 10
CORRECTIONS = 5
SENTENCES = 3  # of one correction; the others are in the audit log


@dataclass(frozen=True, slots=True)
class Board:
    """What the parts of other pages read of a whole board."""

    plan: Plan
    gateway: GatewayState


@dataclass(frozen=True, slots=True)
class FlagRow:
    """One flag: what is asked, and what the gateways run. `shape` is the icon of the state.

    `why` names the gateways that do not run it, where there are several: their own sections say why not.
    """

    key: str
    prefixes: str
    asked: int
    gateway: FlagState
    shape: SafeString
    why: str

    @property
    def differs(self) -> bool:
        """The gateway does not run what is asked, or nobody knows."""
        return self.gateway.icon != "check"


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """One refusal, and what came of it. `taken` is the generation that the gateway took since, at `taken_at`.

    `over`: it runs what is asked again, without having taken another generation.
    """

    row: Refusal
    taken: int | None
    taken_at: datetime | None
    over: bool


@dataclass(frozen=True, slots=True)
class Correction:
    """Drift that was put back. `found` has at most SENTENCES sentences, `more` is how many others there were."""

    event: AuditEvent
    found: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class PinRow:
    """A pin at one gateway."""

    gateway: Gateway
    pin: Pin


@dataclass(frozen=True, slots=True)
class Section:
    """One gateway. By its own word it runs the `differing` flags otherwise; `command` brings it there by hand."""

    row: Gateway
    state: GatewayState
    differing: list[tuple[Flag, FlagState]]
    refusals: list[RefusalRow]
    corrections: list[Correction]
    confirmations: list[Confirmation]
    url: str
    command: str


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def gateway(request: WebRequest) -> HttpResponseBase:
    return show_gateway(request)


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """What refreshes by itself: no form is in it."""
    return _show(request, "#live", oob=True)


def show_gateway(request: HttpRequest, notice: Notice | None = None) -> HttpResponse:
    """The page, or its panel for htmx, with what came of a click."""
    htmx = request.headers.get("HX-Request") == "true"
    return _show(request, "#panel" if htmx else "", notice=notice)


def _show(request: HttpRequest, part: str, *, oob: bool = False, notice: Notice | None = None) -> HttpResponse:
    """Eight queries with those of every page, however many flags, changes and refusals there are.

    Three more for each gateway after the first.
    """
    around = chrome(request)["chrome"]
    if around.plan is None:
        return render(request, "no_plan.html")
    flags = list(Flag.objects.select_related("service").order_by("service__position", "key"))
    rows = _flags(flags, around.gateways, around.now)
    pins = [PinRow(row, pin) for row in around.gateways for stored in row.pins if (pin := row.pin_of(stored["flag"]))]
    context: dict[str, Any] = {
        "notice": notice,
        "pins": pins,
        "pinned": sorted({one.pin.flag for one in pins}),
        # The forms to lift them are no part of what refreshes by itself.
        "token": "-".join(["gateway", *(f"{one.gateway.key}.{one.pin.flag}" for one in pins)]),
        "who_lifts": who_may(Permission.ENABLE),
        "new_key": new_key,
        "board": Board(around.plan, around.gateway),
        "oob": oob,
        "sections": [_section(around.plan, row, flags, around) for row in around.gateways],
        "flags": sorted(rows, key=lambda row: not row.differs),
        "moves": any(row.asked for row in rows) or bool(still_on(around.plan, around.gateways)),
        "differing": sum(row.differs for row in rows),
    }
    return render(request, f"gateway.html{part}", context)


def _section(plan: Plan, row: Gateway, flags: list[Flag], around: Chrome) -> Section:
    alone = len(around.gateways) == 1
    known = not alone and row.observed_generation is not None
    states = [(flag, flag_state(flag, [row], around.now)) for flag in flags] if known else []
    place = None if row.first else settings.GATEWAYS.get(row.key)
    return Section(
        row=row,
        state=state_of_one(plan, row, around.now),
        differing=[(flag, state) for flag, state in states if state.icon != "check"],
        refusals=_refusals(row),
        corrections=_corrections(None if alone else row),
        confirmations=list(row.confirmations.order_by("-pk")[:CONFIRMATIONS]),
        url=settings.GATEWAY_URL if row.first else place.url if place else "",
        command="manage.py reconcile" if alone else f"manage.py reconcile --gateway {row.key}",
    )


def _flags(flags: list[Flag], gateways: list[Gateway], now: datetime) -> list[FlagRow]:
    prefixes = defaultdict(list)
    for service, prefix in Route.objects.values_list("service_id", "prefix"):
        prefixes[service].append(prefix)
    shapes = {name: icon(name) for name in ("check", "clock", "cross", "pin", "warn")}
    found = []
    for flag in flags:
        state = flag_state(flag, gateways, now)
        told = " ".join(prefixes[flag.service_id])
        missing = [row.key for row in gateways if not row.runs(flag)] if len(gateways) > 1 else []
        why = f"Not on {', '.join(missing)}." if missing else state.why
        found.append(FlagRow(flag.key, told, flag.weight, state, shapes[state.icon], why))
    return found


def _refusals(gateway: Gateway) -> list[RefusalRow]:
    """The newest first. What was taken since is asked for in the same question, by an index."""
    since = Confirmation.objects.filter(
        gateway=OuterRef("gateway"), generation__gte=OuterRef("generation"), confirmed_at__gt=OuterRef("last_at")
    ).order_by("generation")
    rows = gateway.refusals.annotate(
        taken=Subquery(since.values("generation")[:1]), taken_at=Subquery(since.values("confirmed_at")[:1])
    ).order_by("-last_at", "-pk")
    return [RefusalRow(row, row.taken, row.taken_at, _over(row, gateway)) for row in rows[:REFUSALS]]


def _over(row: Refusal, gateway: Gateway) -> bool:
    return (
        not gateway.error
        and gateway.observed_at is not None
        and gateway.observed_at > row.last_at
        and (gateway.observed_generation or 0) >= row.generation
    )


def _corrections(gateway: Gateway | None) -> list[Correction]:
    """Of one gateway, or of all that there ever were."""
    events = AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED.value).defer("verdict").order_by("-id")
    if gateway is not None:
        events = events.filter(subject=f"gateway {gateway.key}")
    found = []
    for event in events[:CORRECTIONS]:
        sentences: Sequence[str] = [str(one) for one in event.before.get("found", ())]
        told = tuple(sentences[:SENTENCES])
        found.append(Correction(event, told, len(sentences) - len(told)))
    return found
