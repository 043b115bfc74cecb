"""Which targets are in planned maintenance, and which will be. Each function is one query."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Q

from migrations_app.models import MaintenanceWindow


def windows_at(now: datetime) -> dict[str, MaintenanceWindow]:
    """Target (as in HealthSample) -> the window that it is in; of several the one that lasts the longest."""
    rows = MaintenanceWindow.objects.filter(_not_ended(now), starts_at__lte=now, ends_at__gt=now)
    return {target: row for row in sorted(rows, key=lambda row: row.until) for target in row.targets}


def announced(now: datetime, within: timedelta) -> list[MaintenanceWindow]:
    """The windows that are open, and those that begin no later than `within` from now, in the order of their starts."""
    rows = MaintenanceWindow.objects.filter(_not_ended(now), starts_at__lte=now + within, ends_at__gt=now)
    return [row for row in rows.order_by("starts_at", "pk") if row.until > now]


def _not_ended(now: datetime) -> Q:
    return Q(ended_at__isnull=True) | Q(ended_at__gt=now)
