"""Planned maintenance: announced times in which the polls of some targets count neither for nor against uptime."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from .plans import Plan

GRACE = timedelta(minutes=1)  # so much before now a window may begin: who plans one for now has chosen a whole minute


class MaintenanceWindow(models.Model):
    """From `starts_at` until `until` (not in it) the polls of `targets` are counted as maintenance alone.

    It does no more than that: health, gates, soaks and rollbacks are judged as ever. `targets` are those of
    HealthSample; a key outlives its service. Ended before it began, it was cancelled.

    What lies in the past stays as it is, for it is summed up: no window begins in the past, none is ended before now,
    and none is changed otherwise or deleted. A trigger holds that against what is summed up (migration 0012).
    """

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="maintenance_windows")
    title = models.CharField(max_length=200)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    targets = ArrayField(models.SlugField(max_length=80))
    planned_by = models.CharField(max_length=150)
    planned_at = models.DateTimeField()
    ended_by = models.CharField(max_length=150, blank=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        ordering = ["starts_at", "pk"]
        constraints = [
            models.CheckConstraint(condition=Q(targets__len__gte=1), name="maintenance_is_of_something"),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="maintenance_ends_after_its_start"),
            models.CheckConstraint(
                condition=Q(starts_at__gte=F("planned_at") - GRACE), name="maintenance_begins_not_in_the_past"
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True, ended_by="")
                | (Q(ended_at__isnull=False, ended_at__lt=F("ends_at")) & ~Q(ended_by="")),
                name="maintenance_is_ended_early_by_somebody",
            ),
        ]
        indexes = [
            # Serves "which windows are there now, or to come", which the rollups ask of their minutes, and pages.
            models.Index(fields=["ends_at"], name="maintenance_not_over"),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def until(self) -> datetime:
        """When it ends, or ended: what counts. Not after `starts_at` if it was cancelled."""
        return self.ends_at if self.ended_at is None else self.ended_at

    @property
    def cancelled(self) -> bool:
        """Nothing was ever counted for it."""
        return self.until <= self.starts_at

    def covers(self, at: datetime) -> bool:
        return self.starts_at <= at < self.until
