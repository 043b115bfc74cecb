"""Approvals: one exact change, asked for by one person and answered by others."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from migrations_app.choices import Decision

from .weeks import Week


class ApprovalRequest(models.Model):
    """A request to approve one exact change: these flags of the week to this weight, under this plan.

    It counts only while `revision` is the plan's and `vouches_for` the week's target (gates.target), and for one way to
    that weight, in as many steps as it takes: `used_at` is when the first of them was made, which must be before
    `expires_at`, and `spent_at` when the last was. `closed_at` ends it otherwise: withdrawn, declined, or rolled back
    on the way, as `closed_because` says.
    """

    week = models.ForeignKey(Week, on_delete=models.PROTECT, related_name="approval_requests")
    flags = models.JSONField(help_text="Flag keys, sorted.")
    weight = models.PositiveSmallIntegerField(help_text="Per cent.")
    revision = models.PositiveIntegerField(help_text="Of the plan.")
    vouches_for = models.CharField(max_length=64)
    account = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.CharField(max_length=150)
    reason = models.TextField(blank=True)
    asked_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    spent_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)
    closed_because = models.CharField(max_length=300, blank=True)

    class Meta:
        default_permissions = ()
        ordering = ["-asked_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["week", "flags", "weight"],
                condition=Q(closed_at__isnull=True, spent_at__isnull=True),
                name="one_open_request_for_a_change",
            ),
            models.CheckConstraint(condition=Q(weight__range=(0, 100)), name="approval_weight_is_per_cent"),
        ]

    def __str__(self) -> str:
        return f"{self.week} asked by {self.actor}"


class Approval(models.Model):
    """Somebody's answer to a request. One that is withdrawn stays, with `withdrawn_at`."""

    request = models.ForeignKey(ApprovalRequest, on_delete=models.PROTECT, related_name="approvals")
    account = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.CharField(max_length=150)
    decision = models.CharField(max_length=10, choices=Decision)
    reason = models.TextField(blank=True)
    at = models.DateTimeField()
    withdrawn_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        ordering = ["at"]
        constraints = [
            models.UniqueConstraint(
                fields=["request", "actor"],
                condition=Q(withdrawn_at__isnull=True),
                name="one_live_answer_per_person",
            ),
            models.CheckConstraint(condition=Q(decision__in=Decision.values), name="approval_decision_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.decision} by {self.actor}"
