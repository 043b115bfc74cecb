"""Requests that the gateway sent to each side of each service."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from migrations_app.gateways.base import Side

from .services import Service


class TrafficCounter(models.Model):
    """The gateway's own counter at the last reading; the difference to the next reading is a sample."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="+")
    side = models.CharField(max_length=10, choices=[(side.value, side.value) for side in Side])
    requests = models.PositiveBigIntegerField()
    errors = models.PositiveBigIntegerField()
    latency = models.JSONField(default=list, help_text="Requests by LATENCY_BOUNDS, one more for what is above all.")
    read_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["service", "side"], name="one_counter_per_service_and_side")]

    def __str__(self) -> str:
        return f"{self.service} {self.side}"


class TrafficSample(models.Model):
    """Requests to one side of one service between two readings of the gateway's counters."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="+")
    side = models.CharField(max_length=10, choices=[(side.value, side.value) for side in Side])
    read_at = models.DateTimeField()
    requests = models.PositiveIntegerField()
    errors = models.PositiveIntegerField()
    latency = models.JSONField(default=list, help_text="As TrafficCounter.latency, since the last reading.")

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(condition=Q(side__in=list(Side)), name="traffic_side_is_known")]
        indexes = [
            # Serves "requests by service and side in the last minute" of the timeline, and the clean-up by age.
            models.Index(fields=["read_at"], name="traffic_sample_age"),
            # Serves the error rate and the latency of one side of one service over a window (gates.checks).
            models.Index(fields=["service", "side", "read_at"], name="traffic_sample_of_a_side"),
        ]

    def __str__(self) -> str:
        return f"{self.service} {self.side} {self.requests}"
