"""Deletes much at once, within the time limit of a statement."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

AT_ONCE = 10_000  # rows


def delete_in_parts(rows: QuerySet[Any]) -> int:
    """After a long stop one statement for all would not end in time, ever. The number of rows that went."""
    gone = 0
    while part := rows.model.objects.filter(pk__in=list(rows.values_list("pk", flat=True)[:AT_ONCE])).delete()[0]:
        gone += part
    return gone
