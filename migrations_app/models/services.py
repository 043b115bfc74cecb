"""Services, their routes, and the flag that moves each one's traffic."""

from __future__ import annotations

from django.db import models
from django.db.models import JSONField, Q, Value

from migrations_app.gateways.base import MONOLITH_WEIGHT, SERVICE_WEIGHT, Address
from migrations_app.gateways.tables import DOT_SEGMENT, HOST, MAX_TIMEOUT, MIN_TIMEOUT, NAME, OWN_PATHS, PREFIX

from .plans import Plan
from .weeks import Week


class Service(models.Model):
    """A service of the new side. `area` names, in plain words, the part of the product that it serves."""

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="services")
    key = models.SlugField(max_length=80)
    title = models.CharField(max_length=200)
    area = models.CharField(max_length=200, blank=True)
    owner = models.CharField(max_length=200, blank=True)
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField()
    health_path = models.CharField(max_length=200, default="/health")
    health = models.JSONField(default=dict, blank=True, help_text="How it is polled: planfile.schema.HealthPart.")
    strip = models.CharField(max_length=200, default="/api", blank=True)
    timeout = models.FloatField(default=15.0, help_text="Seconds for one request through the gateway.")
    failover = models.BooleanField(
        default=True, db_default=True, help_text="The gateway may let the monolith answer in its place."
    )
    point_of_no_return = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="What keeps the old side from serving it again.",
    )
    writes_from = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text="Per cent: writes stay on the old side while its flag has a lower weight."
    )
    rollout = models.JSONField(
        default=dict,
        blank=True,
        db_default=Value({}, JSONField()),
        help_text="Its steps: planfile.rollout.RolloutPart.",
    )
    triggers = models.JSONField(
        default=list, blank=True, db_default=Value([], JSONField()), help_text="What moves it back: planfile.triggers."
    )
    counted = models.JSONField(
        default=list, blank=True, db_default=Value([], JSONField()), help_text="By itself: gateways.base.Counted."
    )
    new_side_only = models.BooleanField(default=False, help_text="The monolith never had this.")
    position = models.PositiveIntegerField(default=0)

    class Meta:
        default_permissions = ()
        ordering = ["position", "key"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "key"], name="service_key_unique_in_plan"),
            models.CheckConstraint(condition=Q(port__range=(1, 65535)), name="service_port_is_a_port"),
            # One row that no gateway can express would stop the rollback of every other service (gateways.tables).
            models.CheckConstraint(condition=Q(key__regex=f"^{NAME}$"), name="service_key_is_a_name"),
            models.CheckConstraint(condition=Q(host__regex=f"^{HOST}$"), name="service_host_is_a_host"),
            models.CheckConstraint(condition=Q(health_path__startswith="/"), name="service_health_path_is_a_path"),
            models.CheckConstraint(
                condition=Q(strip="") | (Q(strip__regex=f"^{PREFIX}$") & ~Q(strip__regex=DOT_SEGMENT)),
                name="service_strip_is_a_path",
            ),
            models.CheckConstraint(
                condition=Q(writes_from__range=(1, SERVICE_WEIGHT)), name="service_writes_from_is_share"
            ),
            # PostgreSQL counts NaN as larger than every number, so it is refused too.
            models.CheckConstraint(
                condition=Q(timeout__range=(MIN_TIMEOUT, MAX_TIMEOUT)), name="service_timeout_within_bounds"
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def upstream(self) -> Address:
        return Address(self.host, self.port)


class Route(models.Model):
    """A path prefix at the gateway that belongs to one service."""

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="routes")
    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="routes")
    prefix = models.CharField(max_length=200)

    class Meta:
        default_permissions = ()
        ordering = ["prefix"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "prefix"], name="route_prefix_unique_in_plan"),
            models.CheckConstraint(
                condition=Q(prefix__regex=f"^{PREFIX}$") & ~Q(prefix__regex=DOT_SEGMENT), name="route_prefix_is_a_path"
            ),
            models.CheckConstraint(condition=~Q(prefix__in=OWN_PATHS), name="route_prefix_is_not_the_gateways_own"),
        ]

    def __str__(self) -> str:
        return self.prefix


class Flag(models.Model):
    """The share of a service's traffic that is wanted on the new side: `weight`, 0-100 %.

    Desired state only; what the gateway runs is on `Gateway`. `generation` is that of the last change of the weight. A
    trigger in the database refuses a higher weight that no audit event with an open gate vouches for (migration 0002).
    """

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="flags")
    key = models.CharField(max_length=100)
    service = models.OneToOneField(Service, on_delete=models.PROTECT, related_name="flag")
    week = models.ForeignKey(Week, on_delete=models.PROTECT, related_name="flags")
    weight = models.PositiveSmallIntegerField(default=MONOLITH_WEIGHT)
    generation = models.PositiveBigIntegerField(default=0)
    changed_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        ordering = ["service__position", "key"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "key"], name="flag_key_unique_in_plan"),
            models.CheckConstraint(condition=Q(key__regex=f"^{NAME}$"), name="flag_key_is_a_name"),
            models.CheckConstraint(condition=Q(weight__range=(0, 100)), name="flag_weight_within_0_100"),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def is_on(self) -> bool:
        """Some traffic is wanted on the new side."""
        return self.weight > MONOLITH_WEIGHT

    @property
    def is_fully_on(self) -> bool:
        return self.weight == SERVICE_WEIGHT
