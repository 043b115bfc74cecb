"""What each trigger of the plan last measured, which actions.triggers alone writes, and what it was answered."""

from __future__ import annotations

from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import JSONField, Q, Value

from migrations_app.choices import Breach
from migrations_app.durations import in_words

from .downtime import longest_reading
from .services import Flag
from .weeks import Week


class TriggerState(models.Model):
    """The last look at one trigger of a flag (Service.triggers) or of a week that has traffic on the new side.

    `generation` is that of the weight that it was judged at, of a week the newest, and `rule` is what the trigger said
    then (planfile.triggers.rule_of): what was found by another rule counts for nothing.

    `fired_as` is what was done for the weight `fired_for` by the rule `fired_rule`, such as `no_data tell` and
    `breached rollback`: each of them once, so that nothing is told or done twice for the same traffic, and what only
    told something can still act.

    `baseline` is what the old side did in the window before a change of the weight, for a trigger that compares with
    it: requests, and how many of them counted or, of response times, their p95 in microseconds.
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
    rule = models.CharField(max_length=64, db_default="", default="")
    fired_for = models.PositiveBigIntegerField(null=True)
    fired_rule = models.CharField(max_length=64, db_default="", default="")
    fired_as = models.JSONField(default=list, db_default=Value([], JSONField()), help_text="Strings.")
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

    def done(self, generation: int, rule: str) -> list[str]:
        """What was done for this weight by this rule."""
        return self.fired_as if (self.fired_for, self.fired_rule) == (generation, rule) else []


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


def not_looked_at(judged_at: datetime, now: datetime) -> str:
    """`not looked at for 40 s`, when nobody looks any more; "" while somebody does, once a second."""
    age = now - judged_at
    return f"not looked at for {in_words(age)}" if age > longest_reading() else ""
