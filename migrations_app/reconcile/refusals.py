"""Keeps what a gateway refused: the page of the gateway tells it also when the refusal is over."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import connection

from migrations_app.models import Gateway

KEPT = 100  # rows of one gateway, the newest; a validator whose reason differs each time adds one with each pass
LONGEST = 2000  # characters of a reason

# One statement. Rows are only dropped when one is added: to see the same refusal again costs one look-up by the key.
_NOTE = """
WITH noted AS (
    INSERT INTO migrations_app_refusal AS known (gateway_id, generation, at, last_at, reason, times)
    VALUES (%(gateway)s, %(generation)s, %(at)s, %(at)s, %(reason)s, 1)
    ON CONFLICT (gateway_id, generation, md5(reason)) DO UPDATE
        SET times = known.times + 1, last_at = greatest(known.last_at, excluded.last_at)
    RETURNING times
)
DELETE FROM migrations_app_refusal USING noted WHERE noted.times = 1 AND id IN (
    SELECT id FROM migrations_app_refusal WHERE gateway_id = %(gateway)s ORDER BY last_at DESC, id DESC OFFSET %(kept)s
)
"""


def note_refusal(gateway: Gateway, generation: int, reason: str, at: datetime) -> None:
    """Store that this generation was refused at this moment, or count one that is stored already."""
    parameters: dict[str, Any] = {"gateway": gateway.pk, "generation": generation, "reason": reason[:LONGEST], "at": at}
    with connection.cursor() as cursor:
        # The new row itself is not among those that the statement sees.
        cursor.execute(_NOTE, parameters | {"kept": KEPT - 1})
