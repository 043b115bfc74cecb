"""Which targets are in planned maintenance, and which will be. Each function is one query."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Q

from migrations_app.models import MaintenanceWindow


def planned_until(now: datetime) -> dict[str, datetime]:
    """Target (as in HealthSample) -> the end of the window that it is in; of several the one that lasts the longest."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT target, max(coalesce(ended_at, ends_at))
            FROM migrations_app_maintenancewindow CROSS JOIN unnest(targets) AS target
            WHERE starts_at <= %(now)s AND ends_at > %(now)s AND coalesce(ended_at, ends_at) > %(now)s GROUP BY target
            """,
            {"now": now},
        )
        return dict(cursor.fetchall())


def announced(now: datetime, within: timedelta) -> list[MaintenanceWindow]:
    """The windows that are open, and those that begin no later than `within` from now, in the order of their starts."""
    not_ended = Q(ended_at__isnull=True) | Q(ended_at__gt=now)
    rows = MaintenanceWindow.objects.filter(not_ended, starts_at__lte=now + within, ends_at__gt=now)
    return [row for row in rows.order_by("starts_at", "pk") if row.until > now]
