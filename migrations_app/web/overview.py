"""The overview: the monolith and every service in one list, with two days of each, and what has changed meanwhile."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.db import connection
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from migrations_app.choices import Health
from migrations_app.gates.rows import current_health
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.models import Gateway, Plan
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.last_minute import LastMinute, last_minute
from migrations_app.observe.maintenance import planned_until
from migrations_app.roles import Permission
from migrations_app.templatetags.switchyard import icon

from .access import WebRequest, fresh, requires
from .context import chrome
from .gateway_state import GatewayState
from .overview_html import Drawn, drawn
from .overview_rows import SHAPES, Target, rows_of

PAGE = 50  # rows
LARGEST = 3  # of what still reaches the monolith
SUMMED_WITHIN = timedelta(minutes=5)  # the sums are written anew each minute
_PARTS = {None: "unknown", MONOLITH_WEIGHT: "all", SERVICE_WEIGHT: "none"}  # what of a service the monolith serves
WORST = (Health.UNHEALTHY, Health.UNKNOWN, Health.HEALTHY)  # first
PLAN, TROUBLE = "plan", "trouble"


class Filter(forms.Form):
    """Which rows, and in which order. All of it is optional and lives in the address."""

    q = forms.CharField(required=False, max_length=100, label="Search")
    state = forms.ChoiceField(required=False, choices=[("", "All"), *Health.choices])
    sort = forms.ChoiceField(
        required=False, label="Order", choices=[("", "As planned, by week"), (TROUBLE, "Trouble first")]
    )
    page = forms.IntegerField(required=False, min_value=1)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one heading. `week` links to its page."""

    title: str
    week: int | None
    rows: tuple[Drawn, ...]


@dataclass(frozen=True, slots=True)
class Left:
    """What the top of the page tells of the monolith: `share` in words, None without traffic."""

    share: str | None
    requests: int
    total: int
    largest: tuple[tuple[str, str, int], ...]  # key, title, requests
    meter: int


@dataclass(frozen=True, slots=True)
class Board:
    """What the parts of other pages read of a whole board."""

    plan: Plan
    gateway: GatewayState


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def overview(request: WebRequest) -> HttpResponseBase:
    """GET parameters: q, state, sort, page."""
    return _show(request, "#panel" if request.htmx else "")


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    """What refreshes by itself. `shown`: the keys of the rows that the page has; others would have no place in it."""
    return _show(request, "#live", oob=True)


