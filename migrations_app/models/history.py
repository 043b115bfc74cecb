"""What is kept of health and traffic once the samples are gone: sums by minute, hour and day, and how far they go.

Buckets begin at whole minutes, hours and days of UTC. `latency` counts answers by gateways.base.LATENCY_BOUNDS, one
more for what is above all, so rows of one kind add up exactly. observe.rollups is the only writer. docs/history.md has
the formula of uptime, and what is kept how long.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models

from migrations_app.gateways.base import Side


class RollupMark(models.Model):
    """How far the samples of one source are summed up.

    Every sample before `done_until` is in the rollups, but for those that came late (RollupDue, and observe.rollups'
    LOOKBACK). Before `complete_from` some of what the rollups were made of is gone, so none is computed anew there.
    """

    source = models.CharField(max_length=10, primary_key=True)
    done_until = models.DateTimeField()
    complete_from = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.source} until {self.done_until:%Y-%m-%d %H:%M}"


class RollupDue(models.Model):
    """A minute of health samples that must be summed up again: a trigger saw one of them arrive late.

    Not unique: a row that is being worked off does not stand for a sample that is not committed yet.
    """

    bucket = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.bucket:%Y-%m-%d %H:%M}"


class HealthRollup(models.Model):
    """Polls of one target within one bucket.

    `failed`, `unknown` (nobody could tell) and `maintenance` (within a MaintenanceWindow, whatever came of them) are
    parts of `polls`, and no poll is in two of them; the rest was healthy. Times are microseconds, of all polls that got
    an answer.
    """

    pk = models.CompositePrimaryKey("target", "bucket")
    target = models.SlugField(max_length=80, db_index=False)
    bucket = models.DateTimeField()
    polls = models.PositiveIntegerField()
    failed = models.PositiveIntegerField()
    unknown = models.PositiveIntegerField()
    maintenance = models.PositiveIntegerField(default=0)
    total_us = models.PositiveBigIntegerField()
    max_us = models.PositiveIntegerField(null=True)
    latency: Any = ArrayField(models.SmallIntegerField())

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.target} {self.bucket:%Y-%m-%d %H:%M}: {self.polls}"


class HealthMinute(HealthRollup):
    class Meta:
        default_permissions = ()


class HealthHour(HealthRollup):
    latency = ArrayField(models.IntegerField())

    class Meta:
        default_permissions = ()


class HealthDay(HealthRollup):
    latency = ArrayField(models.IntegerField())

    class Meta:
        default_permissions = ()


class TrafficRollup(models.Model):
    """Requests to one side of one service within one bucket.

    `service` is its key, which outlives its row, and "" for what no route matches. See gateways.base.SideTraffic.
    """

    pk: Any = models.CompositePrimaryKey("service", "side", "bucket")
    service = models.SlugField(max_length=80, db_index=False)
    side = models.CharField(max_length=10, choices=[(side.value, side.value) for side in Side])
    bucket = models.DateTimeField()
    requests = models.PositiveBigIntegerField()
    errors = models.PositiveBigIntegerField()
    client_errors = models.PositiveBigIntegerField(default=0, db_default=0)
    retries = models.PositiveBigIntegerField(default=0, db_default=0)
    failovers = models.PositiveBigIntegerField(default=0, db_default=0)
    failed_failovers = models.PositiveBigIntegerField(default=0, db_default=0)
    latency: Any = ArrayField(models.IntegerField())

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.service} {self.side} {self.bucket:%Y-%m-%d %H:%M}: {self.requests}"


class TrafficMinute(TrafficRollup):
    class Meta:
        default_permissions = ()


class TrafficHour(TrafficRollup):
    class Meta:
        default_permissions = ()


class TrafficDay(TrafficRollup):
    latency = ArrayField(models.BigIntegerField())

    class Meta:
        default_permissions = ()


class HealthSummary(models.Model):
    """What the overview shows of one target: one row, written anew once a minute.

    Uptimes are hundredths of a per cent, rounded down, null when nobody could tell: of the running hour and the 24
    before it, and of today and the 89 days before it. `sparkline`: the mean milliseconds of the running hour (last) and
    the 47 before it. `days`: the uptimes of today (last) and the 89 days before it.
    """

    target = models.SlugField(max_length=80, primary_key=True)
    refreshed_at = models.DateTimeField()
    uptime_24h = models.PositiveSmallIntegerField(null=True)
    uptime_90d = models.PositiveSmallIntegerField(null=True)
    sparkline = ArrayField(models.FloatField(null=True))
    days = ArrayField(models.SmallIntegerField(null=True))

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.target} at {self.refreshed_at:%H:%M}"
