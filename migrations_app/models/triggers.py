"""What each trigger of the plan last measured, which actions.triggers alone writes, and what it was answered."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from migrations_app.choices import Breach

from .services import Flag
from .weeks import Week


class TriggerState(models.Model):
    """The last look at one trigger of a flag (Service.triggers) or of a week that has traffic on the new side.

    `generation` is that of the weight that it was judged at, of a week the newest, and `fired_for` the one that it last
    fired for: it fires once for each change of the weight, so that nothing is told or done twice for the same traffic.
    `baseline`, requests and how many of them counted, is what came in the window before that change, for a trigger that
    compares with it.
    """

    flag = models.ForeignKey(Flag, null=True, on_delete=models.CASCADE, related_name="trigger_states")
    week = models.ForeignKey(Week, null=True, on_delete=models.CASCADE, related_name="trigger_states")
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
    baseline = ArrayField(models.BigIntegerField(), size=2, null=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["flag", "week", "key"], nulls_distinct=False, name="one_state_for_each_trigger"
            ),
            models.CheckConstraint(
                condition=Q(flag__isnull=True) ^ Q(week__isnull=True), name="trigger_state_is_of_a_flag_or_a_week"
            ),
            models.CheckConstraint(condition=Q(state__in=Breach.values), name="trigger_state_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.key}: {self.state}"


class QueryAnswer(models.Model):
    """The last answer to the question of one trigger, of a flag or of a week. Written by observe.queries alone.

    `value` is null when there is no number, and `error` then says why. `past_since` is the first of the answers that
    were past the limit without a break, up to this one; null while it is not. `asked` is what the question was: an
    answer to another one counts for nothing.
    """

    flag = models.ForeignKey(Flag, null=True, on_delete=models.CASCADE, related_name="+")
    week = models.ForeignKey(Week, null=True, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=32)
    asked = models.CharField(max_length=64)
    at = models.DateTimeField()
    value = models.FloatField(null=True)
    error = models.CharField(max_length=300, blank=True)
    past_since = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["flag", "week", "key"], nulls_distinct=False, name="one_answer_for_each_query"
            ),
            models.CheckConstraint(
                condition=Q(flag__isnull=True) ^ Q(week__isnull=True), name="query_answer_is_of_a_flag_or_a_week"
            ),
            models.CheckConstraint(
                condition=Q(past_since__isnull=True) | Q(value__isnull=False), name="query_answer_past_has_a_value"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key}: {self.error or self.value}"
