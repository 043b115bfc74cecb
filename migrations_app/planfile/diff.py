"""What differs between two plans, in lines that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from migrations_app.durations import format_duration
from migrations_app.planfile.downtime import DowntimePart
from migrations_app.planfile.health import HealthPart
from migrations_app.planfile.part import Part
from migrations_app.planfile.rollout import RolloutPart
from migrations_app.planfile.schema import (
    ApprovalsPart,
    DonePart,
    GatewayPart,
    Plan,
    PrerequisitePart,
    ServicePart,
    WeekPart,
)
from migrations_app.planfile.triggers import TriggerPart, words

# What one entry of a list of sentences or words is called.
_ENTRY = {
    "flags": "flag",
    "routes": "route",
    "targets": "target",
    "triggers": "trigger",
    "roll_back_when": "reason to roll back",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """`lines` is empty when the plans are equal. `routing`: the gateway must get a new routing table."""

    lines: tuple[str, ...]
    routing: bool

    def __bool__(self) -> bool:
        return bool(self.lines)


def compare(old: Plan | None, new: Plan) -> Difference:
    """From the old plan to the new one; everything is new when there is no old one."""
    if old is None:
        lines = [f"plan '{new.plan.key}' added"]
        lines += [f"service '{service.key}' added" for service in new.services]
        lines += [f"week {week.number} added" for week in new.weeks]
        return Difference(tuple(lines), routing=True)
    return Difference(tuple(_plan_lines(old, new)), routing=_routing(old) != _routing(new))


def touched_weeks(old: Plan, new: Plan) -> set[int]:
    """Numbers of the weeks of the new plan that say something else than before, or whose services do."""
    before = {week.number: _week_with_services(old, week) for week in old.weeks}
    return {week.number for week in new.weeks if before.get(week.number) != _week_with_services(new, week)}


def same_promise(old: PrerequisitePart, new: PrerequisitePart) -> bool:
    """Whether a sign-off of the one holds for the other: help and place in the list do not matter."""
    return same_check(old, new) and (old.title, old.valid_for) == (new.title, new.valid_for)


def same_check(old: PrerequisitePart, new: PrerequisitePart) -> bool:
    """Whether what was found for the one holds for the other."""
    return (old.kind, old.check, old.parameters) == (new.kind, new.check, new.parameters)


def compare_promises(old: Sequence[PrerequisitePart], new: Sequence[PrerequisitePart]) -> Iterator[tuple[str, str]]:
    """Key and `removed`, `added` or `changed`, for each line of a checklist whose promise differs."""
    before, after = _by_key(old), _by_key(new)
    yield from ((key, "removed") for key in before if key not in after)
    for key, item in after.items():
        if key not in before:
            yield key, "added"
        elif not same_promise(before[key], item):
            yield key, "changed"


def _week_with_services(plan: Plan, week: WeekPart) -> tuple[WeekPart, list[ServicePart | None]]:
    services = plan.service_of_flag()
    return week, [services.get(flag) for flag in week.flags]


def _routing(plan: Plan) -> tuple[Any, ...]:
    """Everything that reaches the gateway, apart from the weights."""
    services = sorted(
        (
            *(item.key, item.flag, sorted(item.routes), item.upstream, item.strip, item.health_path, item.timeout),
            *(item.fails_over, item.writes_from),
        )
        for item in plan.services
    )
    gateway = plan.gateway.model_copy(update={"instances": tuple(sorted(plan.gateway.keys))})
    return plan.plan.key, gateway, plan.monolith.address, plan.monolith.health_path, services, plan.counted()


def _plan_lines(old: Plan, new: Plan) -> Iterator[str]:
    yield from _part_lines("plan", old.plan, new.plan)
    yield from _gateway_lines(old.gateway, new.gateway)
    yield from _part_lines("monolith", old.monolith, new.monolith)
    services = {item.key: item for item in old.services}, {item.key: item for item in new.services}
    yield from _list_lines("service", "services", *services)
    weeks = {item.number: item for item in old.weeks}, {item.number: item for item in new.weeks}
    yield from _list_lines("week", "weeks", *weeks)


def _gateway_lines(old: GatewayPart, new: GatewayPart) -> Iterator[str]:
    yield from (f"gateway {_quote(key)} removed" for key in old.keys if key not in new.keys)
    yield from (f"gateway {_quote(key)} added" for key in new.keys if key not in old.keys)
    yield from _part_lines("gateway", *(one.model_copy(update={"instances": ()}) for one in (old, new)))


def _list_lines(noun: str, plural: str, old: Mapping[Any, BaseModel], new: Mapping[Any, BaseModel]) -> Iterator[str]:
    """Lines on a list whose items are known by a key or a number; both lists in the order of their plan."""
    for key in old:
        if key not in new:
            yield f"{noun} {_quote(key)} removed"
    for key, item in new.items():
        if key not in old:
            yield f"{noun} {_quote(key)} added"
        elif item != old[key]:
            yield from _part_lines(f"{noun} {_quote(key)}", old[key], item)
    if _reordered(list(old), list(new)):
        yield f"{plural} in another order"


def _part_lines(name: str, old: BaseModel, new: BaseModel) -> Iterator[str]:
    for field in type(new).model_fields:
        before, after = getattr(old, field), getattr(new, field)
        if before == after:
            continue
        if field == "prerequisites":
            keyed = _by_key(before), _by_key(after)
            for line in _list_lines("prerequisite", "prerequisites", *keyed):
                yield f"{name}: {line}"
        elif field == "done_when":
            yield from _done_lines(name, before, after)
        elif field == "planned":
            yield f"{name}: planned {before.start} to {before.end} -> {after.start} to {after.end}"
        elif isinstance(after, tuple):
            yield from _entry_lines(name, field, before, after)
        else:
            yield f"{name}: {field} {_show(before)} -> {_show(after)}"


def _done_lines(name: str, old: Sequence[DonePart], new: Sequence[DonePart]) -> Iterator[str]:
    keyed = {item.key: item for item in old if item.key}, {item.key: item for item in new if item.key}
    lines = [f"{name}: {line}" for line in _list_lines("done_when", "done_when", *keyed)]
    lines += _entry_lines(name, "done_when", *([item for item in items if not item.key] for items in (old, new)))
    # Lines with a key and lines without one may have changed places with each other alone.
    yield from lines or [f"{name}: done_when in another order"]


def _entry_lines(name: str, field: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[str]:
    noun = _ENTRY.get(field, field)
    for entry in old:
        if old.count(entry) > new.count(entry):
            yield f"{name}: {noun} {_show(entry)} removed"
    for entry in new:
        if new.count(entry) > old.count(entry):
            yield f"{name}: {noun} {_show(entry)} added"
    if _reordered(old, new):
        yield f"{name}: {field} in another order"


def _by_key(prerequisites: Iterable[PrerequisitePart]) -> dict[str, PrerequisitePart]:
    return {item.key: item for item in prerequisites}


def _reordered(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Whether what both hold stands in another order."""
    return [item for item in old if item in new] != [item for item in new if item in old] and (
        sorted(map(str, (item for item in old if item in new)))
        == sorted(map(str, (item for item in new if item in old)))
    )


def _quote(key: str | int) -> str:
    return f"'{key}'" if isinstance(key, str) else str(key)


def _show(value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Part):
        return _show_part(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 80 else f"'{value[:77]}...'"
    return "nothing" if value is None else str(value)


def _show_part(value: Part) -> str:
    if isinstance(value, DowntimePart | HealthPart | RolloutPart):
        return value.words()
    if isinstance(value, TriggerPart):
        return words(value)
    if isinstance(value, ApprovalsPart):
        return f"{value.count} by the role {value.role}, each for {format_duration(value.valid_for)}"
    if isinstance(value, DonePart):
        check = f" by {value.check} {value.parameters}" if value.check else ""
        return f"{_show(value.title)}{check}{' with help' if value.help else ''}"
    return str(value)
