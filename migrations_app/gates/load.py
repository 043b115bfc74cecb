"""Loads what a verdict rests on, for any number of weeks, in a fixed number of queries."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from migrations_app.choices import CheckState, Decision, Health, Phase, WeekStatus
from migrations_app.gateways.base import SERVICE_WEIGHT, Address
from migrations_app.models import (
    Approval,
    ApprovalRequest,
    Freeze,
    HealthState,
    Override,
    Week,
)

from .checks import INSTANT
from .freezes import span_at
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
from .target import NOTHING, digest_of
from .verdict import Verdict, judge, judge_done


@dataclass(frozen=True, slots=True)
class Read:
    """What a page has read already, and a verdict rests on too: all weeks, with their plan, and all health states."""

    weeks: Sequence[Week]
    health: Sequence[HealthState]


def verdicts(
    *,
    weeks: Collection[int] | None = None,
    flags: Collection[str] | None = None,
    weight: int = SERVICE_WEIGHT,
    now: datetime | None = None,
    read: Read | None = None,
) -> dict[int, Verdict]:
    """Week number -> verdict on starting it, for all weeks of the plan or the ones named.

    With `flags`, of the change that moves only these flags of the week: their services alone must be healthy, and an
    approval must be for just them. `weight`, in per cent, is what the change moves them to.
    """
    found = snapshots(Phase.START, weeks=weeks, flags=flags, weight=weight, now=now, read=read)
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
    read: Read | None = None,
) -> dict[int, Snapshot]:
    """Week number -> what its verdict rests on. Columns and few questions: a click waits for this."""
    now = now or timezone.now()
    if read is None:
        numbers = Q() if weeks is None else Q(number__in=weeks)
        read = Read(list(Week.objects.select_related("plan").filter(numbers)), list(HealthState.objects.all()))
    rows = [row for row in read.weeks if weeks is None or row.number in weeks]
    if not rows:
        return {}
    seldom = _seldom([row.pk for row in rows], phase, weight, now)
    whole = _flags()
    health = _health(states_at(now, read.health), whole.titles)
    prerequisites = _prerequisites(phase, weeks)
    found = {}
    for row in rows:
        number = row.number
        own = whole.of_week.get(number, {})
        asked = [key for key in own if flags is None or key in flags]
        found[number] = Snapshot(
            week=number,
            now=now,
            prerequisites=tuple(prerequisites[number]),
            services=tuple(health[own[key]] for key in asked),
            weights=whole.weights,
            health=health,
            target=digest_of(sorted(whole.parts[number])) if number in whole.parts else NOTHING,
            revision=row.plan.revision,
            time_scale=row.plan.time_scale,
            stale_after=timedelta(seconds=settings.CHECK_STALE_AFTER),
            own=_seen_week(row),
            after=tuple(seldom.after.get(row.pk, ())),
            approvals_needed=row.approvals_needed,
            approver_role=row.approver_role,
            request=seldom.requests.get((row.pk, tuple(sorted(asked)))),
            freezes=seldom.freezes,
            override=seldom.overrides.get(row.pk),
        )
    return found


def current_health(now: datetime | None = None) -> dict[str, tuple[Health, str]]:
    """Target -> (state, error). A state that no poll has confirmed for HealthState.trusted_for is unknown.

    So is one that lies as far in the future, from before the clock was put back, until the next poll.
    """
    found = states_at(now or timezone.now(), HealthState.objects.all())
    return {target: (state, error) for target, (state, error, _) in found.items()}


def states_at(now: datetime, rows: Iterable[HealthState]) -> dict[str, tuple[Health, str, datetime]]:
    """As `current_health`, of rows that were read already, and since when it is so."""
    found = {}
    for row in rows:
        stale = row.trusted_for
        if now - row.polled_at > stale:
            age = int((now - row.polled_at).total_seconds())
            found[row.target] = (Health.UNKNOWN, f"the last poll was {age} s ago", row.polled_at)
        elif row.polled_at - now > stale:
            found[row.target] = (Health.UNKNOWN, "no poll since the clock was put back", now)
        else:
            found[row.target] = (Health(row.state), row.error, row.since)
    return found


# Whether there is any, for these weeks, of what most of them do not have.
_THERE_IS = """
    SELECT
        EXISTS (SELECT FROM migrations_app_week_after WHERE from_week_id = ANY(%(weeks)s)),
        EXISTS (SELECT FROM migrations_app_approvalrequest
                WHERE week_id = ANY(%(weeks)s) AND closed_at IS NULL AND spent_at IS NULL),
        EXISTS (SELECT FROM migrations_app_freeze WHERE lifted_at IS NULL),
        EXISTS (SELECT FROM migrations_app_override WHERE week_id = ANY(%(weeks)s) AND ended_at IS NULL)
