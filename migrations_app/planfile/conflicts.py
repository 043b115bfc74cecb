"""What a changed plan must not change: the promises of started weeks, and what carries traffic. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from migrations_app.durations import format_duration
from migrations_app.planfile.diff import compare_promises
from migrations_app.planfile.schema import ApprovalsPart, Plan, ServicePart, WeekPart


def scale_conflicts(old: int, new: int, *, soaking: Collection[int]) -> list[str]:
    """A sentence for each week that a change of the time scale would take out of its soak, or push to its end."""
    if old == new:
        return []
    return [
        f"Week {number} is soaking: the time scale cannot change from {old} to {new} under it."
        f" Call it done or roll it back first, or keep the scale with --time-scale {old}."
        for number in sorted(soaking)
    ]


def conflicts(old: Plan, new: Plan, *, started: Collection[int], on: Collection[str]) -> list[str]:
    """A sentence for each change that is refused; empty when the new plan may be loaded.

    `started` are the numbers of the weeks that have been started, `on` the flags with traffic on the new side. Dates,
    titles, owners, help and notes may always change.
    """
    if old.plan.key != new.plan.key:
        return [
            f"This database holds the plan '{old.plan.key}'; the plan '{new.plan.key}' needs a database of its own."
        ]
    return [
        *_weeks(old, new, started),
        *_services(old, new, on),
        *_gateway(old, new, bool(started) or bool(on)),
        *_new_services(old, new),
    ]


def _weeks(old: Plan, new: Plan, started: Collection[int]) -> Iterator[str]:
    after = {week.number: week for week in new.weeks}
    for week in old.weeks:
        if week.number not in started:
            continue
        if week.number not in after:
            yield f"Week {week.number} has been started and cannot be removed."
            continue
        for change in _promise_changes(week, after[week.number]):
            yield f"Week {week.number} has been started: {change}."


def _promise_changes(old: WeekPart, new: WeekPart) -> Iterator[str]:
    if old.risk != new.risk:
        yield f"its risk cannot change from {old.risk} to {new.risk}"
    if old.soak != new.soak:
        yield f"its soak cannot change from {format_duration(old.soak)} to {format_duration(new.soak)}"
    if old.downtime is not None and old.downtime != new.downtime:
        told = new.downtime.words() if new.downtime else "no target"
        yield f"its downtime cannot change from {old.downtime.words()} to {told}"
    if old.moves_traffic != new.moves_traffic:
        yield "moves_traffic cannot change"
    if old.after != new.after:
        yield f"the weeks it comes after cannot change from {list(old.after)} to {list(new.after)}"
    for flag in sorted(set(old.flags) - set(new.flags)):
        yield f"its flag {flag} cannot be removed"
    for flag in sorted(set(new.flags) - set(old.flags)):
        yield f"the flag {flag} cannot be added to it"
    if old.approvals != new.approvals and old.required_approvals != new.required_approvals:
        yield f"its approvals cannot change from {_told(old.required_approvals)} to {_told(new.required_approvals)}"
    for key, change in compare_promises(old.done_criteria, new.done_criteria):
        yield f"what it is done when cannot change: '{key}' is {change}"
    for key, change in compare_promises(old.prerequisites, new.prerequisites):
        yield f"its prerequisite '{key}' cannot be {change}"


def _told(approvals: ApprovalsPart) -> str:
    if not approvals.count:
        return "none"
    return f"{approvals.count} by the role {approvals.role} for {format_duration(approvals.valid_for)}"


def _services(old: Plan, new: Plan, on: Collection[str]) -> Iterator[str]:
    after = {service.key: service for service in new.services}
    for service in old.services:
        if service.flag not in on:
            continue
        if service.key not in after:
            yield f"Service '{service.key}' carries traffic ({service.flag} is on) and cannot be removed."
            continue
        for change in _traffic_changes(service, after[service.key]):
            yield f"Service '{service.key}' carries traffic ({service.flag} is on): {change}. Roll it back first."


def _traffic_changes(old: ServicePart, new: ServicePart) -> Iterator[str]:
    if old.flag != new.flag:
        yield f"its flag cannot change to {new.flag}"
    if set(old.routes) != set(new.routes):
        yield f"its routes cannot change from {', '.join(old.routes)} to {', '.join(new.routes)}"
    if old.upstream != new.upstream:
        yield f"its upstream cannot change from {old.upstream} to {new.upstream}"
    if old.strip != new.strip:
        yield f"strip cannot change from '{old.strip}' to '{new.strip}'"
    if old.writes_from != new.writes_from:
        yield f"writes_from cannot change from {old.writes_from} to {new.writes_from}"


def _gateway(old: Plan, new: Plan, begun: bool) -> Iterator[str]:
    before, after = (plan.gateway.model_copy(update={"instances": ()}) for plan in (old, new))
    if begun and before != after:
        yield "The gateway's key and adapter cannot change once a week has been started."


def _new_services(old: Plan, new: Plan) -> Iterator[str]:
    known = {service.key for service in old.services}
    for service in new.services:
        if service.weight and service.key not in known:
            yield (
                f"Service '{service.key}' would begin with {service.weight} % on the new side, past its week's gate."
                " A weight counts only in the first load; leave it out and enable the week."
            )
