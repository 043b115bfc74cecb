"""What each gateway was last seen to run."""

from __future__ import annotations

from django.db import models

from .plans import Plan


class Gateway(models.Model):
    """A gateway of the plan. Written by the reconcile loop alone, from what the gateway itself answered.

    `observed_generation` is null while the gateway does not answer or runs nothing of ours; `error` then says why.
    """

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="gateways")
    key = models.SlugField(max_length=80)
    adapter = models.CharField(max_length=40)

    observed_generation = models.PositiveBigIntegerField(null=True)
    observed_weights = models.JSONField(default=dict, help_text="Flag key to weight, as the gateway runs it.")
    observed_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    last_applied_at = models.DateTimeField(null=True)
    last_apply_ms = models.FloatField(null=True)

    class Meta:
        default_permissions = ()
        ordering = ["key"]
        constraints = [models.UniqueConstraint(fields=["plan", "key"], name="gateway_key_unique_in_plan")]

    def __str__(self) -> str:
        return self.key


class Confirmation(models.Model):
    """The moment a gateway first answered with a generation. The first at or above a change's own verifies it."""

    gateway = models.ForeignKey(Gateway, on_delete=models.CASCADE, related_name="confirmations")
    generation = models.PositiveBigIntegerField()
    confirmed_at = models.DateTimeField()
    milliseconds = models.FloatField(help_text="From handing the configuration over to the gateway's own answer.")

    class Meta:
        default_permissions = ()
        constraints = [
            # Serves "the first confirmation at or above this generation" of the audit log.
            models.UniqueConstraint(fields=["gateway", "generation"], name="one_confirmation_per_generation"),
        ]

    def __str__(self) -> str:
        return f"{self.gateway} at {self.generation}"
