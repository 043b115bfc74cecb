"""What triggers judge, read for all of them at once: the questions are as many with one trigger as with hundreds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from django.conf import settings
from django.db import connection

from migrations_app.choices import Breach
from migrations_app.durations import in_words
from migrations_app.gates.triggers import (
    Judged,
    Measured,
    Pace,
    Polls,
    Share,
    judge_answers,
    judge_errors,
    judge_failover,
    judge_health,
    judge_latency,
    judge_query,
)
from migrations_app.gateways.base import NO_LATENCY, Side
from migrations_app.models import Gateway, QueryAnswer, TriggerState
from migrations_app.models.health import trusted_for
from migrations_app.models.windows import RouteSeen, RouteWindow, Seen, Window, routes_in, traffic_in
from migrations_app.observe.queries import MISSED, asked_of
from migrations_app.observe.watched import Key, Watched
from migrations_app.planfile.triggers import (
    AnswersTrigger,
    AnyTrigger,
    ErrorTrigger,
    FailoverTrigger,
    HealthTrigger,
    LatencyTrigger,
    QueryTrigger,
)

JUST_NOW = timedelta(minutes=1)  # how far back polls are looked at after a clock was put back
_ORDER = (Breach.OK, Breach.NO_DATA, Breach.BREACHED)  # the last one of a week's services stands for it
Baseline = list[int]  # as TriggerState has it
Compares = AnswersTrigger | LatencyTrigger  # by `times`


@dataclass(frozen=True, slots=True)
class Asked:
    """One trigger, its rule (planfile.triggers.rule_of), and what was found `before`, at the last look, if any."""

    subject: Watched
    trigger: AnyTrigger
    rule: str
    before: TriggerState | None

    @property
    def same_rule(self) -> bool:
        return self.before is not None and self.before.rule == self.rule

    @property
    def same(self) -> bool:
        """Whether it was looked at by this rule, at this weight."""
        return self.same_rule and self.before is not None and self.before.generation == self.subject.generation


class Measures:
    """Answers what `asked` needs, at `now`. Of a week, its services together: requests, errors, response times."""

    def __init__(self, asked: Sequence[Asked], now: datetime) -> None:
        self._now = now
        kinds = {type(one.trigger) for one in asked}
        self._traffic = self._read_traffic(asked)
        self._polls = _read_polls(asked, now) if HealthTrigger in kinds else {}
        self._gateways = list(Gateway.objects.all()) if FailoverTrigger in kinds else []
        new = [one for one in asked if _compares(one.trigger) and not (one.same and one.before and one.before.baseline)]
        self._routes = self._read_routes(asked, new)
        self._baselines = self._read_baselines(asked, new)
        rows = QueryAnswer.objects.all() if QueryTrigger in kinds else QueryAnswer.objects.none()
        self._answers: dict[Key, QueryAnswer] = {(row.flag_id, row.week_id, row.key): row for row in rows}

    def judge(self, subject: Watched, trigger: AnyTrigger) -> Judged:
        match trigger:
            case HealthTrigger():
                return self._health(subject, trigger)
            case FailoverTrigger():
                return judge_failover(self._failing_over(subject))
            case AnswersTrigger():
                return self._answered(subject, trigger)
            case QueryTrigger():
                return self._queried(subject, trigger)
            case ErrorTrigger():
                return self._failed(subject, trigger)
            case LatencyTrigger():
                return self._slow(subject, trigger)

    def baseline(self, subject: Watched, trigger: AnyTrigger) -> Baseline | None:
        """As TriggerState has it; None for what compares with nothing."""
        return self._baselines.get(subject.key_of(trigger))

    # -- Reading ------------------------------------------------------------------------------------------------------

    def _windows(self, subject: Watched, trigger: ErrorTrigger | LatencyTrigger, side: Side) -> list[Window]:
        since, begun = self._now - trigger.window, subject.begun_by(self._now, trigger.window)
        return [Window(service, side, since, begun) for service in subject.services]

    def _read_traffic(self, asked: Sequence[Asked]) -> dict[Window, Seen]:
        plain, timed = list[Window](), list[Window]()
        for one in asked:
            if isinstance(one.trigger, ErrorTrigger):
                plain += self._windows(one.subject, one.trigger, Side.SERVICE)
            elif isinstance(one.trigger, LatencyTrigger):
                timed += self._windows(one.subject, one.trigger, Side.SERVICE)
                if one.trigger.times is not None:
                    timed += self._windows(one.subject, one.trigger, Side.MONOLITH)
        return traffic_in(plain, self._now, timed=timed)

    def _read_routes(self, asked: Sequence[Asked], new: Iterable[Asked]) -> Mapping[RouteWindow, RouteSeen]:
        """Also what the baselines need that are `new`."""
        windows = list[RouteWindow]()
        for one in asked:
            if isinstance(one.trigger, AnswersTrigger):
                windows += self._route_windows(one.subject, one.trigger)
        for one in new:
            if isinstance(one.trigger, AnswersTrigger):
                windows += _routes_before(one.subject, one.trigger)
        return routes_in(windows)

    def _route_windows(self, subject: Watched, trigger: AnswersTrigger) -> list[RouteWindow]:
        since, begun = self._now - trigger.window, subject.begun_by(self._now, trigger.window)
        return [RouteWindow(one, trigger.counted, Side.SERVICE, since, self._now, begun) for one in subject.services]

    def _read_baselines(self, asked: Sequence[Asked], new: Sequence[Asked]) -> dict[Key, Baseline]:
        """What is known stays; what is new and has too few requests, as near 100 %, leaves the one before in place."""
        found: dict[Key, Baseline] = {}
        for one in asked:
            if _compares(one.trigger) and one.same_rule and one.before and one.before.baseline:
                found[one.subject.key_of(one.trigger)] = one.before.baseline
        paces = _paces_before(new)
        for one in new:
            key = one.subject.key_of(one.trigger)
            if isinstance(one.trigger, AnswersTrigger):
                windows = _routes_before(one.subject, one.trigger)
                share = _share(one.trigger, [self._routes[window] for window in windows])
                read = [share.requests, share.counted]
            else:
                read = paces[key]
            if key not in found or read[0] >= _least(one.trigger):
                found[key] = read
        return found

    # -- Judging ------------------------------------------------------------------------------------------------------

    def _of(self, subject: Watched, trigger: ErrorTrigger | LatencyTrigger, side: Side) -> Measured:
        return _together(self._traffic[window] for window in self._windows(subject, trigger, side))

    def _failed(self, subject: Watched, trigger: ErrorTrigger) -> Judged:
        new = self._of(subject, trigger, Side.SERVICE)
        return judge_errors(new, above=trigger.above, window=trigger.window, requests=trigger.requests)

    def _slow(self, subject: Watched, trigger: LatencyTrigger) -> Judged:
        old, before = Measured(), Pace()
        if trigger.times is not None:
            old = self._of(subject, trigger, Side.MONOLITH)
            requests, microseconds = self.baseline(subject, trigger) or [0, 0]
            before = Pace(requests, microseconds / 1000)
        return judge_latency(
            self._of(subject, trigger, Side.SERVICE),
            old,
            before,
            above=trigger.above,
            times=trigger.times,
            window=trigger.window,
            requests=trigger.requests,
            slower_ms=trigger.slower_ms,
        )

    def _health(self, subject: Watched, trigger: HealthTrigger) -> Judged:
        """Of a week: the service that has failed the most polls in a row, unless nobody can tell of another."""
        found = []
        for flag in subject.running:
            polls = self._polls.get((flag.service.key, _polled_since(subject, self._now)))
            judged = judge_health(polls, failures=trigger.failures)
            place = _ORDER.index(judged.state), polls.failed if polls else 0
            found.append((place, flag.service.title, judged))
        _, title, judged = max(found, key=lambda one: one[0])
        if subject.week and judged.state != Breach.OK:
            return Judged(judged.state, f"{title}: {judged.value}", judged.limit)
        return judged

    def _failing_over(self, subject: Watched) -> str | None:
        """One gateway that tells it is enough; that none does, all have to tell."""
        rows = self._gateways
        seen = [row for row in rows if row.answers_at(self._now)]
        for flag in subject.running:
            for row in seen:
                if why := row.failing_over.get(flag.service.key):
                    return f"{flag.service.title}: {why}" if subject.week else why
        return "" if len(seen) == len(rows) else None

    def _answered(self, subject: Watched, trigger: AnswersTrigger) -> Judged:
        new = _share(trigger, [self._routes[window] for window in self._route_windows(subject, trigger)])
        return judge_answers(
            new,
            Share(*(self.baseline(subject, trigger) or [0, 0])),
            codes=f"{' or '.join(map(str, trigger.codes))} of {trigger.counted}",
            above=trigger.above,
            times=trigger.times,
            window=trigger.window,
            requests=trigger.requests,
        )

    def _queried(self, subject: Watched, trigger: QueryTrigger) -> Judged:
        row = self._answers.get(subject.key_of(trigger))
        limits = [f"at most {trigger.above:g}"] if trigger.above is not None else []
        limits += [f"at least {trigger.below:g}"] if trigger.below is not None else []
        value, error, past = None, "", None
        old_after = timedelta(seconds=MISSED * settings.QUERY_INTERVAL)
        begun = subject.begun_by(self._now, trigger.window + old_after)
        if row is not None and row.at > begun and row.asked == asked_of(trigger):
            age = self._now - row.at
            if age > old_after:
                error = f"not asked for {in_words(age)}"
            else:
                value, error = row.value, row.error
                past = row.at - max(row.past_since, begun) if row.past_since else None
        return judge_query(value, error, past, limits=" and ".join(limits), window=trigger.window)


def _compares(trigger: AnyTrigger) -> bool:
    return isinstance(trigger, Compares) and trigger.times is not None


def _least(trigger: AnyTrigger) -> int:
    """Requests that a baseline needs."""
    return trigger.requests if isinstance(trigger, Compares) else 0


def _routes_before(subject: Watched, trigger: AnswersTrigger) -> list[RouteWindow]:
    """The window before the last change of weight, of the old side alone: the new one may have been ill already."""
    since, counted = subject.moved - trigger.window, trigger.counted
    return [RouteWindow(flag.service_id, counted, Side.MONOLITH, since, subject.moved) for flag in subject.flags]


def _paces_before(new: Iterable[Asked]) -> dict[Key, Baseline]:
    """As `_routes_before`, of response times. Two questions for each moment at which a weight was changed."""
    windows: dict[datetime, dict[Key, list[Window]]] = defaultdict(dict)
    for one in new:
        if isinstance(one.trigger, LatencyTrigger):
            moved, key = one.subject.moved, one.subject.key_of(one.trigger)
            since = moved - one.trigger.window
            windows[moved][key] = [Window(flag.service_id, Side.MONOLITH, since) for flag in one.subject.flags]
    found = {}
    for moved, of in windows.items():
        seen = traffic_in((), moved, timed=[window for asked in of.values() for window in asked])
        for key, asked in of.items():
            pace = _together(seen[window] for window in asked).pace
            found[key] = [pace.requests, round(1000 * pace.p95)] if pace.p95 else [0, 0]
    return found


def _together(seen: Iterable[Seen]) -> Measured:
    all_of = list(seen)
    latency = [sum(answers) for answers in zip(*(one.latency or NO_LATENCY for one in all_of), strict=True)]
    return Measured(sum(one.requests for one in all_of), sum(one.errors for one in all_of), latency)


def _share(trigger: AnswersTrigger, seen: Collection[RouteSeen]) -> Share:
    return Share(sum(one.requests for one in seen), sum(one.count(trigger.codes) for one in seen))


def _polled_since(subject: Watched, now: datetime) -> datetime:
    return subject.begun_by(now, JUST_NOW)


def _read_polls(asked: Sequence[Asked], now: datetime) -> Mapping[tuple[str, datetime], Polls]:
    """Target, and since when -> the last polls after that, as many as any trigger looks at. Without any: nothing."""
    watching = [(one.subject, one.trigger) for one in asked if isinstance(one.trigger, HealthTrigger)]
    wanted = list(
        {(flag.service.key, _polled_since(subject, now)) for subject, _ in watching for flag in subject.running}
    )
    rows: dict[tuple[str, datetime], list[tuple[bool | None, str, datetime, float]]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT wanted.target, wanted.since, poll.healthy, poll.error, poll.polled_at, coalesce(state.stale_after, 0)
            FROM unnest(%s::text[], %s::timestamptz[]) AS wanted (target, since)
            CROSS JOIN LATERAL (
                SELECT polled_at, healthy, error FROM migrations_app_healthsample
                WHERE target = wanted.target AND polled_at > wanted.since AND polled_at <= %s
                ORDER BY polled_at DESC LIMIT %s
            ) AS poll
            LEFT JOIN migrations_app_healthstate AS state ON state.target = wanted.target
            ORDER BY poll.polled_at DESC
            """,
            [
                [target for target, _ in wanted],
                [since for _, since in wanted],
                now,
                max(trigger.failures for _, trigger in watching),
            ],
        )
        for target, since, *poll in cursor.fetchall():
            rows[target, since].append((poll[0], poll[1], poll[2], poll[3]))
    found = {}
    for key, polls in rows.items():
        healthy, error, polled_at, stale_after = polls[0]
        failed = sum(1 for _ in takewhile(lambda poll: poll[0] is False, polls))
        found[key] = Polls(healthy, error, failed, now - polled_at, trusted_for(stale_after))
    return found
