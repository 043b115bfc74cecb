"""What needs the person who looks at the timeline, loudest first."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse

from migrations_app.roles import Permission

from .access import may
from .board import Board


@dataclass(frozen=True, slots=True)
class Need:
    title: str
    text: str
    link: str
    loud: bool = False


def needs_of(request: HttpRequest, board: Board) -> list[Need]:
    """For this account alone: what it may not do anything about is not asked of it."""
    found = []
    if board.gateway.loud and may(request, Permission.ROLL_BACK):
        found.append(Need(f"The gateway: {board.gateway.word}", board.gateway.why, reverse("gateway"), loud=True))
    for week in board.weeks:
        link = reverse("week", args=[week.week.number])
        if may(request, Permission.ROLL_BACK):
            found += [
                Need(
                    f"{row.service.title} is unhealthy and carries traffic",
                    f"{row.health.error or 'Its health check fails'}. Rolling back takes one click.",
                    link,
                    loud=True,
                )
                for row in week.services
                if row.alarming
            ]
    week_now = board.current
    if week_now is not None and not week_now.all_on:
        name, link = f"Week {week_now.week.number}", reverse("week", args=[week_now.week.number])
        if week_now.open_manual and may(request, Permission.TICK):
            lines = "1 line waits" if week_now.open_manual == 1 else f"{week_now.open_manual} lines wait"
            found.append(Need(f"{name}: {lines} for a sign-off", "Tick with a note of what you saw.", f"{link}#gate"))
        elif week_now.verdict.open and week_now.services and may(request, Permission.ENABLE):
            found.append(Need(f"{name} is ready", "Its gate is open: enable it when the time is right.", link))
    return found
