"""Health of the monolith and of each service: every poll, the state that follows from it, and each change of it."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from migrations_app.choices import Health

# Upper bounds, in seconds and inclusive, of the ranges in which polls are counted by how late they began.
LATE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
NO_LATENESS = (0,) * (len(LATE_BOUNDS) + 1)  # one range more, for what is above all of them
MONOLITH_TARGET = "monolith"  # the target of the old side; every other target is a service's key


class HealthSample(models.Model):
    """One poll. `healthy` is null when nobody can tell, because the poller itself was cut off.

    Partitioned by day (observe.partitions), so write with INSERT or COPY into this table. No index on `id`: nothing is
    looked up by it, and at hundreds of rows a second each index is a gigabyte a day.

    `error` is empty for a healthy answer, else a sentence. Times are milliseconds from the start of the poll, null for
    what did not come: `connect_ms` until connected (0 on a kept connection), `first_byte_ms` until the answer began,
    and `milliseconds` until it was read whole.
    """

    target = models.SlugField(max_length=80, db_index=False)
    polled_at = models.DateTimeField()
    healthy = models.BooleanField(null=True)
    status_code = models.PositiveSmallIntegerField(null=True)
    connect_ms = models.FloatField(null=True)
    first_byte_ms = models.FloatField(null=True)
    milliseconds = models.FloatField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        default_permissions = ()
        indexes = [
            # Serves "the last samples of one target" on its page.
            models.Index(fields=["target", "-polled_at"], name="health_sample_latest"),
            # Serves the rollups: some minutes of all targets. Rows come in the order of their times.
            BrinIndex(fields=["polled_at"], name="health_sample_age", autosummarize=True, pages_per_range=32),
        ]

    def __str__(self) -> str:
        return f"{self.target} at {self.polled_at:%H:%M:%S}"


class HealthState(models.Model):
    """The last known state of one target. A state that no poll has confirmed for `trusted_for` counts as unknown.

    `against` is how many polls in a row have spoken against it; once they are enough for the target, it changes.
    `polls` and `failed` only grow: all that were stored of it, and those that it failed.
    """

    target = models.SlugField(max_length=80, unique=True)
    state = models.CharField(max_length=10, choices=Health, default=Health.UNKNOWN)
    since = models.DateTimeField()
    against = models.PositiveIntegerField(default=0)
    polled_at = models.DateTimeField()
    milliseconds = models.FloatField(null=True)
    error = models.CharField(max_length=300, blank=True)
    polls = models.PositiveBigIntegerField(default=0, db_default=0)
    failed = models.PositiveBigIntegerField(default=0, db_default=0)
    stale_after = models.FloatField(
        default=0, db_default=0, help_text="Seconds: two intervals of its polls and a timeout."
    )

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(state__in=Health.values), name="health_state_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.target}: {self.state}"

    @property
    def trusted_for(self) -> timedelta:
        """How long a poll vouches for the state: HEALTH_STALE_AFTER, longer where it is polled more seldom."""
        return trusted_for(self.stale_after)


def trusted_for(stale_after: float) -> timedelta:
    """HealthState.trusted_for, of the column."""
    return timedelta(seconds=max(settings.HEALTH_STALE_AFTER, stale_after))


class HealthChange(models.Model):
    """A change of a target's state, kept for good. `was` is the state before, `reason` the error that led to it."""

    target = models.SlugField(max_length=80)
    at = models.DateTimeField()
    was = models.CharField(max_length=10, choices=Health)
    state = models.CharField(max_length=10, choices=Health)
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=Health.values, was__in=Health.values), name="health_change_known"
            ),
        ]
        indexes = [
            # Serves "the last changes of one target" on its page.
            models.Index(fields=["target", "-at"], name="health_change_latest"),
        ]

    def __str__(self) -> str:
        return f"{self.target}: {self.was} -> {self.state}"


class PollLateness(models.Model):
    """How long after they were due polls began, counted since the first poller: one row.

    `late` counts polls by LATE_BOUNDS, `seconds` is the sum of them. `skipped` polls did not begin at all, because the
    last one of their target was still out.
    """

    late = ArrayField(models.BigIntegerField())
    seconds = models.FloatField()
    skipped = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_row_of_lateness")]

    def __str__(self) -> str:
        return f"{sum(self.late)} polls, {self.skipped} skipped"
