"""Tokens: how scripts sign in to the API, each as one account."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import F, Q


class ApiToken(models.Model):
    """A secret that acts as its account. Of the secret only the SHA-256 is kept, in hex.

    `last_used_at` is to the minute. A row is never removed: the audit log names it by its number.
    """

    account = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="api_tokens")
    label = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("created_at")),
                name="token_expires_after_it_was_made",
            ),
            models.CheckConstraint(condition=~Q(label=""), name="token_has_a_label"),
        ]

    def __str__(self) -> str:
        return f"token {self.pk} of {self.account}: {self.label}"

    def state(self, now: datetime) -> str:
        """A word: live, expired, revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"
