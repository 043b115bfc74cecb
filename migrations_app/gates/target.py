"""What a week is about to move, as one digest: what people vouched for is void once that is another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from migrations_app.models import Flag


def targets(weeks: Collection[int] | None = None) -> dict[int, str]:
    """Week number -> SHA-256, in hex, over its flags, their routes and where they lead on the new side. Two queries.

    A week without flags has one too: that of nothing.
    """
    flags = Flag.objects.select_related("service", "week").prefetch_related("service__routes")
    if weeks is not None:
        flags = flags.filter(week__number__in=weeks)
    parts: dict[int, list[Any]] = {number: [] for number in weeks or ()}
    for flag in flags:
        service = flag.service
        prefixes = sorted(route.prefix for route in service.routes.all())
        part = [flag.key, service.key, str(service.upstream), service.strip, service.health_path, prefixes]
        parts.setdefault(flag.week.number, []).append(part)
    return {number: digest_of(sorted(part)) for number, part in parts.items()}


def digest_of(content: object) -> str:
    """SHA-256, in hex, over something that JSON can tell."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


NOTHING = digest_of([])
