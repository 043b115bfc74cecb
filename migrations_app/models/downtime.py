"""How long a week's services did not work for those who called them. Written by observe.downtime alone."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from .weeks import Week

HALF = 50  # per cent; a plan may say otherwise (Week.downtime_share)


class DowntimeClock(models.Model):
    """What was counted of a week, from `since` until `counted_until`, a reading of the gateway's counters.

    `down`: one or more of its services failed for those who called. `planned`: the same within planned maintenance, not
    in `down`. `not_known`: nobody could tell. All are lengths of real time in which no moment counts twice, whatever
    the number of services; `of_services` has the seconds of `down` of each one alone, by key. `requests` and `failed`
    are those of its services meanwhile. `running`: it goes on with the next reading. docs/history.md has the rule.
    """

    week = models.OneToOneField(Week, primary_key=True, on_delete=models.CASCADE, related_name="downtime_clock")
    since = models.DateTimeField()
    counted_until = models.DateTimeField()
    running = models.BooleanField(default=True)
    down = models.DurationField(default=timedelta(0))
    planned = models.DurationField(default=timedelta(0))
    not_known = models.DurationField(default=timedelta(0))
    of_services = models.JSONField(default=dict, help_text="Service key to seconds.")
    requests = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(
                condition=Q(down__gte=timedelta(0), planned__gte=timedelta(0), not_known__gte=timedelta(0)),
                name="downtime_is_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"week {self.week_id}: {self.down}"

    def not_known_at(self, now: datetime) -> timedelta:
        """With what no reading has come for, which the next one will find."""
        waited = now - self.counted_until
        return self.not_known + (waited if self.running and waited > longest_reading() else timedelta(0))


class DowntimeSpan(models.Model):
    """A time in which one service of a week was down without a break, and its requests meanwhile.

    `service` is its key, which outlives the service. The newest of a week are kept (observe.downtime), the clock's sums
    have them all.
    """

    week = models.ForeignKey(Week, on_delete=models.CASCADE, related_name="downtime_spans")
    service = models.CharField(max_length=80)
    begins_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    requests = models.PositiveBigIntegerField()
    failed = models.PositiveBigIntegerField()
    planned = models.BooleanField(default=False)

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(ends_at__gt=F("begins_at")), name="downtime_span_has_a_length"),
        ]
        # Serves the newest of a week, and the one that goes on.
        indexes = [models.Index(fields=["week", "-ends_at"], name="downtime_spans_of_a_week")]

    def __str__(self) -> str:
        return f"{self.service} {self.begins_at:%H:%M:%S}"

    @property
    def length(self) -> timedelta:
        return self.ends_at - self.begins_at


def longest_reading() -> timedelta:
    """What one reading may cover. Of longer the counters tell how many failed, and not when: it is not known."""
    return timedelta(seconds=max(10, 5 * settings.TRAFFIC_INTERVAL))
