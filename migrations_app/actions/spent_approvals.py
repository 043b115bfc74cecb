"""What changes do to the approvals that they rest on: each is for one way up, and is used, spent or ended on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from operator import or_

from django.db.models import Case, Q, When
from django.db.models.functions import Coalesce

from migrations_app.models import ApprovalRequest, Flag, Week


def spend_approval(week: Week, flags: list[str], weight: int, at: datetime) -> None:
    """An approval is for one way up to its weight: used by each step, spent by the last one."""
    rows = ApprovalRequest.objects.filter(
        week=week, flags=sorted(flags), weight__gte=weight, closed_at__isnull=True, spent_at__isnull=True
    )
    rows.update(used_at=Coalesce("used_at", at), spent_at=Case(When(weight=weight, then=at)))


def use_approval_of_week(week: Week, moved: Mapping[str, int], at: datetime) -> None:
    """Its approval is used by each step of each service, and spent once all of the week is where it was approved to.

    `moved` is where flags of it are about to be, in per cent.
    """
    if not week.approvals_needed:
        return
    weights = dict(Flag.objects.filter(week=week).values_list("key", "weight")) | dict(moved)
    rows = ApprovalRequest.objects.filter(
        week=week,
        flags=sorted(weights),
        weight__gte=max(moved.values()),
        closed_at__isnull=True,
        spent_at__isnull=True,
    )
    all_there = When(weight__lte=min(weights.values()), then=at)
    rows.update(used_at=Coalesce("used_at", at), spent_at=Case(all_there))


def end_approvals(week: Week, flags: list[str], at: datetime) -> None:
    """What was approved and has been rolled back on its way is to be approved anew."""
    ours = reduce(or_, (Q(flags__contains=[key]) for key in flags))
    ApprovalRequest.objects.filter(
        ours, week=week, used_at__isnull=False, closed_at__isnull=True, spent_at__isnull=True
    ).update(closed_at=at, closed_because="rolled back")