"""


@dataclass
class _Seldom:
    """What is only asked for where there is some, by the primary key of the week; `requests` also by flag keys."""

    after: dict[int, list[SeenWeek]] = field(default_factory=dict)
    requests: dict[tuple[int, tuple[str, ...]], SeenRequest] = field(default_factory=dict)
    freezes: tuple[SeenFreeze, ...] = ()
    overrides: dict[int, SeenOverride] = field(default_factory=dict)


def _seldom(weeks: list[int], phase: Phase, weight: int, now: datetime) -> _Seldom:
    """`weeks` are primary keys."""
    if phase != Phase.START:
        return _Seldom()
    [(any_after, any_request, any_freeze, any_override)] = _rows(_THERE_IS, {"weeks": weeks})
    return _Seldom(
        after=_after(weeks) if any_after else {},
        requests=_requests(weeks, weight) if any_request else {},
        freezes=_freezes(now) if any_freeze else (),
        overrides=_overrides(weeks) if any_override else {},
    )


@dataclass
class _Flags:
    """The flags of the whole plan. `parts` is what `target` digests; `of_week` has flag key -> service key."""

    weights: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    of_week: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    parts: dict[int, list[list[Any]]] = field(default_factory=lambda: defaultdict(list))
    titles: dict[str, str] = field(default_factory=dict)


# To put these two together anew for each click would take the ORM longer than PostgreSQL takes to answer them.
_FLAGS = """
    SELECT week.number, flag.key, flag.weight, service.key, service.title, service.host, service.port, service.strip,
        service.health_path,
        ARRAY(SELECT prefix FROM migrations_app_route WHERE service_id = service.id ORDER BY prefix COLLATE "C")
    FROM migrations_app_flag AS flag
    JOIN migrations_app_week AS week ON week.id = flag.week_id
    JOIN migrations_app_service AS service ON service.id = flag.service_id
    ORDER BY service.position, flag.key
"""
_PREREQUISITES = """
    SELECT week.number, line.id, line.key, line.title, line.help, line.check_name, line.parameters,
        sign_off.actor, sign_off.ticked_at, sign_off.note, sign_off.expires_at, sign_off.vouches_for,
        result.state, result.value, result.limit, result.act, result.since, result.checked_at, result.asked
    FROM migrations_app_prerequisite AS line
    JOIN migrations_app_week AS week ON week.id = line.week_id
    LEFT JOIN migrations_app_signoff AS sign_off
        ON sign_off.prerequisite_id = line.id AND sign_off.withdrawn_at IS NULL
    LEFT JOIN migrations_app_checkresult AS result ON result.prerequisite_id = line.id
    WHERE line.phase = %s AND (%s::integer[] IS NULL OR week.number = ANY(%s))
    ORDER BY week.number, line.position
"""


def _flags() -> _Flags:
    found = _Flags()
    for week, key, weight, service, title, host, port, strip, health_path, prefixes in _rows(_FLAGS):
        found.weights[week][key] = weight
        found.of_week[week][key] = service
        found.titles[service] = title
        found.parts[week].append([key, service, str(Address(host, port)), strip, health_path, prefixes])
    return found


def _rows(sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def _health(states: Mapping[str, tuple[Health, str, datetime]], titles: dict[str, str]) -> dict[str, SeenService]:
    """Every target that was polled, and every service, by key."""
    found = {
        target: SeenService(target, titles.get(target, target), state, error, since)
        for target, (state, error, since) in states.items()
    }
    for key, title in titles.items():
        found.setdefault(key, SeenService(key, title, Health.UNKNOWN, "no poll yet"))
    return found


def _prerequisites(phase: Phase, weeks: Collection[int] | None) -> dict[int, list[SeenPrerequisite]]:
    numbers = None if weeks is None else list(weeks)
    found: dict[int, list[SeenPrerequisite]] = defaultdict(list)
    for number, *row in _rows(_PREREQUISITES, [phase, numbers, numbers]):
        found[number].append(_seen(row))
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


def _after(weeks: list[int]) -> dict[int, list[SeenWeek]]:
    """Primary key of a week -> the weeks that come before it."""
    found: dict[int, list[SeenWeek]] = defaultdict(list)
    rows = Week.after.through.objects.filter(from_week__in=weeks).select_related("to_week__plan")
    for row in rows.order_by("to_week__number"):
        found[row.from_week_id].append(_seen_week(row.to_week))
    return found


def _freezes(now: datetime) -> tuple[SeenFreeze, ...]:
    rows = Freeze.objects.filter(lifted_at__isnull=True)
    return tuple(SeenFreeze(row.pk, row.title, *span) for row in rows if (span := span_at(row, now)))


def _overrides(weeks: Iterable[int]) -> dict[int, SeenOverride]:
    return {
        row.week_id: SeenOverride(frozenset(row.lines), row.actor, row.reason, row.expires_at, row.vouches_for)
        for row in Override.objects.filter(week__in=weeks, ended_at__isnull=True)
    }


def _requests(weeks: Iterable[int], weight: int) -> dict[tuple[int, tuple[str, ...]], SeenRequest]:
    """The open requests for this weight or more, by week and flags, with who has answered and still has the role."""
    has_role = User.groups.through.objects.filter(
        user=OuterRef("account"), user__is_active=True, group__name=OuterRef("request__week__approver_role")
    )
    requests = ApprovalRequest.objects.filter(
        week__in=weeks, weight__gte=weight, closed_at__isnull=True, spent_at__isnull=True
    )
    answers: dict[int, list[SeenApproval]] = defaultdict(list)
    for one in Approval.objects.filter(request__in=requests, withdrawn_at__isnull=True).annotate(
        counts=Exists(has_role)
    ):
        answers[one.request_id].append(SeenApproval(one.actor, Decision(one.decision), one.at, one.counts))
    return {
        (row.week_id, tuple(row.flags)): SeenRequest(
            row.pk,
            row.actor,
            row.asked_at,
            row.expires_at,
            row.revision,
            row.vouches_for,
            tuple(answers[row.pk]),
            row.used_at is not None,
        )
        for row in requests
    }
