"""Freezes: times in which nothing is enabled. Rolling back is never frozen."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from .plans import Plan


class Freeze(models.Model):
    """One-off (`starts_at` to `ends_at`) or recurring (on `weekdays`, `from_time` until `until_time`, in `timezone`).

    Weekdays are digits, 1 for Monday to 7 for Sunday: "567". A recurring freeze whose `until_time` is not after its
    `from_time` ends on the next day. For a one-off one `weekdays` is empty.
    """

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="freezes")
    title = models.CharField(max_length=200)
    starts_at = models.DateTimeField(null=True)
    ends_at = models.DateTimeField(null=True)
    weekdays = models.CharField(max_length=7, blank=True)
    from_time = models.TimeField(null=True)
    until_time = models.TimeField(null=True)
    timezone = models.CharField(max_length=64)
    added_by = models.CharField(max_length=150)
    added_at = models.DateTimeField()
    lifted_by = models.CharField(max_length=150, blank=True)
    lifted_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        ordering = ["added_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    weekdays="",
                    starts_at__isnull=False,
                    ends_at__gt=F("starts_at"),
                    from_time__isnull=True,
                    until_time__isnull=True,
                )
                | Q(
                    weekdays__regex="^[1-7]{1,7}$",
                    starts_at__isnull=True,
                    ends_at__isnull=True,
                    from_time__isnull=False,
                    until_time__isnull=False,
                ),
                name="freeze_is_one_off_or_recurring",
            ),
        ]
        indexes = [
            # Serves "which freezes are there now", which every gate asks.
            models.Index(fields=["plan"], condition=Q(lifted_at__isnull=True), name="freeze_not_lifted"),
        ]

    def __str__(self) -> str:
        return self.title
