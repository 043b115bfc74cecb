"""The soak clock of weeks that are all on: it stands while a service of the week is not healthy, and starts anew."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Health, WeekStatus
from migrations_app.models import HealthChange, HealthState, Plan, Week

CLOCKS_DIFFER = timedelta(seconds=1)  # between the host that polls and the one that enabled
JUST_NOW = timedelta(minutes=1)


def watch_soaks(now: datetime | None = None) -> list[int]:
    """Stop the clock of each soaking week that had an unhealthy spell; start it again once all is healthy.

    Level-triggered and safe to repeat: it looks at the changes of state since the clock started, which are kept for
    good, so a spell that was over before this was called counts too. How many bad polls make one is the plan's to say.
    Returns the numbers of the weeks whose clock was touched.
    """
    now = now or timezone.now()
    if not Week.objects.filter(status=WeekStatus.SOAKING).exists():
        return []
    touched = []
    with transaction.atomic():
        Plan.objects.select_for_update().first()
        states = {row.target: row for row in HealthState.objects.all()}
        for week in Week.objects.filter(status=WeekStatus.SOAKING).select_for_update():
            if _touch(week, states, now):
                touched.append(week.number)
    return touched


def _touch(week: Week, states: dict[str, HealthState], now: datetime) -> bool:
    services = dict(week.flags.values_list("service__key", "service__title"))
    ill = sorted(key for key in services if key in states and states[key].state == Health.UNHEALTHY)
    if week.soak_started_at is None:
        well = all(key in states and states[key].state == Health.HEALTHY for key in services)
        if well:
            _save(week, now, "")
        return well
    since = week.soak_started_at + CLOCKS_DIFFER
    if week.soak_started_at > now + CLOCKS_DIFFER:
        # The clock of the host was put back: what was polled just now came after the start all the same.
        since = now - JUST_NOW
    failed = (
        HealthChange.objects.filter(target__in=services, state=Health.UNHEALTHY, at__gt=since, at__lte=now)
        .order_by("-at")
        .first()
    )
    if not ill and failed is None:
        return False
    key = ill[0] if ill else failed.target if failed else ""
    because = f"{services[key]} was unhealthy"
    started = None if ill else now
    record(
        AuditKind.WEEK_SOAK_RESTARTED,
        actor=SYSTEM,
        subject=f"week {week.number}",
        week_number=week.number,
        reason=because,
        before={"soak_started_at": week.soak_started_at.isoformat()},
        after={"soak_started_at": started.isoformat() if started else None},
    )
    _save(week, started, because if started is None else "")
    return True


def _save(week: Week, started: datetime | None, because: str) -> None:
    Week.objects.filter(pk=week.pk).update(
        soak_started_at=started, soak_stopped_because=because, version=F("version") + 1
    )
