"""What each trigger of the plan last measured. Written by actions.triggers alone."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from migrations_app.choices import Breach

from .services import Flag


class TriggerState(models.Model):
    """The last look at one trigger (Service.triggers) of a flag that has traffic on the new side.

    `generation` is that of the weight that it was judged at, and `fired_for` the one that it last fired for: it fires
    once for each change of the weight, so that nothing is told or done twice for the same traffic.
    """

    flag = models.ForeignKey(Flag, on_delete=models.CASCADE, related_name="trigger_states")
    key = models.CharField(max_length=32)
    state = models.CharField(max_length=10, choices=Breach)
    value = models.CharField(max_length=500)
    limit = models.CharField(max_length=200)
    generation = models.PositiveBigIntegerField()
    judged_at = models.DateTimeField()
    since = models.DateTimeField(help_text="When the state began.")
    fired_for = models.PositiveBigIntegerField(null=True)
    fired_at = models.DateTimeField(null=True)
    fired_value = models.CharField(max_length=500, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["flag", "key"], name="one_state_for_each_trigger"),
            models.CheckConstraint(condition=Q(state__in=Breach.values), name="trigger_state_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.key}: {self.state}"
