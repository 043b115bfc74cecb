"""Loads what a verdict rests on, for any number of weeks, in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.postgres.aggregates import ArrayAgg
from django.db.models import Exists, F, FilteredRelation, OuterRef, Q
from django.utils import timezone

from migrations_app.choices import CheckState, Decision, Health, Phase, WeekStatus
from migrations_app.gateways.base import SERVICE_WEIGHT, Address
from migrations_app.models import (
    Approval,
    ApprovalRequest,
    Flag,
    Freeze,
    HealthState,
    Override,
    Prerequisite,
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
    """Week number -> what its verdict rests on. Columns and few questions: a click waits for this."""
    now = now or timezone.now()
    numbers = Q() if weeks is None else Q(number__in=weeks)
    rows = list(Week.objects.select_related("plan").filter(numbers).annotate(**_there_is()))
    if not rows:
        return {}
    seldom = _seldom(rows, phase, weight, now)
    whole = _flags()
    health = _health(now, whole.titles)
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
    """Target -> (state, error). A state that no poll has confirmed for HEALTH_STALE_AFTER seconds is unknown.

    So is one that lies as far in the future, from before the clock was put back, until the next poll.
    """
    return {target: (state, error) for target, (state, error, _) in _states(now or timezone.now()).items()}


def _states(now: datetime) -> dict[str, tuple[Health, str, datetime]]:
    stale = timedelta(seconds=settings.HEALTH_STALE_AFTER)
    found = {}
    for row in HealthState.objects.all():
        if now - row.polled_at > stale:
            age = int((now - row.polled_at).total_seconds())
            found[row.target] = (Health.UNKNOWN, f"the last poll was {age} s ago", row.polled_at)
        elif row.polled_at - now > stale:
            found[row.target] = (Health.UNKNOWN, "no poll since the clock was put back", now)
        else:
            found[row.target] = (Health(row.state), row.error, row.since)
    return found


def _there_is() -> dict[str, Exists]:
    """Whether there is any of what most weeks do not have."""
    open_request = ApprovalRequest.objects.filter(closed_at__isnull=True, spent_at__isnull=True)
    return {
        "has_request": Exists(open_request.filter(week=OuterRef("pk"))),
        "has_after": Exists(Week.after.through.objects.filter(from_week=OuterRef("pk"))),
        "has_freeze": Exists(Freeze.objects.filter(lifted_at__isnull=True)),
        "has_override": Exists(Override.objects.filter(week=OuterRef("pk"), ended_at__isnull=True)),
    }


@dataclass
class _Seldom:
    """What is only asked for where there is some, by the primary key of the week; `requests` also by flag keys."""

    after: dict[int, list[SeenWeek]] = field(default_factory=dict)
    requests: dict[tuple[int, tuple[str, ...]], SeenRequest] = field(default_factory=dict)
    freezes: tuple[SeenFreeze, ...] = ()
    overrides: dict[int, SeenOverride] = field(default_factory=dict)


def _seldom(rows: list[Any], phase: Phase, weight: int, now: datetime) -> _Seldom:
    if phase != Phase.START:
        return _Seldom()
    return _Seldom(
        after=_after([row.pk for row in rows]) if any(row.has_after for row in rows) else {},
        requests=_requests(rows, weight) if any(row.has_request for row in rows) else {},
        freezes=_freezes(now) if rows[0].has_freeze else (),
        overrides=_overrides(rows) if any(row.has_override for row in rows) else {},
    )


@dataclass
class _Flags:
    """The flags of the whole plan. `parts` is what `target` digests; `of_week` has flag key -> service key."""

    weights: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    of_week: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    parts: dict[int, list[list[Any]]] = field(default_factory=lambda: defaultdict(list))
    titles: dict[str, str] = field(default_factory=dict)


def _flags() -> _Flags:
    columns = ("week__number", "key", "weight", "service__key", "service__title", "service__host", "service__port")
    rows = (
        Flag.objects.annotate(prefixes=ArrayAgg("service__routes__prefix", filter=Q(service__routes__isnull=False)))
        .order_by("service__position", "key")
        .values_list(*columns, "service__strip", "service__health_path", "prefixes")
    )
    found = _Flags()
    for week, key, weight, service, title, host, port, strip, health_path, prefixes in rows:
        found.weights[week][key] = weight
        found.of_week[week][key] = service
        found.titles[service] = title
        part = [key, service, str(Address(host, port)), strip, health_path, sorted(prefixes or ())]
        found.parts[week].append(part)
    return found


def _health(now: datetime, titles: dict[str, str]) -> dict[str, SeenService]:
    """Every target that was polled, and every service, by key."""
    found = {
        target: SeenService(target, titles.get(target, target), state, error, since)
        for target, (state, error, since) in _states(now).items()
    }
    for key, title in titles.items():
        found.setdefault(key, SeenService(key, title, Health.UNKNOWN, "no poll yet"))
    return found


_SIGN_OFF = ("actor", "ticked_at", "note", "expires_at", "vouches_for")
_RESULT = ("state", "value", "limit", "act", "since", "checked_at", "asked")


def _prerequisites(phase: Phase, weeks: Collection[int] | None) -> dict[int, list[SeenPrerequisite]]:
    rows = Prerequisite.objects.filter(phase=phase)
    if weeks is not None:
        rows = rows.filter(week__number__in=weeks)
    live = FilteredRelation("sign_offs", condition=Q(sign_offs__withdrawn_at__isnull=True))
    found: dict[int, list[SeenPrerequisite]] = defaultdict(list)
    for row in rows.annotate(live=live).values(
        *("id", "key", "title", "help", "check_name", "parameters"),
        number=F("week__number"),
        **{f"sign_off_{name}": F(f"live__{name}") for name in _SIGN_OFF},
        **{f"result_{name}": F(f"result__{name}") for name in _RESULT},
    ):
        found[row["number"]].append(_seen(row))
    return found


def _seen(row: dict[str, Any]) -> SeenPrerequisite:
    sign_off = result = None
    if row["sign_off_ticked_at"] is not None:
        actor, at, note, expires_at, vouches_for = (row[f"sign_off_{name}"] for name in _SIGN_OFF)
        sign_off = SeenSignOff(actor, at, note, expires_at, vouches_for or None)
    asked = digest_of([row["check_name"], row["parameters"]])
    if row["result_state"] is not None and row["result_asked"] == asked:
        state, *rest = [row[f"result_{name}"] for name in _RESULT[:-1]]
        result = SeenResult(CheckState(state), *rest)
    return SeenPrerequisite(
        row["id"], row["key"], row["title"], row["help"], sign_off, row["check_name"], row["parameters"], result
    )


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


def _overrides(weeks: Iterable[Week]) -> dict[int, SeenOverride]:
    return {
        row.week_id: SeenOverride(frozenset(row.lines), row.actor, row.reason, row.expires_at, row.vouches_for)
        for row in Override.objects.filter(week__in=weeks, ended_at__isnull=True)
    }


def _requests(weeks: Iterable[Week], weight: int) -> dict[tuple[int, tuple[str, ...]], SeenRequest]:
    """The open requests for this weight, by week and flags, with who has answered and still has the role."""
    has_role = User.groups.through.objects.filter(
        user=OuterRef("account"), user__is_active=True, group__name=OuterRef("request__week__approver_role")
    )
    requests = ApprovalRequest.objects.filter(
        week__in=weeks, weight=weight, closed_at__isnull=True, spent_at__isnull=True
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
        )
        for row in requests
    }
