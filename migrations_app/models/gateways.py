"""What each gateway was last seen to run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from django.db import connection, models
from django.db.models import JSONField, Q, Value
from django.db.models.functions import MD5

from migrations_app.gateways.base import Pin
from migrations_app.gateways.pins import moment_of

from .plans import Plan
from .services import Flag

SEEN_FOR = timedelta(seconds=5)  # the loop looks every second; what was seen longer ago says nothing of now


class Gateway(models.Model):
    """A gateway of the plan. What was observed is written by the reconcile loop alone, from the gateway's own answers.

    `observed_generation` is null while the gateway does not answer or runs nothing of ours; `error` then says why.
    `failing_over` comes with the traffic instead (observe.traffic): the services in whose place it lets the monolith
    answer just now, and why. `pins` are the flags that its own folder holds on the old side; `journal_read` is
    written by actions.pins.
    """

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="gateways")
    key = models.SlugField(max_length=80)
    adapter = models.CharField(max_length=40)
    first = models.BooleanField(
        default=False, db_default=False, help_text="The plan's `gateway.key`: GATEWAY_DIR is its folder, not GATEWAYS'."
    )
    since_generation = models.PositiveBigIntegerField(
        default=0, db_default=0, help_text="It was added with this one; nobody expects it to confirm an earlier one."
    )

    observed_generation = models.PositiveBigIntegerField(null=True)
    observed_weights = models.JSONField(default=dict, help_text="Flag key to weight, as the gateway runs it.")
    observed_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    last_applied_at = models.DateTimeField(null=True)
    last_apply_ms = models.FloatField(null=True)
    failing_over = models.JSONField(default=dict, db_default=Value({}, JSONField()), help_text="Service key to words.")
    pins = models.JSONField(default=list, db_default=Value([], JSONField()), help_text="Objects: flag, by, at, why.")
    journal_read = models.PositiveBigIntegerField(
        default=0, db_default=0, help_text="Bytes of its journal of pins that are audit events."
    )

    class Meta:
        default_permissions = ()
        ordering = ["key"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "key"], name="gateway_key_unique_in_plan"),
            models.UniqueConstraint(fields=["plan"], condition=Q(first=True), name="one_first_gateway_in_plan"),
        ]

    def __str__(self) -> str:
        return self.key

    def answers_at(self, now: datetime) -> bool:
        """Whether it has answered lately. One that does not is looked at every second all the same."""
        seen = self.observed_at is not None and now - self.observed_at <= SEEN_FOR
        return seen and self.observed_generation is not None

    def pin_of(self, flag: str) -> Pin | None:
        """What holds the flag of this key on the old side at this gateway, if anything does."""
        found = next((pin for pin in self.pins if pin["flag"] == flag), None)
        return Pin(flag, found["by"], moment_of(found["at"] or ""), found["why"]) if found else None

    def runs(self, flag: Flag) -> bool:
        """Whether this gateway has itself answered with the flag's desired weight."""
        return (
            self.observed_generation is not None
            and self.observed_generation >= flag.generation
            and self.observed_weights.get(flag.key) == flag.weight
        )


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


class Refusal(models.Model):
    """A configuration that the gateway, its validator or its renderer refused, and why. What ran before kept running.

    One row for each gateway, generation and reason, however often that was offered again: `at` is the first time,
    `last_at` the last one. reconcile.refusals is the only writer, and keeps the newest alone.
    """

    gateway = models.ForeignKey(Gateway, on_delete=models.CASCADE, related_name="refusals")
    generation = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    last_at = models.DateTimeField()
    reason = models.TextField()
    times = models.PositiveIntegerField(default=1)

    class Meta:
        default_permissions = ()
        constraints = [
            # By the digest: a reason may be longer than what an index takes.
            models.UniqueConstraint("gateway", "generation", MD5("reason"), name="one_refusal_per_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.gateway} refused {self.generation}"


def next_generation(plan: Plan, gateways: Iterable[Gateway]) -> int:
    """The next generation: above what any gateway runs, so that a change after a restored backup still wins."""
    return max([plan.generation, *(gateway.observed_generation or 0 for gateway in gateways)]) + 1


def still_on(plan: Plan, gateways: Iterable[Gateway]) -> dict[str, int]:
    """Flag key -> the weight that a gateway which is ahead of this database sends to the new side.

    After a restored backup the database may say that a flag is off; such a gateway is left alone by the loop.
    """
    found: dict[str, int] = {}
    for gateway in gateways:
        if (gateway.observed_generation or 0) > plan.generation:
            for key, weight in gateway.observed_weights.items():
                found[key] = max(weight, found.get(key, 0))
    return {key: weight for key, weight in found.items() if weight}


def verified_at(generations: Collection[int]) -> dict[int, datetime]:
    """Generation -> when every gateway had confirmed it or a later one. One not confirmed by all is not in it.

    One that was added to the plan later makes nothing of before unconfirmed. One index look-up for each generation and
    gateway, however long the history is.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT wanted.generation, max(first.confirmed_at)
            FROM unnest(%s::bigint[]) AS wanted (generation)
            JOIN migrations_app_gateway AS gateway ON gateway.since_generation <= wanted.generation
            LEFT JOIN LATERAL (
                SELECT confirmed_at FROM migrations_app_confirmation
                WHERE gateway_id = gateway.id AND generation >= wanted.generation
                ORDER BY generation LIMIT 1
            ) AS first ON true
            GROUP BY wanted.generation
            HAVING bool_and(first.confirmed_at IS NOT NULL)
            """,
            [list(set(generations))],
        )
        return dict(cursor.fetchall())


def begun_at(generations: Collection[int]) -> dict[int, datetime]:
    """Generation -> when the first gateway had confirmed it or a later one. One not confirmed by any is not in it.

    From then on traffic goes by it, whatever the other gateways do. It costs what `verified_at` does.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT wanted.generation, min(first.confirmed_at)
            FROM unnest(%s::bigint[]) AS wanted (generation)
            CROSS JOIN migrations_app_gateway AS gateway
            JOIN LATERAL (
                SELECT confirmed_at FROM migrations_app_confirmation
                WHERE gateway_id = gateway.id AND generation >= wanted.generation
                ORDER BY generation LIMIT 1
            ) AS first ON true
            GROUP BY wanted.generation
            """,
            [list(set(generations))],
        )
        return dict(cursor.fetchall())
