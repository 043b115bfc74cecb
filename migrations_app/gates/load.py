"""Loads what a verdict rests on, for any number of weeks, in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Prefetch
from django.utils import timezone

from migrations_app.choices import Health
from migrations_app.models import Flag, HealthState, Prerequisite, SignOff

from .checks import CHECKS
from .verdict import SeenPrerequisite, SeenService, SeenSignOff, Snapshot, Verdict, judge


def verdicts(*, weeks: Collection[int] | None = None, flags: Collection[str] | None = None) -> dict[int, Verdict]:
    """Week number -> verdict, for all weeks of the plan or the ones named.

    With `flags`, only the services of these flags must be healthy: the gate of a part of a week.
    """
    # Columns, not objects: a click waits for this.
    flag_rows = Flag.objects.values_list("week__number", "key", "weight", "service__key", "service__title")
    health = current_health()
    weights: dict[int, dict[str, int]] = defaultdict(dict)
    services: dict[int, list[SeenService]] = defaultdict(list)
    for week, key, weight, service, title in flag_rows:
        weights[week][key] = weight
        if flags is None or key in flags:
            state, error = health.get(service, (Health.UNKNOWN, "no poll yet"))
            services[week].append(SeenService(service, title, state, error))
    live = SignOff.objects.filter(withdrawn_at__isnull=True)
    rows = Prerequisite.objects.select_related("week").prefetch_related(
        Prefetch("sign_offs", queryset=live, to_attr="live")
    )
    prerequisites: dict[int, list[SeenPrerequisite]] = defaultdict(list)
    for row in rows if weeks is None else rows.filter(week__number__in=weeks):
        prerequisites[row.week.number].append(_seen(row))
    numbers = weeks if weeks is not None else sorted({*weights, *prerequisites})
    return {
        number: judge(Snapshot(number, tuple(prerequisites[number]), tuple(services[number]), dict(weights)), CHECKS)
        for number in numbers
    }


def current_health(now: datetime | None = None) -> dict[str, tuple[Health, str]]:
    """Target -> (state, error). A state that no poll has confirmed for HEALTH_STALE_AFTER seconds is unknown."""
    now = now or timezone.now()
    oldest = now - timedelta(seconds=settings.HEALTH_STALE_AFTER)
    found = {}
    for row in HealthState.objects.all():
        if row.polled_at < oldest:
            age = int((now - row.polled_at).total_seconds())
            found[row.target] = (Health.UNKNOWN, f"the last poll was {age} s ago")
        else:
            found[row.target] = (Health(row.state), row.error)
    return found


def _seen(row: Prerequisite) -> SeenPrerequisite:
    sign_offs: list[SignOff] = row.live  # type: ignore[attr-defined]  # to_attr of the prefetch above
    sign_off = SeenSignOff(sign_offs[0].actor, sign_offs[0].ticked_at, sign_offs[0].note) if sign_offs else None
    return SeenPrerequisite(row.pk, row.key, row.title, row.help, sign_off, row.check_name, row.parameters)
