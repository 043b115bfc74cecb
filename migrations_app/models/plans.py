"""The plan that this database holds, and the generation of its routing table."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import Q, Value

from migrations_app.gateways.base import Address


class PlanManager(models.Manager["Plan"]):
    """Leaves the document in the database until somebody asks for it: every page and every click reads the plan."""

    def get_queryset(self) -> models.QuerySet[Plan]:
        return super().get_queryset().defer("document")


class Plan(models.Model):
    """One migration plan. A database holds one; another migration gets a database of its own.

    `generation` is the number of the desired routing table: every change of a weight or a route takes the next one.
    `document` is the validated plan file as it was loaded (planfile.schema), for export and for diff.
    Locking this row orders all changes of the routing table.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    key = models.SlugField(max_length=80)
    title = models.CharField(max_length=200)
    summary = models.TextField(blank=True)
    timezone = models.CharField(max_length=64, default="UTC")
    revision = models.PositiveIntegerField(default=0, help_text="Grows with each load that changed something.")
    document = models.JSONField(default=dict)
    loaded_at = models.DateTimeField(null=True)
    time_scale = models.PositiveIntegerField(
        default=1, help_text="For demos: what has to be waited for takes this many times less time."
    )

    monolith_title = models.CharField(max_length=200, default="Monolith")
    monolith_host = models.CharField(max_length=255)
    monolith_port = models.PositiveIntegerField()
    monolith_health_path = models.CharField(max_length=200, default="/health")
    monolith_health = models.JSONField(default=dict, blank=True, help_text="As Service.health.")

    sticky = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="gateways.base.Sticky; {} for none.",
    )
    generation = models.PositiveBigIntegerField(default=1)

    objects = PlanManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="one_plan_per_database"),
            models.CheckConstraint(condition=Q(time_scale__gte=1), name="time_scale_is_at_least_one"),
            models.CheckConstraint(condition=Q(monolith_port__range=(1, 65535)), name="monolith_port_is_a_port"),
        ]
        # What a role may do. `roles.py` says which role may do what.
        default_permissions = ()
        permissions = [
            ("view_plan", "See the timeline, weeks and services"),
            ("tick_prerequisite", "Tick and untick prerequisites"),
            ("run_check", "Run automatic checks now"),
            ("enable_week", "Enable weeks and services, and ask for approval"),
            ("roll_back", "Roll back weeks and services"),
            ("finish_week", "Call a week done"),
            ("approve", "Approve the changes of others"),
            ("freeze", "Add and lift freezes"),
            ("plan_maintenance", "Plan and end maintenance windows"),
            ("override_gate", "Override a closed gate"),
            ("load_plan", "Load a changed plan"),
            ("view_audit", "Read the audit log"),
            ("manage_accounts", "Add accounts, give roles, deactivate accounts"),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def monolith(self) -> Address:
        return Address(self.monolith_host, self.monolith_port)

    def scaled(self, length: timedelta) -> timedelta:
        """How long something that has to be waited for really takes. What expires keeps its own time."""
        return length / self.time_scale
