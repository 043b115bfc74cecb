"""Reasons that are asked for afterwards: whoever rolls back is held up by no question."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from .audit import AuditEvent


class ReasonAsked(models.Model):
    """A rollback that a person made without saying why. `answer` is the audit event that says it since."""

    # The log refuses to be changed by triggers of its own; a constraint of another table would speak first.
    event = models.OneToOneField(
        AuditEvent, primary_key=True, on_delete=models.PROTECT, db_constraint=False, related_name="reason_asked"
    )
    account = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    answer = models.OneToOneField(
        AuditEvent, null=True, on_delete=models.PROTECT, db_constraint=False, related_name="tells_why_of"
    )

    class Meta:
        default_permissions = ()
        indexes = [
            # Serves "what this account is still asked for", on the way of every page.
            models.Index(fields=["account"], condition=Q(answer__isnull=True), name="reasons_that_are_owed"),
        ]

    def __str__(self) -> str:
        return f"why {self.event}"
