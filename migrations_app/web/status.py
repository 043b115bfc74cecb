"""The status page for support: product areas in plain words, open to everybody when a setting says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, wraps
from http import HTTPStatus
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.cache import add_never_cache_headers, patch_cache_control, patch_vary_headers
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from migrations_app.choices import Health, WeekStatus
from migrations_app.durations import to_the_second
from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT
from migrations_app.models import Flag, Gateway, MaintenanceWindow, Plan, Week
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.areas import uptime_of_area
from migrations_app.observe.history import Summary, summaries
from migrations_app.observe.last_minute import last_minute
from migrations_app.observe.maintenance import announced
from migrations_app.observe.moves import moves_since
from migrations_app.observe.uptime import DAYS, day_of, in_per_cent
from migrations_app.roles import Permission, who_may

from .access import may
from .gateway_state import flag_state
from .past import DAY_GRADES, DayBar
from .status_words import STANDING_WORDS, Area, Facts, Standing, area_of, days_in_words

ANNOUNCED = timedelta(days=7)  # before it begins, planned maintenance is told
KEPT_FOR = 5  # seconds that one reading answers everybody who asks
AWAY = "The status is not known: the database does not answer. Ask again in a few seconds."


@dataclass(frozen=True, slots=True)
class Status:
    """All areas at one moment. `as_of` is in the plan's time zone."""

    title: str
    as_of: datetime
    areas: tuple[Area, ...]
    uptimes: tuple[tuple[int | None, ...], ...]  # of each area, by observe.areas

    @property
    def shown(self) -> list[tuple[Area, SafeString]]:
        """Each area with the drawing of its days."""
        today = day_of(self.as_of, 0)
        return [(area, _drawn(days, today)) for area, days in zip(self.areas, self.uptimes, strict=True)]

    @property
    def worst(self) -> Standing:
        order = list(Standing)
        return max((area.standing for area in self.areas), key=order.index, default=Standing.UNKNOWN)

    @property
    def sentence(self) -> str:
        """How things stand as a whole."""
        if not self.areas:
            return "There is nothing to tell yet."
        wrong = [area for area in self.areas if area.standing in {Standing.TROUBLE, Standing.DOWN}]
        if wrong:
            names = ", ".join(area.area for area in wrong)
            return f"{names}: {'not everything works' if len(wrong) > 1 else wrong[0].word.lower()}."
        if self.worst == Standing.UNKNOWN:
            return "Nothing is known to be wrong, but not everything has been checked just now."
        return "Everything works."

    @property
    def icon(self) -> str:
        return STANDING_WORDS[self.worst][1]


def load_status() -> Status | None:
    """As it is now, None without a plan. Seven queries, however many areas there are."""
    plan = Plan.objects.first()
    if plan is None:
        return None
    now = timezone.now()
    zone = ZoneInfo(plan.timezone)
    gateways = list(Gateway.objects.filter(plan=plan))
    # What a gateway ran when it last answered says nothing of now.
    seen = [row for row in gateways if row.answers_at(now)]
    known = summaries(now)
    health = {target: one.state for target, one in known.items()}
    moves = moves_since(day_of(now, DAYS - 1))
    counted = last_minute(now).failures()
    windows = announced(now, ANNOUNCED)
    areas, uptimes = [], []
    old_days = _days(known.get(MONOLITH_TARGET), now)
    for flag in Flag.objects.select_related("service", "week__downtime_clock"):
        service, week = flag.service, flag.week
        requests, errors = counted.get(service.key, (0, 0))
        state = flag_state(flag, seen or gateways, now)
        facts = Facts(
            area=service.area or service.title,
            owner=service.owner,
            runs=state.runs if seen else None,
            # What is pinned stays on the old side, also while its weight is not rolled back yet.
            asked=MONOLITH_WEIGHT if state.pinned else flag.weight,
            new=health.get(service.key, Health.UNKNOWN),
            old=health.get(MONOLITH_TARGET, Health.UNKNOWN),
            new_side_only=service.new_side_only,
            requests=requests,
            errors=errors,
            changed_at=flag.changed_at.astimezone(zone) if flag.changed_at else None,
            week=WeekStatus(week.status),
            planned_start=week.planned_start,
            planned_end=week.planned_end,
            today=now.astimezone(zone).date(),
            pinned=state.pinned,
            failing_over=any(service.key in row.failing_over for row in seen),
            down_for=_down_for(week, service.key),
            maintenance=_planned(windows, _serving(service.key, state.runs, flag.weight), zone),
        )
        areas.append(area_of(facts))
        new_days = _days(known.get(service.key), now)
        old = None if service.new_side_only else old_days
        uptimes.append(tuple(uptime_of_area(moves.get(flag.key, ()), flag.weight, new_days, old, now)))
    return Status(plan.title, now.astimezone(zone), tuple(areas), tuple(uptimes))


def _down_for(week: Week, service: str) -> str:
    """How long this service alone has not worked since its week began; "" for not at all, or once the week is done."""
    clock = getattr(week, "downtime_clock", None)
    seconds = clock.of_services.get(service) if clock and week.status != WeekStatus.DONE else None
    return to_the_second(timedelta(seconds=seconds)) if seconds else ""


