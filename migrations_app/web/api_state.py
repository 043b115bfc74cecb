"""The whole plan as the API tells it: what is asked, what runs, what is in the way."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from migrations_app.gates.verdict import Line, Verdict
from migrations_app.models import Gateway

from .board import Board, ServiceRow, WeekRow, load_board

OF_A_LINE = ("key", "kind", "title", "value", "limit", "act", "who", "command")


def state() -> dict[str, Any]:
    """As of now; `plan` is None while none is loaded. A fixed number of queries."""
    gateways = list(Gateway.objects.select_related("plan").defer("plan__document").order_by("key"))
    board = load_board(gateways)
    if board is None:
        nothing: dict[str, Any] = {"gateways": [], "weeks": [], "flags": []}
        return {"as_of": timezone.now(), "plan": None, "generation": None, "monolith": None, **nothing}
    return {
        "as_of": board.now,
        "plan": {"key": board.plan.key, "title": board.plan.title, "revision": board.plan.revision},
        "generation": board.plan.generation,
        "monolith": board.monolith.state,
        "gateways": [_gateway(row) for row in gateways],
        "weeks": [_week(row, board) for row in board.weeks],
        "flags": [_flag(row, one) for row in board.weeks for one in row.services],
    }


def blocking(verdict: Verdict) -> list[dict[str, Any]]:
    """The lines that hold a gate closed."""
    return [_line(line) for line in verdict.blocking]


def _gateway(row: Gateway) -> dict[str, Any]:
    return {
        "key": row.key,
        "generation": row.observed_generation,
        "seen_at": row.observed_at,
        "error": row.error,
        "failing_over": row.failing_over,
    }


def _week(row: WeekRow, board: Board) -> dict[str, Any]:
    week = row.week
    return {
        "number": week.number,
        "title": week.title,
        "risk": week.risk,
        "status": week.status,
        "after": list(board.gates.seldom.after.get(week.number, ())),
        "gate": {
            "open": row.verdict.open,
            "progress": row.verdict.progress,
            "override": row.verdict.override,
            "blocking": blocking(row.verdict),
        },
    }


def _flag(week: WeekRow, one: ServiceRow) -> dict[str, Any]:
    return {
        "key": one.row.key,
        "service": one.row.service,
        "week": week.week.number,
        "weight": one.row.weight,
        "generation": one.row.generation,
        "health": one.health.state,
        "health_error": one.health.error,
        "applied": one.gateway.word in {"applied", "failing over"},
        "gateways": {row.key: row.observed_weights.get(one.row.key) for row in one.around.gateways},
    }


def _line(line: Line) -> dict[str, Any]:
    told = line.as_json()
    return {name: told[name] for name in OF_A_LINE if name in told}
