"""Requests that the gateway sent to each side of each service."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.db.models import Q, Sum

from migrations_app.gateways.base import NO_LATENCY, Side

from .gateways import Gateway
from .services import Service


class TrafficCounter(models.Model):
    """A gateway's own counter at the last reading; the difference to the next reading is part of a sample.

    Of a service and a side, or, without a service, of what no route matches. Each gateway has its own: the restart of
    one, which begins at zero again, would hide in a sum. What is null was not read yet: it counts from the next
    reading on. `read_at` is when the gateway was asked. `failovers` are among `requests` and `errors`, and
    `failed_failovers` among `failovers` (gateways.base.SideTraffic).
    """

    gateway = models.ForeignKey(Gateway, on_delete=models.CASCADE, related_name="+", db_index=False)
    service = models.ForeignKey(Service, null=True, on_delete=models.CASCADE, related_name="+")
    side = models.CharField(max_length=10, choices=[(side.value, side.value) for side in Side])
    requests = models.PositiveBigIntegerField()
    errors = models.PositiveBigIntegerField()
    client_errors = models.PositiveBigIntegerField(null=True)
    retries = models.PositiveBigIntegerField(null=True)
    failovers = models.PositiveBigIntegerField(null=True)
    failed_failovers = models.PositiveBigIntegerField(null=True)
    latency = models.JSONField(default=list, help_text="Requests by LATENCY_BOUNDS, one more for what is above all.")
    read_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["gateway", "service", "side"],
                nulls_distinct=False,
                name="one_counter_per_gateway_service_and_side",
            )
        ]

    def __str__(self) -> str:
        return f"{self.service or 'rest'} {self.side} of {self.gateway}"


class TrafficSample(models.Model):
    """Requests to one side of one service between two readings of the counters, of all gateways together.

    It covers what came later than `begins_at`, when the oldest of the readings before was asked for, and up to
    `read_at`; where `begins_at` is null an older version stored it, and nobody knows. Its response times may be of
    requests a second or two before that (gateways.base.SideTraffic).

    Without a service: what no route matches, all of which goes to the monolith. Partitioned by day
    (observe.partitions), without an index on `id`: nothing is looked up by it.
    """

    service = models.ForeignKey(Service, null=True, on_delete=models.CASCADE, related_name="+", db_index=False)
    side = models.CharField(max_length=10, choices=[(side.value, side.value) for side in Side])
    begins_at = models.DateTimeField(null=True)
    read_at = models.DateTimeField()
    requests = models.PositiveIntegerField()
    errors = models.PositiveIntegerField()
    client_errors = models.PositiveIntegerField(default=0, db_default=0)
    retries = models.PositiveIntegerField(default=0, db_default=0)
    failovers = models.PositiveIntegerField(default=0, db_default=0)
    failed_failovers = models.PositiveIntegerField(default=0, db_default=0)
    latency = ArrayField(
        models.IntegerField(), default=list, help_text="As TrafficCounter.latency, since the last reading."
    )

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(side__in=list(Side)), name="traffic_side_is_known"),
            models.CheckConstraint(
                condition=Q(service__isnull=False) | Q(side=Side.MONOLITH),
                name="traffic_of_no_service_is_the_monoliths",
            ),
        ]
        indexes = [
            # Serves what no running sum covers (observe.traffic), and the clean-up by age.
            models.Index(fields=["read_at"], name="traffic_sample_age"),
            # Serves the error rate and the latency of one side of one service over a window (gates.checks).
            models.Index(fields=["service", "side", "read_at"], name="traffic_sample_of_a_side"),
        ]

    def __str__(self) -> str:
        return f"{self.service or 'rest'} {self.side} {self.requests}"


class TrafficReading(models.Model):
    """Running sums of all samples, at one reading: the difference of two of them is what came in between.

    `away`: not every gateway answered, so what those served is not known; it is in a later reading, or in none.
    One row for each reading of the last minutes. The lists have a place for each side of each service that has had a
    sample; a later reading has the same places, and perhaps more. A null in `services` is what no route matches. Every
    sample that was read between two readings is in their difference (observe.traffic).
    """

    read_at = models.DateTimeField(primary_key=True)
    away = models.BooleanField(default=False, db_default=False)
    services = ArrayField(models.BigIntegerField(null=True))
    sides = ArrayField(models.CharField(max_length=10))
    requests = ArrayField(models.BigIntegerField())
    errors = ArrayField(models.BigIntegerField())
    failovers = ArrayField(models.BigIntegerField())
    failed_failovers = ArrayField(models.BigIntegerField(), default=list, db_default=[])  # older versions have none

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.read_at:%H:%M:%S}"


def shortest_window() -> timedelta:
    """What a time scale shortens no further: within less there may be no reading, or none of response times yet."""
    return timedelta(seconds=max(10, 5 * settings.TRAFFIC_INTERVAL))


def requests_of(services: Collection[int], side: Side, after: datetime, until: datetime) -> tuple[int, int]:
    """Requests and errors of one side of these services (primary keys), in readings that begin at `after` or later.

    They end up to `until`. A reading that `after` lies in is not in it: nobody can tell its parts. Samples are kept for
    HISTORY_DAYS; older ones are not in it. Those older than some minutes stand for a minute each (observe.traffic),
    which is then in it as a whole or not at all.
    """
    rows = TrafficSample.objects.filter(service__in=services, side=side.value, read_at__gt=after, read_at__lte=until)
    begun = rows.filter(Q(begins_at=None) | Q(begins_at__gte=after))
    total = begun.aggregate(requests=Sum("requests", default=0), errors=Sum("errors", default=0))
    return total["requests"], total["errors"]


def beginning_of(service: int, side: Side, requests: int, until: datetime) -> datetime | None:
    """The beginning of the newest reading from which on, up to `until`, a side was sent at least so many requests.

    None when fewer are kept. Reads all that is kept of that side, by an index.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT coalesce(begins_at, read_at) FROM (
                SELECT begins_at, read_at, sum(requests) OVER (ORDER BY read_at DESC) AS so_far
                FROM migrations_app_trafficsample WHERE service_id = %s AND side = %s AND read_at <= %s
            ) AS counted WHERE so_far >= %s ORDER BY read_at DESC LIMIT 1
            """,
            [service, side.value, until, requests],
        )
        row: tuple[datetime] | None = cursor.fetchone()
        return row[0] if row else None


def latency_of(service: int, side: Side, after: datetime, until: datetime) -> tuple[int, ...]:
    """As `requests_of`, for one service: its answers by LATENCY_BOUNDS, one more for what is above all.

    Samples whose response times are not known, or were counted by other bounds, are not in it. Costs more than
    `requests_of` by the number of ranges, so it is for spans of minutes or hours.
    """
    ranges = ", ".join(f"coalesce(sum(latency[{position}]), 0)" for position in range(1, len(NO_LATENCY) + 1))
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {ranges} FROM migrations_app_trafficsample
            WHERE service_id = %s AND side = %s AND read_at > %s AND read_at <= %s
                AND coalesce(begins_at, read_at) >= %s AND cardinality(latency) = %s
            """,  # noqa: S608  # the ranges are numbers
            [service, side.value, after, until, after, len(NO_LATENCY)],
        )
        return tuple(int(answers) for answers in cursor.fetchone())
