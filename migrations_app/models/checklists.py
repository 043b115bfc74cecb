"""Checklists: the prerequisites of a week, and who signed them off."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from migrations_app.choices import PrerequisiteKind

from .weeks import Week


class Prerequisite(models.Model):
    """One line of a week's checklist: ticked by a person, or checked automatically (`check_name`, gates.checks)."""

    week = models.ForeignKey(Week, on_delete=models.PROTECT, related_name="prerequisites")
    key = models.SlugField(max_length=80)
    title = models.CharField(max_length=300)
    help = models.TextField(blank=True)
    kind = models.CharField(max_length=10, choices=PrerequisiteKind, default=PrerequisiteKind.MANUAL)
    check_name = models.CharField(max_length=80, blank=True)
    parameters = models.JSONField(default=dict)
    position = models.PositiveIntegerField(default=0)

    class Meta:
        default_permissions = ()
        ordering = ["week__number", "position"]
        constraints = [
            models.UniqueConstraint(fields=["week", "key"], name="prerequisite_key_unique_in_week"),
            models.CheckConstraint(
                condition=Q(kind=PrerequisiteKind.MANUAL, check_name="")
                | (Q(kind=PrerequisiteKind.AUTOMATIC) & ~Q(check_name="")),
                name="prerequisite_check_named_iff_automatic",
            ),
        ]

    def __str__(self) -> str:
        return self.title


class SignOff(models.Model):
    """A ticked prerequisite: who, when, with what note. Unticking withdraws it and keeps the row."""

    prerequisite = models.ForeignKey(Prerequisite, on_delete=models.PROTECT, related_name="sign_offs")
    account = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.CharField(max_length=150)
    note = models.TextField(blank=True)
    ticked_at = models.DateTimeField()
    withdrawn_at = models.DateTimeField(null=True)
    withdrawn_by = models.CharField(max_length=150, blank=True)

    class Meta:
        default_permissions = ()
        ordering = ["-ticked_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["prerequisite"],
                condition=Q(withdrawn_at__isnull=True),
                name="one_live_sign_off_per_prerequisite",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prerequisite} by {self.actor}"
