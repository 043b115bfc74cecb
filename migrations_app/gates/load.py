"""Loads what a verdict rests on, for any number of weeks, in a fixed number of queries."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

from django.conf import settings
from django.db.models.expressions import RawSQL
from django.utils import timezone

from migrations_app.choices import CheckState, Decision, Health, Phase, WeekStatus
from migrations_app.gateways.base import SERVICE_WEIGHT, Address
from migrations_app.models import Freeze, Override, Plan, Week

from .checks import INSTANT
from .freezes import span_at
from .rows import FlagRow, Scope, TargetHealth, fetched, flags_and_health
from .seen import (
    SeenApproval,
    SeenFreeze,
    SeenOverride,
    SeenPrerequisite,
    SeenRequest,
    SeenResult,
    SeenService,
    SeenSignOff,
    SeenWeek,
    Snapshot,
)
from .target import digest_of
from .verdict import Verdict, judge, judge_done


@dataclass(frozen=True)
class Gates:
    """What the gates of a plan rest on, read at one moment: what is asked of them here costs no further question.

    `weeks` are all weeks of the plan by their numbers, with the plan; `flags` all flags by the number of their week;
    `health` every target that was ever polled. When weeks were named, these are `asked`: the gates of no others can be
    told, and flags and health are there of them and of what their lines look at.
    """

    now: datetime
    weeks: Mapping[int, Week]
    flags: Mapping[int, Sequence[FlagRow]]
    health: Mapping[str, TargetHealth]
    lines: Mapping[tuple[str, int], Sequence[SeenPrerequisite]]
    seldom: Seldom
    asked: Sequence[int]

    def verdict(self, number: int, flags: Collection[str] | None = None) -> Verdict:
        """On starting the week or, with `flags`, on moving only these flags of it."""
        return judge(self.snapshot(Phase.START, number, flags), INSTANT)

    def done_verdict(self, number: int) -> Verdict:
        """On calling the week done."""
        return judge_done(self.snapshot(Phase.DONE, number), INSTANT)

    def snapshot(self, phase: Phase, number: int, flags: Collection[str] | None = None) -> Snapshot:
        if number not in self.asked:
            raise ValueError(f"week {number} was not loaded")
        week = self.weeks[number]
        asked = [flag for flag in self.flags.get(number, ()) if flags is None or flag.key in flags]
        seldom = self.seldom if phase == Phase.START else Seldom()
        return Snapshot(
            week=number,
            now=self.now,
            prerequisites=tuple(self.lines.get((phase.value, number), ())),
            services=tuple(self._seen[flag.service] for flag in asked),
            weights=self._weights,
            health=self._seen,
            target=self.target(number),
            revision=week.plan.revision,
            time_scale=week.plan.time_scale,
            stale_after=timedelta(seconds=settings.CHECK_STALE_AFTER),
            own=_seen_week(week),
            after=tuple(_seen_week(self.weeks[before]) for before in seldom.after.get(number, ())),
            approvals_needed=week.approvals_needed,
            approver_role=week.approver_role,
            request=seldom.requests.get((week.pk, tuple(sorted(flag.key for flag in asked)))),
            freezes=seldom.freezes,
            override=seldom.overrides.get(week.pk),
        )

    def target(self, number: int) -> str:
        """What the week is about to move, as one digest: that of `targets`."""
        if number not in self._targets:
            self._targets[number] = _digest(tuple(sorted(_part(flag) for flag in self.flags.get(number, ()))))
        return self._targets[number]

    @cached_property
    def _targets(self) -> dict[int, str]:
        """Those that were asked for: a page asks for a verdict on each service of a week, and all have the same one."""
        return {}

    @cached_property
    def _weights(self) -> dict[int, dict[str, int]]:
        return {number: {flag.key: flag.weight for flag in flags} for number, flags in self.flags.items()}

    @cached_property
    def _seen(self) -> dict[str, SeenService]:
        """Every target that was polled, and every service, by key."""
        titles = {flag.service: flag.title for flags in self.flags.values() for flag in flags}
        found = {
            target: SeenService(target, titles.get(target, target), one.state, one.error, one.since)
            for target, one in self.health.items()
        }
        for key, title in titles.items():
            if key not in found:
                found[key] = SeenService(key, title, Health.UNKNOWN, "no poll yet")
        return found


def load_gates(
    *phases: Phase,
    weeks: Collection[int] | None = None,
    service: str | None = None,
    weight: int = SERVICE_WEIGHT,
    now: datetime | None = None,
    plan: Plan | None = None,
) -> Gates:
    """The gates of all weeks, of the ones named or of that of a service. Few questions and columns: a click waits.

    `weight`, in per cent, is what a change moves flags to: an approval is for just that. `plan`: when it was read.
    """
    now = now or timezone.now()
    rows = _weeks(plan, service)
    asked = [row for row in rows if (weeks is None or row.number in weeks) and (service is None or row.has_service)]
    numbers = [row.number for row in asked]
    lines = _prerequisites(phases, numbers)
    scope = None if weeks is None and service is None else _scope_of(numbers, chain.from_iterable(lines.values()))
    flags, health = flags_and_health(now, scope)
    return Gates(
        now=now,
        weeks={row.number: row for row in rows},
        flags=flags,
        health=health,
        lines=lines,
        seldom=_seldom(asked, rows, weight, now) if Phase.START in phases else Seldom(),
        asked=numbers,
    )


def verdicts(
    *,
    weeks: Collection[int] | None = None,
    flags: Collection[str] | None = None,
    weight: int = SERVICE_WEIGHT,
    now: datetime | None = None,
) -> dict[int, Verdict]:
    """Week number -> verdict on starting it, for all weeks of the plan or the ones named.

    With `flags`, of the change that moves only these flags of the week: their services alone must be healthy, and an
    approval must be for just them. `weight`, in per cent, is what the change moves them to.
    """
    found = snapshots(Phase.START, weeks=weeks, flags=flags, weight=weight, now=now)
    return {number: judge(snapshot, INSTANT) for number, snapshot in found.items()}


def done_verdicts(*, weeks: Collection[int] | None = None, now: datetime | None = None) -> dict[int, Verdict]:
    """Week number -> verdict on calling it done."""
    found = snapshots(Phase.DONE, weeks=weeks, now=now)
    return {number: judge_done(snapshot, INSTANT) for number, snapshot in found.items()}


def snapshots(
    phase: Phase,
    *,
    weeks: Collection[int] | None = None,
    flags: Collection[str] | None = None,
    weight: int = SERVICE_WEIGHT,
    now: datetime | None = None,
) -> dict[int, Snapshot]:
    """Week number -> what its verdict rests on."""
    gates = load_gates(phase, weeks=weeks, weight=weight, now=now)
    return {number: gates.snapshot(phase, number, flags) for number in gates.asked}


# Of each week: which come before it, and whether there is of it what most do not have.
_OF_A_WEEK = {
    "before_it": "ARRAY(SELECT to_week_id FROM migrations_app_week_after WHERE from_week_id = migrations_app_week.id)",
    "has_request": """EXISTS (SELECT FROM migrations_app_approvalrequest
        WHERE week_id = migrations_app_week.id AND closed_at IS NULL AND spent_at IS NULL)""",
    "has_override": """EXISTS (SELECT FROM migrations_app_override
        WHERE week_id = migrations_app_week.id AND ended_at IS NULL)""",
    "frozen": "EXISTS (SELECT FROM migrations_app_freeze WHERE lifted_at IS NULL)",
}
_HAS_SERVICE = """EXISTS (
    SELECT FROM migrations_app_flag AS flag JOIN migrations_app_service AS service ON service.id = flag.service_id
    WHERE flag.week_id = migrations_app_week.id AND service.key = %s
)"""


def _weeks(plan: Plan | None, service: str | None) -> Sequence[Any]:
    """All of them, in order, with what is in _OF_A_WEEK and, for a service, whether it is in them."""
    # As expressions of the ORM these take longer to put in words than to answer. Constants, all of them.
    rows = Week.objects.select_related("downtime_clock")
    rows = rows.annotate(**{name: RawSQL(sql, ()) for name, sql in _OF_A_WEEK.items()})  # noqa: S611
    if service is not None:
        rows = rows.annotate(has_service=RawSQL(_HAS_SERVICE, [service]))  # noqa: S611
    if plan is None:
        # The document of a long plan takes longer to read than all the rest.
        return list(rows.select_related("plan").defer("plan__document"))
    for row in rows:
        row.plan = plan
    return list(rows)


@dataclass(frozen=True)
class Seldom:
    """What is only asked for where there is some.

    `after`: number of a week -> numbers of those before it. The others are by the primary key of the week, `requests`
    also by flag keys.
    """

    after: Mapping[int, Sequence[int]] = field(default_factory=dict)
    requests: Mapping[tuple[int, tuple[str, ...]], SeenRequest] = field(default_factory=dict)
    freezes: tuple[SeenFreeze, ...] = ()
    overrides: Mapping[int, SeenOverride] = field(default_factory=dict)


def _seldom(weeks: Sequence[Any], whole: Iterable[Week], weight: int, now: datetime) -> Seldom:
    """Of these `weeks`, as `_weeks` has them; `whole` are all of the plan."""
    numbers = {row.pk: row.number for row in whole}
    asked = [row.pk for row in weeks if row.has_request]
    overridden = [row.pk for row in weeks if row.has_override]
    return Seldom(
        after={row.number: sorted(numbers[before] for before in row.before_it) for row in weeks},
        requests=_requests(asked, weight) if asked else {},
        freezes=_freezes(now) if any(row.frozen for row in weeks) else (),
        overrides=_overrides(overridden) if overridden else {},
    )


_PREREQUISITES = """
    SELECT line.phase, week.number, line.id, line.key, line.title, line.help, line.check_name, line.parameters,
        sign_off.actor, sign_off.ticked_at, sign_off.note, sign_off.expires_at, sign_off.vouches_for,
        result.state, result.value, result.limit, result.act, result.since, result.checked_at, result.asked
    FROM migrations_app_prerequisite AS line
    JOIN migrations_app_week AS week ON week.id = line.week_id
    LEFT JOIN migrations_app_signoff AS sign_off
        ON sign_off.prerequisite_id = line.id AND sign_off.withdrawn_at IS NULL
    LEFT JOIN migrations_app_checkresult AS result ON result.prerequisite_id = line.id
    WHERE line.phase = ANY(%s) AND week.number = ANY(%s)
    ORDER BY week.number, line.position
