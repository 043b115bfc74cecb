"""What triggers watch: each flag that has traffic on the new side, and the flags of a week together."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.db.models import Q
from pydantic import ValidationError

from migrations_app.models import Flag, Week
from migrations_app.models.gateways import begun_at
from migrations_app.planfile.triggers import AnyTrigger, from_rows

logger = logging.getLogger(__name__)

CLOCKS_DIFFER = timedelta(seconds=1)  # between the host that saw the gateway confirm and the one that judges
Key = tuple[int | None, int | None, str]  # primary key of a flag or of a week, and a trigger's own


@dataclass(frozen=True, slots=True)
class Watched:
    """One flag or, with a `week`, all of its flags that are on; and the triggers that watch them.

    `running` are those whose weight a gateway has confirmed, the last of them at `begun`: they are what is judged. One
    that no gateway has taken yet does not keep the others of its week from that.
    """

    flags: tuple[Flag, ...]
    week: Week | None
    triggers: tuple[AnyTrigger, ...]
    running: tuple[Flag, ...]
    begun: datetime

    @property
    def generation(self) -> int:
        """Of the newest weight."""
        return max(flag.generation for flag in self.flags)

    @property
    def name(self) -> str:
        """As the audit log calls it."""
        return f"week {self.week.number}" if self.week else self.flags[0].key

    @property
    def services(self) -> tuple[int, ...]:
        """Primary keys of those that are judged."""
        return tuple(flag.service_id for flag in self.running)

    @property
    def moved(self) -> datetime:
        """When a weight was last changed."""
        return max((flag.changed_at for flag in self.flags if flag.changed_at), default=self.begun)

    def key_of(self, trigger: AnyTrigger) -> Key:
        return (None, self.week.pk, trigger.key) if self.week else (self.flags[0].pk, None, trigger.key)

    def begun_by(self, now: datetime, reach: timedelta) -> datetime:
        """`begun`; where that lies ahead, because a clock was put back since, `reach` ago."""
        return self.begun if self.begun <= now + CLOCKS_DIFFER else now - reach


def watched() -> list[Watched]:
    """Flags in the order of the plan, then weeks by number. Two questions; one where nothing is on.

    A trigger that cannot be read, as one of another version of Switchyard, is left out and logged.
    """
    nobody = Q(service__triggers=[]) & Q(week__triggers=[])
    flags = list(Flag.objects.filter(weight__gt=0).exclude(nobody).select_related("service", "week"))
    if not flags:
        return []
    confirmed = begun_at({flag.generation for flag in flags})
    found = [_watched([flag], None, confirmed) for flag in flags if flag.service.triggers]
    for _, of_week in groupby(sorted(flags, key=_number), _number):
        rows = list(of_week)
        if rows[0].week.triggers:
            found.append(_watched(rows, rows[0].week, confirmed))
    return [one for one in found if one]


def _number(flag: Flag) -> int:
    return flag.week.number


def _watched(flags: Collection[Flag], week: Week | None, confirmed: dict[int, datetime]) -> Watched | None:
    """None while no gateway has said that it runs any of them."""
    running = tuple(flag for flag in flags if flag.generation in confirmed)
    if not running:
        return None
    begun = max(max(confirmed[flag.generation], flag.changed_at or confirmed[flag.generation]) for flag in running)
    stored = week.triggers if week else running[0].service.triggers
    return Watched(tuple(flags), week, tuple(_readable(stored, f"{week or running[0].key}")), running, begun)


def _readable(stored: Iterable[Any], of: str) -> Iterator[AnyTrigger]:
    for one in stored:
        try:
            yield from from_rows(json.dumps([one]))
        except ValidationError as error:
            logger.error("a trigger of %s cannot be read, and watches nothing: %s", of, error)
