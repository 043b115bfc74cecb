"""Overrides: a closed gate opened for minutes, by name and with a reason."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from .weeks import Week


class Override(models.Model):
    """Somebody broke the glass: `lines` are the keys of the gate's lines that block nothing until `expires_at`."""

    week = models.ForeignKey(Week, on_delete=models.PROTECT, related_name="overrides")
    lines = models.JSONField(help_text="Keys of gate lines, sorted.")
    vouches_for = models.CharField(max_length=64, help_text="The week's target (gates.target) at that moment.")
    account = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.CharField(max_length=150)
    reason = models.TextField()
    at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=150, blank=True)

    class Meta:
        default_permissions = ()
        ordering = ["-at"]
        constraints = [
            models.UniqueConstraint(
                fields=["week"], condition=Q(ended_at__isnull=True), name="one_override_per_week_at_a_time"
            ),
            models.CheckConstraint(condition=Q(expires_at__gt=F("at")), name="override_ends_after_it_begins"),
            models.CheckConstraint(condition=~Q(reason=""), name="override_has_a_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.week} by {self.actor}"
