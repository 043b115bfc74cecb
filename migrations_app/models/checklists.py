"""Checklists: what has to hold before a week starts and before it is done, and who or what says that it does."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from migrations_app.choices import CheckState, Phase, PrerequisiteKind

from .weeks import Week


class Prerequisite(models.Model):
    """One line of a week's checklist: ticked by a person, or checked automatically (`check_name`, gates.checks).

    A sign-off of it lasts for `valid_for`, for good when that is null.
    """

    week = models.ForeignKey(Week, on_delete=models.PROTECT, related_name="prerequisites")
    key = models.SlugField(max_length=80)
    title = models.CharField(max_length=300)
    help = models.TextField(blank=True)
    phase = models.CharField(max_length=10, choices=Phase, default=Phase.START)
    kind = models.CharField(max_length=10, choices=PrerequisiteKind, default=PrerequisiteKind.MANUAL)
    check_name = models.CharField(max_length=80, blank=True)
    parameters = models.JSONField(default=dict)
    valid_for = models.DurationField(null=True)
    position = models.PositiveIntegerField(default=0)

    class Meta:
        default_permissions = ()
        ordering = ["week__number", "phase", "position"]
        constraints = [
            models.UniqueConstraint(fields=["week", "key"], name="prerequisite_key_unique_in_week"),
            models.CheckConstraint(condition=Q(phase__in=Phase.values), name="prerequisite_phase_is_known"),
            models.CheckConstraint(
                condition=Q(kind=PrerequisiteKind.MANUAL, check_name="")
                | (Q(kind=PrerequisiteKind.AUTOMATIC, valid_for__isnull=True) & ~Q(check_name="")),
                name="prerequisite_check_named_iff_automatic",
            ),
        ]

    def __str__(self) -> str:
        return self.title


class SignOff(models.Model):
    """A ticked prerequisite: who, when, with what note and evidence. Unticking withdraws it and keeps the row.

    `vouches_for` is the week's target (gates.target) at that moment: once that changes, the sign-off is void.
    """

    prerequisite = models.ForeignKey(Prerequisite, on_delete=models.PROTECT, related_name="sign_offs")
    account = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.CharField(max_length=150)
    note = models.TextField(blank=True)
    link = models.URLField(max_length=1000, blank=True)
    vouches_for = models.CharField(max_length=64, blank=True)
    ticked_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
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


class Evidence(models.Model):
    """A file that came with a sign-off, kept in the database so that the two are one commit."""

    sign_off = models.OneToOneField(SignOff, on_delete=models.CASCADE, related_name="evidence")
    name = models.CharField(max_length=200)
    content_type = models.CharField(max_length=100)
    size = models.PositiveIntegerField(help_text="Bytes.")
    sha256 = models.CharField(max_length=64)
    content = models.BinaryField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class CheckResult(models.Model):
    """What an automatic check last found. `asked` is a digest of check and parameters: another one makes it void."""

    prerequisite = models.OneToOneField(Prerequisite, on_delete=models.CASCADE, related_name="result")
    state = models.CharField(max_length=10, choices=CheckState, default=CheckState.UNKNOWN)
    value = models.CharField(max_length=500)
    limit = models.CharField(max_length=300)
    act = models.CharField(max_length=500, blank=True)
    asked = models.CharField(max_length=64)
    since = models.DateTimeField(help_text="When it first was in this state.")
    checked_at = models.DateTimeField()
    milliseconds = models.FloatField()

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(state__in=CheckState.values), name="check_result_state_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.prerequisite}: {self.state}"