def _serving(service: str, runs: int | None, asked: int) -> set[str]:
    """The targets that serve it: the service, the monolith or both."""
    weight = asked if runs is None else runs
    found = {service} if weight > MONOLITH_WEIGHT else set()
    return found | ({MONOLITH_TARGET} if weight < SERVICE_WEIGHT else set())


def _planned(
    windows: list[MaintenanceWindow], targets: set[str], zone: ZoneInfo
) -> tuple[tuple[datetime, datetime], ...]:
    return tuple(
        (row.starts_at.astimezone(zone), row.until.astimezone(zone)) for row in windows if targets & set(row.targets)
    )


def _days(summary: Summary | None, now: datetime) -> tuple[int | None, ...]:
    """The uptimes of the last days, today last, also when they were summed up on another day."""
    if summary is None or summary.refreshed_at is None:
        return (None,) * DAYS
    since = min(max((day_of(now, 0) - day_of(summary.refreshed_at, 0)).days, 0), DAYS)
    return (*summary.days[since:], *(None,) * since)


# What is drawn seldom changes: today's uptime does, when a poll has failed.
@lru_cache(maxsize=1024)
def _drawn(uptimes: tuple[int | None, ...], today: datetime) -> SafeString:
    named = [_named(today - timedelta(days=DAYS - 1 - place)) for place in range(DAYS)]
    bars = [_bar(place, uptime, named[place]) for place, uptime in enumerate(uptimes)]
    return render_to_string("parts/days.html", {"days": bars, "summary": days_in_words(uptimes, named)})


def _named(day: datetime) -> str:
    return f"{day.day} {day:%B}"


def _bar(place: int, uptime: int | None, day: str) -> DayBar:
    if uptime is None:
        return DayBar(place, "none", 1, f"{day}: not known")
    grade = next(name for least, name in DAY_GRADES if uptime >= least)
    return DayBar(place, grade, {"whole": 10, "most": 7, "less": 4}[grade], f"{day}: {in_per_cent(uptime)}")


class Kept:
    """The last reading, for KEPT_FOR seconds, and for as long as the database does not answer.

    One thread at a time reads anew; whoever asks meanwhile gets the last one, when there is one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: tuple[float, Status | None] | None = None

    def get(self) -> Status | None:
        """Raises DatabaseError when there is nothing to fall back on."""
        before = self._found
        if before and time.monotonic() - before[0] < KEPT_FOR:
            return before[1]
        if not self._lock.acquire(blocking=before is None):
            return before[1] if before else None
        try:
            if self._found is before:  # else somebody else has just read
                self._found = time.monotonic(), load_status()
        except DatabaseError:
            if before is None:
                raise
        finally:
            self._lock.release()
        return self._found[1] if self._found else None

    def forget(self) -> None:
        """For tests: the next one to ask gets things as they are."""
        self._found = None


kept = Kept()


def _for_support(view: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """To everybody with STATUS_PUBLIC, else to accounts that may see the plan."""

    @login_not_required
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponseBase:
        if not settings.STATUS_PUBLIC and not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        return require_safe(answered)(request)

    def answered(request: HttpRequest) -> HttpResponseBase:
        public = settings.STATUS_PUBLIC
        if not public and not may(request, Permission.VIEW_PLAN):
            raise PermissionDenied(f"Your account may not see this. It is open to {who_may(Permission.VIEW_PLAN)}.")
        response = view(request)
        if public and settings.SESSION_COOKIE_NAME not in request.COOKIES:
            patch_cache_control(response, public=True, max_age=KEPT_FOR)
            patch_vary_headers(response, ["Cookie", "HX-Request"])
        else:
            add_never_cache_headers(response)
        return response

    return guarded


@_for_support
def status(request: HttpRequest) -> HttpResponseBase:
    try:
        found = kept.get()
    except DatabaseError:
        return _away(HttpResponse(AWAY, "text/plain"))
    htmx = request.headers.get("HX-Request") == "true"
    return render(request, "status.html#panel" if htmx else "status.html", {"status": found})


@_for_support
def status_json(_request: HttpRequest) -> HttpResponseBase:
    """The same for machines. Times are ISO 8601 with their offset.

    `uptime_90_days`: hundredths of a per cent for each day of UTC, today last; null where nobody could tell.
    """
    try:
        found = kept.get()
    except DatabaseError:
        return _away(JsonResponse({"error": AWAY}))
    if found is None:
        return JsonResponse({"plan": None, "as_of": timezone.now().isoformat(), "areas": []})
    return JsonResponse(
        {
            "plan": found.title,
            "as_of": found.as_of.isoformat(),
            "standing": found.worst.value,
            "areas": [
                {
                    "area": one.area,
                    "standing": one.standing.value,
                    "served_by": one.serves,
                    "how_well": one.well,
                    "say": one.say,
                    "last_change": one.changed,
                    "last_change_at": one.changed_at.isoformat() if one.changed_at else None,
                    "coming": one.coming,
                    "maintenance": one.maintenance or None,
                    "uptime_90_days": uptimes,
                }
                for one, uptimes in zip(found.areas, found.uptimes, strict=True)
            ],
        }
    )


def _away(response: HttpResponse) -> HttpResponse:
    response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    response["Retry-After"] = str(KEPT_FOR)
    return response
