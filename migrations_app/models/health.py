"""Health of the monolith and of each service: every poll, and the state that follows from it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from migrations_app.choices import Health

MONOLITH_TARGET = "monolith"  # the target of the old side; every other target is a service's key


class HealthSample(models.Model):
    """One poll. `error` is empty for a healthy answer, else a sentence; `milliseconds` is null without an answer."""

    target = models.SlugField(max_length=80)
    polled_at = models.DateTimeField()
    healthy = models.BooleanField()
    status_code = models.PositiveSmallIntegerField(null=True)
    milliseconds = models.FloatField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        default_permissions = ()
        indexes = [
            # Serves "the last samples of one target" on the week page, and the clean-up by age.
            models.Index(fields=["target", "-polled_at"], name="health_sample_latest"),
            models.Index(fields=["polled_at"], name="health_sample_age"),
        ]

    def __str__(self) -> str:
        return f"{self.target} at {self.polled_at:%H:%M:%S}"


class HealthState(models.Model):
    """The last known state of one target. A state that no poll has confirmed for a while counts as unknown."""

    target = models.SlugField(max_length=80, unique=True)
    state = models.CharField(max_length=10, choices=Health, default=Health.UNKNOWN)
    since = models.DateTimeField()
    polled_at = models.DateTimeField()
    milliseconds = models.FloatField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(state__in=Health.values), name="health_state_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.target}: {self.state}"
