"""A gate as text: its lines in groups, each with its value against its limit, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from migrations_app.durations import in_words
from migrations_app.gates.verdict import GROUPS, Line, Verdict


def lines_of(verdict: Verdict, now: datetime) -> Iterator[str]:
    """The whole verdict, a line of text each. Why something blocks stands under it: since when, who, what, how."""
    for title, kinds in GROUPS.items():
        group = [line for line in verdict.lines if line.kind in kinds]
        if group:
            yield f"  {title}: {sum(line.held for line in group)}/{len(group)}"
        for line in group:
            yield f"    [{_mark(line)}] {line.title}: {line.value}"
            yield from (f"        {text}" for text in _about(line, now))


def moment(at: datetime, now: datetime) -> str:
    """`2026-11-24 12:00 UTC, 3 h ago`, or `..., in 3 h`."""
    told = "in " + in_words(at - now) if at > now else in_words(now - at) + " ago"
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {told}"


def _mark(line: Line) -> str:
    """x held, ! not held but overridden, blank for what blocks."""
    return "x" if line.held else "!" if line.overridden else " "


def _about(line: Line, now: datetime) -> Iterator[str]:
    if line.held:
        if line.until:
            yield f"until:   {moment(line.until, now)}"
        if line.warning:
            yield f"warning: {line.warning}"
        return
    yield f"needed:  {line.limit}"
    if line.since:
        yield f"since:   {moment(line.since, now)}"
    if line.until:
        yield f"over:    {moment(line.until, now)}"
    if line.act:
        yield f"act:     {line.act}"
    if line.who:
        yield f"who:     {line.who}"
    if line.command:
        yield f"command: {line.command}"
    yield f"key:     {line.key}" + (" (overridden)" if line.overridden else "")
