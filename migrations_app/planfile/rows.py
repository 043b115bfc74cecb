"""Writes a plan onto its rows: only what differs, in an order that no constraint minds. Called with the plan locked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from django.db import connection, models
from django.utils import timezone

from migrations_app.choices import Health, Phase
from migrations_app.gateways.base import Counted
from migrations_app.models import (
    Approval,
    ApprovalRequest,
    Flag,
    Gateway,
    HealthChange,
    HealthState,
    Override,
    Prerequisite,
    Route,
    Service,
    SignOff,
    Week,
)
from migrations_app.models import Plan as PlanRow
from migrations_app.models.downtime import HALF
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.planfile import triggers
from migrations_app.planfile.diff import same_check, same_promise
from migrations_app.planfile.schema import Plan, PrerequisitePart, ServicePart, WeekPart, split_address

Row = TypeVar("Row", bound=models.Model)
HEALTH_LOCK = 0x5357_4853  # held by who writes states of health, to the end of the transaction


def write_rows(row: PlanRow, plan: Plan, old: Plan | None, *, touched: Collection[int], actor: str) -> None:
    """Bring all rows of the plan to what `plan` says; `old` is what they say now.

    The versions of `touched` weeks grow. Sign-offs stay with prerequisites that promise the same as before; those of
    changed ones are withdrawn in the name of `actor`, those of removed ones go with them. What changed checks found is
    forgotten. Flags keep their weights.
    """
    otherwise = _plan(row, plan)
    weeks = {week.number: week for week in row.weeks.all()}
    services, counted = {service.key: service for service in row.services.all()}, plan.counted()
    for week in plan.weeks:
        weeks[week.number] = _week(row, weeks.get(week.number), week, grow=week.number in touched)
    for position, service in enumerate(plan.services):
        apart = counted.get(service.key, ())
        services[service.key], changed = _service(row, services.get(service.key), service, position, apart)
        otherwise += [service.key] if changed else []
    _create(Week, weeks.values())
    _create(Service, services.values())
    _forget_health(otherwise, "the plan has changed where or how it is polled")
    _flags(row, plan, weeks, services, first=old is None)
    _routes(row, plan, services)
    before = {week.number: checklist(week) for week in old.weeks} if old else {}
    _prerequisites(row, plan, weeks, before, actor)
    if old is not None:
        _remove(row, plan)
    for week in plan.weeks:
        if week.after or old is not None:
            weeks[week.number].after.set([weeks[number] for number in week.after])


def _save(instance: models.Model, values: dict[str, Any]) -> list[str]:
    """Set the values that differ, and save them of a row that is there. Returns the names of what differed."""
    changed = [name for name, value in values.items() if getattr(instance, name) != value]
    for name in changed:
        setattr(instance, name, values[name])
    if changed and not instance._state.adding:
        instance.save(update_fields=changed)
    return changed


def _create(model: type[Row], rows: Iterable[Row]) -> None:
    """Those of the rows that are not there yet, in one statement."""
    model._default_manager.bulk_create([row for row in rows if row._state.adding])


def _forget_health(targets: Collection[str], reason: str) -> None:
    """What was seen at another address, or by other rules, vouches for nothing: unknown until the next poll.

    From here to the end of the transaction no poll is stored, and then none that began under the old plan
    (observe.health): one that is stored at this very moment would bring the old state back.
    """
    if not targets:
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [HEALTH_LOCK])
    now = timezone.now()
    for row in HealthState.objects.filter(target__in=targets).order_by("target"):
        if row.state != Health.UNKNOWN:
            change = HealthChange(target=row.target, at=now, was=row.state, state=Health.UNKNOWN, reason=reason)
            change.save(force_insert=True)
        row.delete()


def forget_results(prerequisites: models.QuerySet[Prerequisite]) -> None:
    """What was found under other circumstances vouches for nothing: unknown until the next run."""
    for prerequisite in prerequisites.filter(result__isnull=False).select_related("result"):
        prerequisite.result.delete()


def _plan(row: PlanRow, plan: Plan) -> list[str]:
    """The target that is polled otherwise from now on, if it is."""
    host, port = split_address(plan.monolith.address)
    values = {
        "key": plan.plan.key,
        "title": plan.plan.title,
        "summary": plan.plan.summary,
        "timezone": plan.plan.timezone,
        "monolith_title": plan.monolith.title,
        "monolith_host": host,
        "monolith_port": port,
        "monolith_health_path": plan.monolith.health_path,
        "monolith_health": plan.monolith.health.row(),
        "sticky": plan.gateway.sticky.row() if plan.gateway.sticky else {},
    }
    changed = _save(row, values)
    _gateways(row, plan)
    polled = {"monolith_host", "monolith_port", "monolith_health_path", "monolith_health"}
    return [MONOLITH_TARGET] if polled & set(changed) else []


def _gateways(row: PlanRow, plan: Plan) -> None:
    """What was seen of a gateway that the plan has no more goes with it: no pass writes to it again."""
    gone = row.gateways.exclude(key__in=plan.gateway.keys)
    # Held first: what a pass writes of it at this very moment is in before that, and goes too, or is not written.
    list(gone.select_for_update().values_list("pk"))
    gone.delete()
    found = {gateway.key: gateway for gateway in row.gateways.all()}
    for key in sorted(plan.gateway.keys, key=lambda key: key == plan.gateway.key):  # there is one first one at most
        first = key == plan.gateway.key
        since = 0 if first else row.generation
        gateway = found.setdefault(key, Gateway(plan=row, key=key, since_generation=since))
        _save(gateway, {"adapter": plan.gateway.adapter, "first": first})
    _create(Gateway, found.values())


def _week(row: PlanRow, found: Week | None, week: WeekPart, *, grow: bool) -> Week:
    target, approvals = found or Week(plan=row, number=week.number), week.required_approvals
    values: dict[str, Any] = {
        "title": week.title,
        "risk": week.risk,
        "impact": week.impact,
        "owner": week.owner,
        "notes": week.notes,
        "planned_start": week.planned.start,
        "planned_end": week.planned.end,
        "soak": week.soak,
        "moves_traffic": week.moves_traffic,
        "approvals_needed": approvals.count,
        "approver_role": approvals.role if approvals.count else "",
        "approval_valid_for": approvals.valid_for,
        "triggers": triggers.rows(week.triggers),
        "downtime_under": week.downtime.under if week.downtime else None,
        "downtime_share": week.downtime.share if week.downtime else HALF,
    }
    if found is not None and grow:
        values["version"] = found.version + 1
    _save(target, values)
    return target


def _service(
    row: PlanRow, found: Service | None, service: ServicePart, position: int, apart: Sequence[Counted]
) -> tuple[Service, bool]:
    """With whether it is polled otherwise than before."""
    host, port = split_address(service.upstream)
    target = found or Service(plan=row, key=service.key)
    values = {
        "title": service.title,
        "area": service.area,
        "owner": service.owner,
        "host": host,
        "port": port,
        "health_path": service.health_path,
        "health": service.health.row(),
        "strip": service.strip,
        "timeout": service.timeout,
        "failover": service.failover and service.point_of_no_return is None,
        "point_of_no_return": service.point_of_no_return or "",
        "writes_from": service.writes_from,
        "rollout": service.rollout.row(),
        "triggers": triggers.rows(service.triggers),
        "counted": [asdict(one) for one in apart],
        "new_side_only": service.new_side_only,
        "position": position,
    }
    return target, bool({"host", "port", "health_path", "health"} & set(_save(target, values)))


def _flags(row: PlanRow, plan: Plan, weeks: dict[int, Week], services: dict[str, Service], *, first: bool) -> None:
    wanted = {service.flag: service for service in plan.services}
    week_of = {flag: week.number for week in plan.weeks for flag in week.flags}
    kept: dict[str, Flag] = {}
    for flag in row.flags.select_related("service", "week"):
        if flag.key in wanted and wanted[flag.key].key == flag.service.key:
            kept[flag.key] = flag
        else:
            flag.delete()  # it is off: `conflicts` refuses the load otherwise
    new: list[Flag] = []
    for key, service in wanted.items():
        week = weeks[week_of[key]]
        if key in kept:
            _save(kept[key], {"week": week})
            continue
        # The weight says where traffic already is when a plan is first loaded; later one rises only through a gate.
        weight = service.weight if first else 0
        owner = services[service.key]
        new.append(Flag(plan=row, key=key, service=owner, week=week, weight=weight, generation=row.generation))
    Flag.objects.bulk_create(new)


def _routes(row: PlanRow, plan: Plan, services: dict[str, Service]) -> None:
    wanted = {(prefix, service.key) for service in plan.services for prefix in service.routes}
    existing = {(route.prefix, route.service.key): route for route in row.routes.select_related("service")}
    # Deleted first: a prefix may move from one service to another.
    for pair in existing.keys() - wanted:
        existing[pair].delete()
    new = [Route(plan=row, service=services[key], prefix=prefix) for prefix, key in sorted(wanted - existing.keys())]
    Route.objects.bulk_create(new)


Checklist = dict[str, tuple[Phase, PrerequisitePart]]


def checklist(week: WeekPart) -> Checklist:
    """All lines of a week by their key: the prerequisites, and what it is done when."""
    lines = [(Phase.START, item) for item in week.prerequisites] + [(Phase.DONE, item) for item in week.done_criteria]
    return {item.key: (phase, item) for phase, item in lines}


def broken_promises(old: Checklist, new: Checklist) -> Iterator[str]:
    """Keys of the old lines whose sign-offs do not hold for the new ones."""
    for key, (phase, item) in old.items():
        if key not in new or new[key][0] != phase or not same_promise(item, new[key][1]):
            yield key


def _prerequisites(
    row: PlanRow, plan: Plan, weeks: Mapping[int, Week], before: Mapping[int, Checklist], actor: str
) -> None:
    found: dict[int, dict[str, Prerequisite]] = defaultdict(dict)
    for line in Prerequisite.objects.filter(week__plan=row).select_related("week"):
        found[line.week.number][line.key] = line
    for week in plan.weeks:
        number = week.number
        _lines(weeks[number], found[number], checklist(week), before.get(number, {}), actor)
    _create(Prerequisite, (line for lines in found.values() for line in lines.values()))


def _lines(week: Week, found: dict[str, Prerequisite], lines: Checklist, before: Checklist, actor: str) -> None:
    """Of one week; adds to `found` what is not there yet."""
    broken = set(broken_promises(before, lines))
    places = dict.fromkeys(Phase, 0)
    for key, (phase, item) in lines.items():
        target = found.setdefault(key, Prerequisite(week=week, key=key))
        if key in broken:
            target.sign_offs.filter(withdrawn_at=None).update(withdrawn_at=timezone.now(), withdrawn_by=actor)
        if key in before and not same_check(before[key][1], item):
            forget_results(Prerequisite.objects.filter(pk=target.pk))
        values = {
            "title": item.title,
            "help": item.help,
            "phase": phase,
            "kind": item.kind,
            "check_name": item.check or "",
            "parameters": item.parameters,
            "valid_for": item.valid_for,
            "position": places[phase],
        }
        _save(target, values)
        places[phase] += 1


def _remove(row: PlanRow, plan: Plan) -> None:
    """Take away what the plan no longer has. Flags and routes have let go of it by now."""
    kept = {(week.number, key) for week in plan.weeks for key in checklist(week)}
    for prerequisite in Prerequisite.objects.filter(week__plan=row).select_related("week"):
        if (prerequisite.week.number, prerequisite.key) not in kept:
            SignOff.objects.filter(prerequisite=prerequisite).delete()
            prerequisite.delete()
    gone = row.weeks.exclude(number__in=[week.number for week in plan.weeks])
    # Who asked, answered and overrode stays in the audit log.
    Approval.objects.filter(request__week__in=gone).delete()
    ApprovalRequest.objects.filter(week__in=gone).delete()
    Override.objects.filter(week__in=gone).delete()
    gone.delete()
    services = list(row.services.exclude(key__in=[service.key for service in plan.services]))
    _forget_health([service.key for service in services], "it is no longer in the plan")
    for service in services:
        service.delete()
