"""`week_stable`: a week is fully on, and nothing has disturbed it for a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from migrations_app.choices import CheckState, Health, WeekStatus
from migrations_app.durations import in_words
from migrations_app.gates.parameters import WeekStable
from migrations_app.gates.seen import Finding
from migrations_app.gateways.base import Side
from migrations_app.models import Flag, HealthChange, HealthState, Week
from migrations_app.models.traffic import requests_of, shortest_window

from .probe import Scene


def week_stable(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`week: 1`, `for: 24h`, `error_rate: 0.1` (per cent of the requests that its services answered on the new side).

    The time counts from the last move of its flags, the start of its soak clock, and the end of the last unhealthy
    spell of its services, whichever was last: all three are kept for good, however long `for` is. Errors are counted
    over the last `for`; samples of traffic are kept for HISTORY_DAYS, and a longer time is told as that.
    """
    asked = WeekStable.of(parameters)
    lasting = scene.plan.scaled(asked.lasting)
    limit = f"{in_words(lasting)}, at most {asked.error_rate:g} %" if lasting else f"at most {asked.error_rate:g} %"
    week = Week.objects.filter(plan=scene.plan, number=asked.week).first()
    if week is None:
        return Finding(CheckState.UNKNOWN, f"the plan has no week {asked.week}", limit, "Name another in the plan.")
    flags = list(Flag.objects.filter(week=week).select_related("service"))
    if off := [flag.key for flag in flags if not flag.is_fully_on]:
        value = f"{len(flags) - len(off)} of {len(flags)} flags fully on"
        return Finding(CheckState.NOT_HELD, value, limit, f"Enable {', '.join(off)}.")
    if week.status not in {WeekStatus.SOAKING, WeekStatus.DONE}:
        value = WeekStatus(week.status).label.lower()
        return Finding(CheckState.NOT_HELD, value, limit, f"Start week {week.number}.")
    if week.soak_started_at is None:
        value = f"its soak clock stands: {week.soak_stopped_because}"
        return Finding(CheckState.NOT_HELD, value, limit, "Look at the logs of its services, and mend them.")
    since = max([week.soak_started_at, *(flag.changed_at for flag in flags if flag.changed_at)])
    titles = {flag.service.key: flag.service.title for flag in flags}
    health = _health(titles, scene.now, limit)
    if isinstance(health, Finding):
        return health
    healthy_since, because = health
    if healthy_since is None or healthy_since <= since:
        because = ""
    else:
        since = healthy_since
    services = [flag.service_id for flag in flags]
    return _judge(asked, services, since=since, because=because, lasting=lasting, limit=limit, now=scene.now)


def _health(titles: Mapping[str, str], now: datetime, limit: str) -> tuple[datetime | None, str] | Finding:
    """Since when all have been healthy without a break, and what was before; or why they are not.

    The state of a target knows when its healthy spell began, so no history has to be read for this.
    """
    states = {row.target: row for row in HealthState.objects.filter(target__in=titles)}
    for key, title in titles.items():
        row = states.get(key)
        if row is not None and row.state == Health.UNHEALTHY:
            value = f"{title} is unhealthy: {row.error}"
            return Finding(CheckState.NOT_HELD, value, limit, f"Look at the log of {title}, and mend it.", row.since)
        if row is None or row.polled_at < now - row.trusted_for or row.state != Health.HEALTHY:
            value = f"{title} has not been polled" + (f" for {in_words(now - row.polled_at)}" if row else "")
            return Finding(CheckState.UNKNOWN, value, limit, "Wait for the next poll. Does a worker run?")
    last = max(states.values(), key=lambda row: row.since, default=None)
    if last is None:
        return None, ""
    ill = HealthChange.objects.filter(target=last.target, at__lt=last.since).order_by("-at").first()
    was_ill = ill is not None and ill.state == Health.UNHEALTHY
    was = f"was unhealthy until then: {ill.reason}" if ill and was_ill else "was not polled before"
    return last.since, f"{titles[last.target]} {was}"


def _judge(
    asked: WeekStable,
    services: list[int],
    *,
    since: datetime,
    because: str,
    lasting: timedelta,
    limit: str,
    now: datetime,
) -> Finding:
    kept = timedelta(days=settings.HISTORY_DAYS)
    lasted = now - since
    value = f"stable for {in_words(lasted)}"
    rate, requests = 0.0, 0
    if services:
        span = min(max(lasting, shortest_window()) if lasting else lasted, lasted, kept)
        requests, errors = requests_of(services, Side.SERVICE, now - span, now)
        rate = 100 * errors / requests if requests else 0.0
        value += f", {rate:.2f} % errors of {requests:,} requests" if requests else ", no request was counted"
        value += f" in the last {in_words(kept)}" if span == kept else ""
    if rate > asked.error_rate:
        act = "Look at what its services answer; the errors of the time before count for nothing."
        return Finding(CheckState.NOT_HELD, value, limit, act, since)
    if lasted < lasting:
        act = f"Wait another {in_words(lasting - lasted)}." + (f" {because}." if because else "")
        return Finding(CheckState.NOT_HELD, value, limit, act, since)
    if services and not requests:
        return Finding(CheckState.UNKNOWN, value, limit, "Wait for traffic: without any there is no error rate.", since)
    return Finding(CheckState.HELD, value, limit, since=since)
