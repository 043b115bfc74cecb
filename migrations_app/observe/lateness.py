"""How late polls began, and how many did not begin, counted since the first poller."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db import connection

from migrations_app.models import PollLateness
from migrations_app.models.health import LATE_BOUNDS, NO_LATENESS


@dataclass(slots=True)
class Lateness:
    """What one poller has counted and not stored yet. `late` is by LATE_BOUNDS, one more for what is above all."""

    late: list[int] = field(default_factory=lambda: list(NO_LATENESS))
    seconds: float = 0.0
    skipped: int = 0

    def count(self, late: Iterable[float], skipped: int) -> None:
        """Polls that began so many seconds after they were due, and the number of those that did not begin."""
        for one in late:
            self.late[bisect_left(LATE_BOUNDS, one)] += 1
            self.seconds += one
        self.skipped += skipped

    def store(self) -> None:
        """Add it to what is stored. Within the caller's transaction; forget this one once that is committed."""
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO {PollLateness._meta.db_table} AS kept (id, late, seconds, skipped) VALUES (1, %s, %s, %s)
                ON CONFLICT (id) DO UPDATE SET
                    late = ARRAY(
                        SELECT a + b FROM unnest(kept.late, excluded.late) WITH ORDINALITY AS both_of (a, b, place)
                        ORDER BY place
                    ),
                    seconds = kept.seconds + excluded.seconds,
                    skipped = kept.skipped + excluded.skipped
                """,  # noqa: S608  # the table's own name
                [self.late, self.seconds, self.skipped],
            )