def _show(request: WebRequest, part: str, *, oob: bool = False) -> HttpResponseBase:
    """Ten queries, with those of every page, however many services, polls and events there are."""
    around = chrome(request)["chrome"]
    if around.plan is None:
        return render(request, "no_plan.html")
    form = Filter(request.GET)
    form.label_suffix = ""
    form.is_valid()
    said = {name: value for name, value in form.cleaned_data.items() if value}
    counted = last_minute(around.now)
    targets = _targets(around.plan, around.gateways, counted, around.now)
    found = _chosen(targets, said)
    last = max(1, -(-len(found) // PAGE))
    page = min(said.pop("page", 1), last)
    shown = found[(page - 1) * PAGE : page * PAGE]
    has = set(request.GET["shown"].split()) if oob and "shown" in request.GET else None
    told = [target for target in shown if has is None or target.key in has]
    rows = drawn(rows_of(told, around.zone, around.now), around.zone)
    keys = " ".join(target.key for target in shown)
    context: dict[str, Any] = {
        "board": Board(around.plan, around.gateway),
        "oob": oob,
        "form": form,
        "filtered": bool(said.keys() - {"sort"}),
        "query": urlencode(said | ({"page": page} if page > 1 else {})),
        "groups": list(_groups(rows, said.get("sort", PLAN))),
        "count": len(found),
        "of": len(targets),
        "page": page,
        "last": last,
        "previous": urlencode(said | {"page": page - 1}) if page > 1 else "",
        "next": urlencode(said | {"page": page + 1}) if page < last else "",
        "tally": _tally(targets),
        "left": _left(targets, counted),
        "old_sums": _old_sums(rows, around.now),
        "shown": keys,
        "token": f"{zlib.crc32(keys.encode()):08x}",
    }
    return render(request, f"overview.html{part}", context, status=422 if form.errors else 200)


def _targets(plan: Plan, gateways: list[Gateway], counted: LastMinute, now: datetime) -> list[Target]:
    """The monolith, then the services in the order of the plan."""
    health = {target: state for target, (state, _) in current_health(now).items()}
    failures = counted.failures()
    seen = [row for row in gateways if row.answers_at(now)]
    running = _running(seen)
    away = {key for row in seen for key in row.failing_over}
    seen_by = f"by {len(seen)} of {len(gateways)} gateways" if 0 < len(seen) < len(gateways) else ""
    planned = planned_until(now)
    found = []
    serving: Counter[str] = Counter()
    for key, title, week, week_title, area, owner, flag, new_side_only, asked in _flags():
        requests, failed = failures.get(key, (0, 0))
        runs = running.get(flag) if running is not None else None
        if not new_side_only:
            serving[_part(runs)] += 1
        found.append(
            Target(
                key=key,
                title=title,
                state=health.get(key, Health.UNKNOWN),
                week=(week, week_title),
                words=f"{key} {area} {owner} {flag}",
                flag=flag,
                new_side_only=new_side_only,
                asked=asked,
                runs=runs,
                requests=requests,
                failed=failed,
                planned_until=planned.get(key),
                failing_over=key in away,
                seen_by=seen_by,
            )
        )
    old = Target(
        MONOLITH_TARGET,
        plan.monolith_title,
        health.get(MONOLITH_TARGET, Health.UNKNOWN),
        serves=_serving(serving),
        planned_until=planned.get(MONOLITH_TARGET),
    )
    return [old, *found]


# As expressions of the ORM it takes as long to put in words as to answer.
_FLAGS = """
    SELECT service.key, service.title, week.number, week.title, service.area, service.owner, flag.key,
        service.new_side_only, flag.weight
    FROM migrations_app_flag AS flag
    JOIN migrations_app_week AS week ON week.id = flag.week_id
    JOIN migrations_app_service AS service ON service.id = flag.service_id
    ORDER BY week.number, service.position, flag.key
"""


def _flags() -> list[tuple[Any, ...]]:
    """In the order of the plan: columns of _FLAGS."""
    with connection.cursor() as cursor:
        cursor.execute(_FLAGS)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def _running(gateways: list[Gateway]) -> dict[str, int] | None:
    """Flag key -> the weight that each of these runs by its own word; None without any."""
    if not gateways:
        return None
    first, *others = (row.observed_weights for row in gateways)
    return {flag: weight for flag, weight in first.items() if all(one.get(flag) == weight for one in others)}


def _part(runs: int | None) -> str:
    return _PARTS.get(runs, "part")


def _serving(parts: Mapping[str, int]) -> str:
    """What of the services the monolith serves, by what the gateway runs."""
    if not sum(parts.values()):
        return "Serves no service"
    if parts["unknown"]:
        return "Not known"
    told = [f"all of {parts['all']}"] if parts["all"] else []
    told += [f"part of {parts['part']}"] if parts["part"] else []
    return f"Serves {', '.join(told)}" if told else "Serves none of them"


def _chosen(targets: list[Target], said: Mapping[str, Any]) -> list[Target]:
    """Those that fit the filter, in the order that is asked for."""
    words = str(said.get("q", "")).casefold().split()
    found = [
        one
        for one in targets
        if said.get("state") in {None, one.state}
        and all(word in f"{one.title} {one.key} {one.words}".casefold() for word in words)
    ]
    return sorted(found, key=_trouble) if said.get("sort") == TROUBLE else found


def _trouble(target: Target) -> tuple[int, bool]:
    return WORST.index(target.state), not target.carries


def _groups(rows: Sequence[Drawn], sort: str) -> Iterator[Group]:
    if sort == TROUBLE:
        if rows:
            yield Group("Trouble first, and of that what carries traffic", None, tuple(rows))
        return
    for week, found in groupby(rows, key=lambda row: row.target.week):
        yield Group(f"Week {week[0]}: {week[1]}" if week else "The old side", week[0] if week else None, tuple(found))


def _tally(targets: Sequence[Target]) -> list[tuple[Health, SafeString, int]]:
    counted = Counter(target.state for target in targets)
    return [(state, icon(SHAPES[state]), counted[state]) for state in WORST if counted[state]]


def _left(targets: Sequence[Target], counted: LastMinute) -> Left:
    remaining = counted.still_on_monolith()
    titles = {target.key: target.title for target in targets}
    requests, share = sum(one.requests for one in remaining), sum(one.share for one in remaining)
    total = round(requests / share) if share else sum(target.requests for target in targets)
    largest = tuple(
        (one.service or "", titles.get(one.service or "", "what no route matches"), one.requests)
        for one in remaining[:LARGEST]
    )
    # Never rounded to all or nothing.
    whole = round(100 * share) if share in {0, 1} else min(99, max(1, round(100 * share)))
    return Left(f"{whole}" if total else None, requests, total, largest, whole)


def _old_sums(rows: Sequence[Drawn], now: datetime) -> datetime | None:
    """When uptimes and lines were last summed up, when that is too long ago; else None."""
    last = max((row.summed_at for row in rows if row.summed_at), default=None)
    return last if last and now - last > SUMMED_WITHIN else None
