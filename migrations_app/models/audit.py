"""The audit log: append-only, and chained so that an altered or missing row shows.

Each row's `digest` is SHA-256 over the previous row's digest and its own content. Triggers (migration 0002) refuse
UPDATE, DELETE and TRUNCATE; the chain shows what someone with more power than that did, as far as
docs/decisions/0005-the-audit-log.md says.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models
from django.db.models import Q

from migrations_app.choices import ActorKind, AuditKind

GENESIS = "0" * 64
# Taken for the rest of the transaction by whoever appends, so that the chain has one order.
CHAIN_LOCK = 0x5357_4348
PART = 500  # events of the chain that are read at once
# The kinds of events that move flags. `before` and `after` have their weights, by the flag's key; what else `after` has
# (of a rollout's step, of the trigger that fired) is no number.
MOVES = (
    AuditKind.EVERYTHING_ROLLED_BACK,
    AuditKind.WEEK_ENABLED,
    AuditKind.WEEK_ROLLED_BACK,
    AuditKind.FLAG_ENABLED,
    AuditKind.FLAG_WEIGHT_SET,
    AuditKind.FLAG_ROLLED_BACK,
    AuditKind.ROLLOUT_STARTED,
    AuditKind.ROLLOUT_STEPPED,
)
ROLLBACKS = (AuditKind.EVERYTHING_ROLLED_BACK, AuditKind.WEEK_ROLLED_BACK, AuditKind.FLAG_ROLLED_BACK)


class AuditEvent(models.Model):
    """One change, or one refusal. Names and values are stored as they were; the row outlives its subject."""

    at = models.DateTimeField()
    kind = models.CharField(max_length=60)
    actor = models.CharField(max_length=150)
    actor_kind = models.CharField(max_length=10, choices=ActorKind)
    via = models.CharField(
        max_length=150,
        blank=True,
        default="",
        db_default="",
        help_text="What acted in the actor's name, where that was no browser: token 7, shell root",
    )
    subject = models.CharField(max_length=200, help_text="week 3, USE_AUTH_SERVICE, week 3 / backup, gateway main")
    week_number = models.PositiveSmallIntegerField(null=True)
    reason = models.TextField(blank=True)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    verdict = models.JSONField(null=True, help_text="The gate as it was at that moment.")
    generation = models.PositiveBigIntegerField(null=True, help_text="Of the routing table that this change asked for.")
    request_key = models.UUIDField(
        null=True, unique=True, help_text="Of the click; the same click again changes nothing."
    )
    previous_digest = models.CharField(max_length=64, unique=True)
    digest = models.CharField(max_length=64, unique=True)

    class Meta:
        default_permissions = ()
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(actor_kind__in=ActorKind.values), name="audit_actor_kind_is_known"),
        ]
        indexes = [
            # Serve the audit page filtered by kind, by actor and by week, newest first.
            models.Index(fields=["kind", "-id"], name="audit_by_kind"),
            models.Index(fields=["actor", "-id"], name="audit_by_actor"),
            models.Index(fields=["week_number", "-id"], name="audit_by_week"),
            # Serves the trigger that asks which event vouches for a higher weight.
            models.Index(fields=["generation"], name="audit_by_generation"),
            # Serves "what moved since" of the overview and of the status page: few rows, however long the log is.
            models.Index(
                fields=["at"], condition=Q(kind__in=[kind.value for kind in MOVES]), name="audit_moves_by_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} by {self.actor}"

    def content_digest(self) -> str:
        """SHA-256, in hex, over the previous digest and every field that tells what happened."""
        content: dict[str, Any] = {
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "kind": str(self.kind),
            "actor": self.actor,
            "actor_kind": str(self.actor_kind),
            "subject": self.subject,
            "week_number": self.week_number,
            "reason": self.reason,
            "before": self.before,
            "after": self.after,
            "verdict": self.verdict,
            "generation": self.generation,
            "request_key": str(self.request_key) if self.request_key else None,
        }
        if self.via:
            # Left out where it is empty: so events of before there was a `via` keep their digests.
            content["via"] = self.via
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), cls=DjangoJSONEncoder)
        return hashlib.sha256(f"{self.previous_digest}{canonical}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """What came of walking the chain, `rows` of which follow from one another.

    `broken_at` is the id of the first row that does not follow from the row before it, or None. `missing` is what other
    tables tell of and no event does: the end of the chain can be cut off without breaking it. `head` is the digest of
    the last row, by which somebody elsewhere can tell later that the log still begins as it did.
    """

    rows: int
    broken_at: int | None
    missing: tuple[str, ...] = ()
    head: str = GENESIS

    @property
    def intact(self) -> bool:
        return self.broken_at is None and not self.missing


def check_chain(*, leaves_room: bool = False) -> ChainCheck:
    """Walk the whole chain, oldest first, and look in the other tables for what it lacks.

    In short questions: one for all of a long log runs into the time limit. With `leaves_room` half of the time is left
    to the other threads of this process.
    """
    previous, rows, rest = GENESIS, 0, AuditEvent.objects.order_by("id")
    begun = time.monotonic()
    while True:
        part = list(rest[:PART])
        for event in part:
            if event.previous_digest != previous or event.content_digest() != event.digest:
                return ChainCheck(rows, event.pk, head=previous)
            previous, rows = event.digest, rows + 1
        if len(part) < PART:
            return ChainCheck(rows, None, _missing(), previous)
        rest = AuditEvent.objects.filter(id__gt=part[-1].pk).order_by("id")
        if leaves_room:
            time.sleep(time.monotonic() - begun)
            begun = time.monotonic()


def _missing() -> tuple[str, ...]:
    with connection.cursor() as cursor:
        cursor.execute(_TOLD_ELSEWHERE)
        return tuple(f"{what} {number}" for what, number in cursor.fetchall())


# Each generation is taken together with the event that tells of it. 0 is what a gateway runs before any plan is loaded.
_TOLD_ELSEWHERE = """
    SELECT 'the event of generation', generation FROM (
        SELECT generation FROM migrations_app_plan
        UNION SELECT generation FROM migrations_app_flag
        UNION SELECT generation FROM migrations_app_rollout
        UNION SELECT generation FROM migrations_app_confirmation
    ) AS told
    WHERE generation > 0
        AND NOT EXISTS (SELECT FROM migrations_app_auditevent AS event WHERE event.generation = told.generation)
    UNION ALL
    SELECT 'event', number FROM (
        SELECT event_id FROM migrations_app_reasonasked
        UNION SELECT answer_id FROM migrations_app_reasonasked WHERE answer_id IS NOT NULL
    ) AS told (number)
    WHERE NOT EXISTS (SELECT FROM migrations_app_auditevent AS event WHERE event.id = told.number)
    ORDER BY 1, 2
"""
