"""What triggers watch: each flag that has traffic on the new side, and the flags of a week together."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from django.db.models import Q

from migrations_app.models import Flag, Week
from migrations_app.models.gateways import verified_at
from migrations_app.planfile.triggers import AnyTrigger, from_rows


@dataclass(frozen=True, slots=True)
class Watched:
    """One flag or, with a `week`, all of its flags that are on; and the triggers that watch them.

    Every gateway has confirmed every one of their weights, the last one at `begun`. `generation` is that of the newest.
    """

    flags: tuple[Flag, ...]
    week: Week | None
    triggers: tuple[AnyTrigger, ...]
    begun: datetime

    @property
    def generation(self) -> int:
        return max(flag.generation for flag in self.flags)

    @property
    def name(self) -> str:
        """As the audit log calls it."""
        return f"week {self.week.number}" if self.week else self.flags[0].key

    @property
    def services(self) -> tuple[int, ...]:
        """Primary keys."""
        return tuple(flag.service_id for flag in self.flags)


def watched() -> list[Watched]:
    """Flags in the order of the plan, then weeks by number. Two questions; one where nothing is on."""
    nobody = Q(service__triggers=[]) & Q(week__triggers=[])
    flags = list(Flag.objects.filter(weight__gt=0).exclude(nobody).select_related("service", "week"))
    if not flags:
        return []
    confirmed = verified_at({flag.generation for flag in flags})
    found = []
    for flag in flags:
        if flag.service.triggers and (begun := _begun([flag], confirmed)):
            found.append(Watched((flag,), None, from_rows(json.dumps(flag.service.triggers)), begun))
    for _, of_week in groupby(sorted(flags, key=_number), _number):
        rows = list(of_week)
        week = rows[0].week
        if week.triggers and (begun := _begun(rows, confirmed)):
            found.append(Watched(tuple(rows), week, from_rows(json.dumps(week.triggers)), begun))
    return found


def _number(flag: Flag) -> int:
    return flag.week.number


def _begun(flags: Collection[Flag], confirmed: dict[int, datetime]) -> datetime | None:
    """Since when all of them run at their weights; None while a gateway has not said so."""
    if any(flag.generation not in confirmed for flag in flags):
        return None
    return max(max(confirmed[flag.generation], flag.changed_at or confirmed[flag.generation]) for flag in flags)
