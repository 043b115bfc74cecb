"""What pages show of uptime: one row for each target, kept up to date. The formula is in the database (migration 0009).

Uptime is what was healthy of the polls that could tell: polls that nobody could tell of, and those of planned
maintenance, count neither for nor against. In hundredths of a per cent, rounded down: 10,000 is never shown of a target
that failed once.
"""
# ruff: noqa: S608  # statements are put together from names in this file, never from what somebody sent

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import connection

HOURS = 48  # of the sparkline
UPTIME_HOURS = 25  # the running one, and a whole day before it
DAYS = 90

# Written as one statement: a page that reads meanwhile sees the minute before, whole.
_REFRESH = f"""
WITH hours AS (
    SELECT target, bucket, polls, failed, unknown, maintenance,
        total_us / nullif((SELECT sum(n) FROM unnest(latency) AS n), 0) / 1000.0 AS mean
    FROM migrations_app_healthhour WHERE bucket > %(hour)s - interval '{HOURS} hours' AND bucket <= %(hour)s
),
days AS (
    SELECT target, bucket, polls, failed, unknown, maintenance
    FROM migrations_app_healthday WHERE bucket > %(day)s - interval '{DAYS * 24} hours' AND bucket <= %(day)s
),
targets AS (
    SELECT target, switchyard_uptime(sum(polls)::bigint, sum(failed)::bigint, sum(unknown)::bigint,
        sum(maintenance)::bigint) AS uptime
    FROM days GROUP BY target
),
lately AS (
    SELECT target, switchyard_uptime(sum(polls)::bigint, sum(failed)::bigint, sum(unknown)::bigint,
        sum(maintenance)::bigint) AS uptime
    FROM hours WHERE bucket > %(hour)s - interval '{UPTIME_HOURS} hours' GROUP BY target
),
sparklines AS (
    SELECT targets.target, array_agg(hours.mean ORDER BY slot) AS line
    FROM targets CROSS JOIN generate_series(0, {HOURS - 1}) AS slot
    LEFT JOIN hours ON hours.target = targets.target
        AND hours.bucket = %(hour)s - ({HOURS - 1} - slot) * interval '1 hour'
    GROUP BY targets.target
),
bars AS (
    SELECT targets.target, array_agg(switchyard_uptime(polls, failed, unknown, maintenance) ORDER BY slot) AS line
    FROM targets CROSS JOIN generate_series(0, {DAYS - 1}) AS slot
    LEFT JOIN days ON days.target = targets.target
        AND days.bucket = %(day)s - ({DAYS - 1} - slot) * interval '24 hours'
    GROUP BY targets.target
)
INSERT INTO migrations_app_healthsummary (target, refreshed_at, uptime_24h, uptime_90d, sparkline, days)
SELECT targets.target, %(now)s, lately.uptime, targets.uptime, sparklines.line, bars.line
FROM targets JOIN sparklines USING (target) JOIN bars USING (target) LEFT JOIN lately USING (target)
ON CONFLICT (target) DO UPDATE SET (refreshed_at, uptime_24h, uptime_90d, sparkline, days)
    = ROW(excluded.refreshed_at, excluded.uptime_24h, excluded.uptime_90d, excluded.sparkline, excluded.days)
"""


def refresh_summaries(now: datetime) -> None:
    """Write the row of each target that was polled within the last DAYS anew, and forget those of the others."""
    at = now.astimezone(UTC)
    hour = at.replace(minute=0, second=0, microsecond=0)
    parameters = {"hour": hour, "day": hour.replace(hour=0), "now": now}
    with connection.cursor() as cursor:
        cursor.execute(_REFRESH, parameters)
        cursor.execute("DELETE FROM migrations_app_healthsummary WHERE refreshed_at < %(now)s", parameters)


def in_per_cent(hundredths: int | None) -> str:
    """`99.98 %`; `100 %` when nothing failed; a dash when nobody could tell."""
    if hundredths is None:
        return "-"
    whole, part = divmod(hundredths, 100)
    return f"{whole}.{part:02} %" if part or whole < 100 else "100 %"


def day_of(now: datetime, back: int) -> datetime:
    """The beginning of the day, in UTC, so many days before today."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=back)
