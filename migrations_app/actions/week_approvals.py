"""The approval of a whole week, as the steps of its services use it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.db.models import Case, When
from django.db.models.functions import Coalesce

from migrations_app.models import ApprovalRequest, Flag, Week


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