"""
# The open requests for a weight, each with its answers, and whether who answered still has the role.
_REQUESTS = """
    SELECT request.week_id, request.id, request.flags, request.actor, request.asked_at, request.expires_at,
        request.revision, request.vouches_for, request.used_at IS NOT NULL,
        approval.actor, approval.decision, approval.at,
        EXISTS (
            SELECT FROM auth_user AS account
            JOIN auth_user_groups AS membership ON membership.user_id = account.id
            JOIN auth_group AS role ON role.id = membership.group_id
            WHERE account.id = approval.account_id AND account.is_active AND role.name = week.approver_role
        )
    FROM migrations_app_approvalrequest AS request
    JOIN migrations_app_week AS week ON week.id = request.week_id
    LEFT JOIN migrations_app_approval AS approval
        ON approval.request_id = request.id AND approval.withdrawn_at IS NULL
    WHERE request.week_id = ANY(%s) AND request.weight >= %s
        AND request.closed_at IS NULL AND request.spent_at IS NULL
    ORDER BY request.id, approval.at
"""


def _scope_of(weeks: Collection[int], lines: Iterable[SeenPrerequisite]) -> Scope | None:
    """Of these weeks and of what their lines name as gates.parameters has it; None for all of the plan."""
    named: set[int] = set(weeks)
    services: set[str] = set()
    for line in lines:
        if line.check not in INSTANT:
            continue
        if line.parameters.get("all"):
            return None
        # What a row that was written by hand names otherwise is not there: its check says that it makes no sense.
        named |= {number for number in _list(line.parameters.get("weeks")) if isinstance(number, int)}
        services |= {key for key in _list(line.parameters.get("services")) if isinstance(key, str)}
    return Scope(named, services)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _part(flag: FlagRow) -> tuple[Any, ...]:
    """What `target` digests of one flag."""
    return flag.key, flag.service, flag.host, flag.port, flag.strip, flag.health_path, tuple(flag.prefixes)


@lru_cache(maxsize=500)  # of weeks: they stay as they are until a plan is loaded
def _digest(parts: tuple[tuple[Any, ...], ...]) -> str:
    return digest_of([[flag, service, str(Address(host, port)), *more] for flag, service, host, port, *more in parts])


def _prerequisites(phases: Sequence[Phase], weeks: Sequence[int]) -> dict[tuple[str, int], list[SeenPrerequisite]]:
    """By phase and number of the week."""
    found: dict[tuple[str, int], list[SeenPrerequisite]] = defaultdict(list)
    for phase, number, *row in fetched(_PREREQUISITES, [[phase.value for phase in phases], weeks]):
        found[phase, number].append(_seen(row))
    return found


def _seen(row: Sequence[Any]) -> SeenPrerequisite:
    line, (signed_by, signed_at, note, expires_at, vouches_for), (state, *rest, asked) = row[:6], row[6:11], row[11:]
    identity, key, title, help_text, check, parameters = *line[:5], json.loads(line[5])
    sign_off = SeenSignOff(signed_by, signed_at, note, expires_at, vouches_for or None) if signed_at else None
    result = None
    if state is not None and asked == digest_of([check, parameters]):
        result = SeenResult(CheckState(state), *rest)
    return SeenPrerequisite(identity, key, title, help_text, sign_off, check, parameters, result)


def _seen_week(row: Week) -> SeenWeek:
    return SeenWeek(
        row.number,
        row.title,
        WeekStatus(row.status),
        row.plan.scaled(row.soak),
        row.soak_started_at,
        row.soak_stopped_because,
    )


def _freezes(now: datetime) -> tuple[SeenFreeze, ...]:
    rows = Freeze.objects.filter(lifted_at__isnull=True)
    return tuple(SeenFreeze(row.pk, row.title, *span) for row in rows if (span := span_at(row, now)))


def _overrides(weeks: Iterable[int]) -> dict[int, SeenOverride]:
    return {
        row.week_id: SeenOverride(frozenset(row.lines), row.actor, row.reason, row.expires_at, row.vouches_for)
        for row in Override.objects.filter(week__in=weeks, ended_at__isnull=True)
    }


def _requests(weeks: list[int], weight: int) -> dict[tuple[int, tuple[str, ...]], SeenRequest]:
    """By primary key of the week, and flags. `weeks` are primary keys."""
    found: dict[int, tuple[int, tuple[str, ...], SeenRequest]] = {}
    answers: dict[int, list[SeenApproval]] = defaultdict(list)
    for row in fetched(_REQUESTS, [weeks, weight]):
        week, pk, flags, asked_by, asked_at, expires_at, revision, vouches_for, used, actor, decision, at, counts = row
        request = SeenRequest(pk, asked_by, asked_at, expires_at, revision, vouches_for, used=used)
        found[pk] = week, tuple(json.loads(flags)), request
        if actor is not None:
            answers[pk].append(SeenApproval(actor, Decision(decision), at, counts))
    return {
        (week, flags): replace(request, approvals=tuple(answers[pk])) for pk, (week, flags, request) in found.items()
    }
