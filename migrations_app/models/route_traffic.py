"""Requests to what is counted by itself: a route of a service that has several, or a path that a trigger names."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from migrations_app.gateways.base import Side

from .gateways import Gateway
from .services import Service

_SIDES = [(side.value, side.value) for side in Side]


class RouteCounter(models.Model):
    """A gateway's own counter at the last reading; the difference to the next reading is a sample.

    `method` is empty for all that no other counter of the same path has (gateways.base.Counted).
    """

    gateway = models.ForeignKey(Gateway, on_delete=models.CASCADE, related_name="+")
    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="+")
    path = models.CharField(max_length=200)
    method = models.CharField(max_length=20, blank=True)
    side = models.CharField(max_length=10, choices=_SIDES)
    requests = models.PositiveBigIntegerField()
    codes = models.JSONField(default=dict, help_text="Status to answers, from 400 on.")
    retries = models.PositiveBigIntegerField()
    latency = models.JSONField(default=list, help_text="As TrafficCounter.latency.")

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(side__in=list(Side)), name="route_counter_side_is_known"),
            models.UniqueConstraint(
                fields=["gateway", "service", "path", "method", "side"], name="one_counter_per_gateway_route_and_side"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.gateway}: {self.method} {self.path} {self.side}"


class RouteReading(models.Model):
    """When a gateway's RouteCounters were last asked for: of them only those that have changed are written."""

    gateway = models.OneToOneField(Gateway, primary_key=True, on_delete=models.CASCADE, related_name="+")
    read_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.gateway} {self.read_at:%H:%M:%S}"


class RouteSample(models.Model):
    """Requests between two readings, of all gateways together. Kept for observe.route_traffic.KEPT_FOR.

    `begins_at` and `read_at` as in TrafficSample.

    No pages or checks go further back than that, so it is neither partitioned nor rolled up: what is old goes in bulk.
    """

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="+", db_index=False)
    path = models.CharField(max_length=200)
    method = models.CharField(max_length=20, blank=True)
    side = models.CharField(max_length=10, choices=_SIDES)
    begins_at = models.DateTimeField(null=True)
    read_at = models.DateTimeField()
    requests = models.PositiveIntegerField()
    codes = models.JSONField(default=dict, help_text="Status to answers, from 400 on.")
    retries = models.PositiveIntegerField()
    latency = ArrayField(models.IntegerField(), default=list)

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(side__in=list(Side)), name="route_sample_side_is_known"),
        ]
        indexes = [
            # Serves windows of a service's routes: triggers, and the page of the service.
            models.Index(fields=["service", "read_at"], name="route_samples_of_a_service"),
            # Serves the clean-up by age.
            models.Index(fields=["read_at"], name="route_sample_age"),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.side} {self.requests}"
