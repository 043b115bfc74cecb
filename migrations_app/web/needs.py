"""What needs the person who looks at the timeline, loudest first."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse

from migrations_app.gates.verdict import LineKind
from migrations_app.roles import Permission

from .access import may
from .board import Board


@dataclass(frozen=True, slots=True)
class Need:
    """`link` leads to what needs the person. `key` is stable while the need lasts: the focus finds it again by it."""

    key: str
    title: str
    text: str
    link: str
    loud: bool = False


def needs_of(request: HttpRequest, board: Board) -> list[Need]:
    """For this account alone: what it may not do anything about is not asked of it."""
    found = []
    if board.gateway.loud and may(request, Permission.ROLL_BACK):
        title = f"The gateway: {board.gateway.word}"
        found.append(Need("gateway", title, board.gateway.why, reverse("gateway"), loud=True))
    for week in board.weeks:
        link = reverse("week", args=[week.week.number])
        if may(request, Permission.ROLL_BACK):
            found += [
                Need(
                    f"service-{row.service.key}",
                    f"{row.service.title} is unhealthy and carries traffic",
                    f"{row.health.error or 'Its health check fails'}. Rolling back takes one click.",
                    f"{link}#row-{row.service.key}",
                    loud=True,
                )
                for row in week.services
                if row.alarming
            ]
    week_now = board.current
    if week_now is not None and not week_now.all_on:
        name, link = f"Week {week_now.week.number}", reverse("week", args=[week_now.week.number])
        waiting = [line for line in week_now.verdict.blocking if line.kind == LineKind.MANUAL]
        if waiting and may(request, Permission.TICK):
            lines = "1 line waits" if len(waiting) == 1 else f"{len(waiting)} lines wait"
            title, first = f"{name}: {lines} for a sign-off", f"{link}#line-{waiting[0].prerequisite}"
            found.append(Need("sign-off", title, "Tick with a note of what you saw.", first))
        elif week_now.verdict.open and week_now.services and may(request, Permission.ENABLE):
            title, text = f"{name} is ready", "Its gate is open: enable it when the time is right."
            found.append(Need("enable", title, text, f"{link}#lever"))
    return found
