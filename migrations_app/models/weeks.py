"""Weeks: the stages of a plan."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import F, Q

from migrations_app.choices import Risk, WeekStatus

from .plans import Plan


class Week(models.Model):
    """A stage of the plan; it may last longer than a week.

    `version` grows with every change that a page about this week shows, so that a form of an older page is recognised.
    `started_at` is the first time a flag of the week was turned on; from then on the plan file cannot change what the
    week promised.
    """

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="weeks")
    number = models.PositiveSmallIntegerField()
    title = models.CharField(max_length=200)
    risk = models.CharField(max_length=10, choices=Risk)
    impact = models.CharField(max_length=300, blank=True)
    owner = models.CharField(max_length=200, blank=True)
    notes = models.TextField(blank=True)
    planned_start = models.DateField()
    planned_end = models.DateField()
    soak = models.DurationField(default=timedelta(0))
    moves_traffic = models.BooleanField(default=True)
    done_when = models.JSONField(default=list, help_text="A sentence each.")
    after = models.ManyToManyField("self", symmetrical=False, related_name="before", blank=True)

    status = models.CharField(max_length=20, choices=WeekStatus, default=WeekStatus.PLANNED)
    started_at = models.DateTimeField(null=True)
    version = models.PositiveBigIntegerField(default=1)

    class Meta:
        default_permissions = ()
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "number"], name="week_number_unique_in_plan"),
            models.CheckConstraint(condition=Q(planned_end__gte=F("planned_start")), name="week_ends_after_it_starts"),
            models.CheckConstraint(condition=Q(risk__in=Risk.values), name="week_risk_is_known"),
            models.CheckConstraint(condition=Q(status__in=WeekStatus.values), name="week_status_is_known"),
            models.CheckConstraint(
                condition=Q(status=WeekStatus.PLANNED) | Q(started_at__isnull=False), name="week_started_has_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"Week {self.number}: {self.title}"
