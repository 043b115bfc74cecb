"""Weeks: the stages of a plan."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import F, JSONField, Q, Value

from migrations_app.choices import Risk, WeekStatus

from .plans import Plan


class Week(models.Model):
    """A stage of the plan; it may last longer than a week.

    `version` grows with every change that a page about this week shows, so that a form of an older page is recognised.
    `started_at` is the first time a flag of the week was turned on; from then on the plan file cannot change what the
    week promised. `soak_started_at` is when the soak clock last started; null while it stands still, and
    `soak_stopped_because` says why. A trigger (migration 0007) refuses impossible changes of `status`.
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
    after = models.ManyToManyField("self", symmetrical=False, related_name="before", blank=True)
    approvals_needed = models.PositiveSmallIntegerField(default=0)
    approver_role = models.CharField(max_length=80, blank=True, help_text="The role whose approvals count.")
    approval_valid_for = models.DurationField(default=timedelta(hours=24))
    downtime_under = models.DurationField(
        null=True, help_text="Its downtime stays under this; 0: none. Null: no target."
    )
    downtime_share = models.PositiveSmallIntegerField(
        default=50, db_default=50, help_text="Per cent of a service's requests that fail while it is down."
    )

    triggers = models.JSONField(
        default=list, blank=True, db_default=Value([], JSONField()), help_text="What moves it back: planfile.triggers."
    )

    status = models.CharField(max_length=20, choices=WeekStatus, default=WeekStatus.PLANNED)
    started_at = models.DateTimeField(null=True)
    soak_started_at = models.DateTimeField(null=True)
    soak_stopped_because = models.CharField(max_length=300, blank=True)
    done_at = models.DateTimeField(null=True)
    done_by = models.CharField(max_length=150, blank=True)
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
            models.CheckConstraint(
                condition=Q(soak_started_at__isnull=True) | Q(status__in=[WeekStatus.SOAKING, WeekStatus.DONE]),
                name="week_soaks_only_while_all_is_on",
            ),
            models.CheckConstraint(
                condition=Q(status=WeekStatus.DONE, done_at__isnull=False) & ~Q(done_by="")
                | (~Q(status=WeekStatus.DONE) & Q(done_at__isnull=True, done_by="")),
                name="week_done_has_a_time_and_a_person",
            ),
            models.CheckConstraint(
                condition=Q(downtime_share__range=(1, 100)), name="week_downtime_share_within_1_100"
            ),
            models.CheckConstraint(
                condition=Q(approvals_needed=0) | ~Q(approver_role=""), name="week_approvals_name_a_role"
            ),
        ]

    def __str__(self) -> str:
        return f"Week {self.number}: {self.title}"
