"""Rollouts: a flag's way to the new side in steps."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from migrations_app.choices import RolloutState

from .services import Flag


class Rollout(models.Model):
    """One way through the steps. At most one of a flag is under way (running or paused); the others are its past.

    `steps` is what the plan had when it began: a list of {"weight": per cent, "hold": seconds, "requests": count}.
    `position` is the index of the step it is at, `weight` that step's, which the flag has: a trigger (migration
    0014_rollouts) ends the rollout when the flag gets another weight by any other way. `since` is when the step was
    asked for, or was resumed: what counts for it comes later.
    """

    flag = models.ForeignKey(Flag, on_delete=models.CASCADE, related_name="rollouts")
    steps: Any = models.JSONField()
    error_rate = models.FloatField(help_text="Most errors of the new side, in per cent.")
    p95 = models.FloatField(null=True, help_text="The slowest p95 of the new side, in milliseconds.")
    on_failure = models.CharField(max_length=10, choices=[("rollback", "rollback"), ("pause", "pause")])

    state = models.CharField(max_length=10, choices=RolloutState, default=RolloutState.RUNNING)
    position = models.PositiveSmallIntegerField()
    weight = models.PositiveSmallIntegerField()
    generation = models.PositiveBigIntegerField(help_text="Of the change to this step.")
    since = models.DateTimeField()
    whole_week = models.BooleanField(
        default=False, db_default=False, help_text="Started with its week, under its gate."
    )
    paused_because = models.CharField(max_length=300, blank=True)

    account = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    started_by = models.CharField(max_length=150)
    started_at = models.DateTimeField()
    reason = models.TextField(blank=True)
    ended_at = models.DateTimeField(null=True)
    ended_because = models.CharField(max_length=300, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [
            # Serves "the rollout of this flag that is under way", too.
            models.UniqueConstraint(fields=["flag"], condition=Q(ended_at__isnull=True), name="one_rollout_at_a_time"),
            models.CheckConstraint(
                condition=Q(state__in=[RolloutState.RUNNING, RolloutState.PAUSED], ended_at__isnull=True)
                | Q(state__in=[RolloutState.FINISHED, RolloutState.ENDED], ended_at__gte=F("started_at")),
                name="rollout_is_under_way_or_has_ended",
            ),
            models.CheckConstraint(condition=Q(weight__range=(1, 100)), name="rollout_weight_within_1_100"),
        ]
        indexes = [models.Index(fields=["flag", "-started_at"], name="rollouts_of_a_flag")]

    def __str__(self) -> str:
        return f"{self.flag_id}: step {self.position + 1} of {len(self.steps)}"

    @property
    def last(self) -> bool:
        return self.position + 1 >= len(self.steps)

    @property
    def place(self) -> str:
        """`step 2 of 5 (25 %)`."""
        return f"step {self.position + 1} of {len(self.steps)} ({self.weight} %)"
