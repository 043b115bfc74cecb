"""What triggers judge, read for all of them at once: the questions are as many with one trigger as with hundreds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from migrations_app.durations import in_words
from migrations_app.gates.triggers import (
    Judged,
    Measured,
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
from migrations_app.models.windows import RouteSeen, RouteWindow, Seen, Window, routes_in, traffic_in
from migrations_app.observe.queries import asked_of
from migrations_app.observe.watched import Watched
from migrations_app.planfile.triggers import (
    AnswersTrigger,
    AnyTrigger,
    ErrorTrigger,
    FailoverTrigger,
    HealthTrigger,
    LatencyTrigger,
    QueryTrigger,
)

SEEN_LATELY = timedelta(seconds=5)
Key = tuple[int | None, int | None, str]  # primary key of a flag or of a week, and a trigger's own
Asked = tuple[Watched, TriggerState | None, AnyTrigger]


def key_of(subject: Watched, trigger: AnyTrigger) -> Key:
    return (None, subject.week.pk, trigger.key) if subject.week else (subject.flags[0].pk, None, trigger.key)


class Measures:
    """Answers what `asked` needs, at `now`. Of a week, its services together: requests, errors, response times."""

    def __init__(self, asked: Sequence[Asked], now: datetime) -> None:
        self._now = now
        self._baselines: dict[Key, Share] = {}
        kinds = {type(trigger) for _, _, trigger in asked}
        self._traffic = self._read_traffic(asked)
        self._polls = _read_polls(asked) if HealthTrigger in kinds else {}
        self._gateways = list(Gateway.objects.all()) if FailoverTrigger in kinds else []
        self._routes = self._read_routes(asked) if AnswersTrigger in kinds else {}
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
        new = self._of(subject, trigger, Side.SERVICE)
        if isinstance(trigger, ErrorTrigger):
            return judge_errors(new, above=trigger.above, window=trigger.window, requests=trigger.requests)
        old = Measured() if trigger.times is None else self._of(subject, trigger, Side.MONOLITH)
        return judge_latency(
            new,
            old,
            above=trigger.above,
            times=trigger.times,
            window=trigger.window,
            requests=trigger.requests,
            slower_ms=trigger.slower_ms,
        )

    def baseline(self, subject: Watched, trigger: AnyTrigger) -> list[int] | None:
        """Requests, and how many of them counted, in the window before the weight was changed; None for most kinds."""
        found = self._baselines.get(key_of(subject, trigger))
        return [found.requests, found.counted] if found else None

    # -- Reading ------------------------------------------------------------------------------------------------------

    def _since(self, trigger: ErrorTrigger | LatencyTrigger | AnswersTrigger) -> datetime:
        return self._now - trigger.window

    def _windows(self, subject: Watched, trigger: ErrorTrigger | LatencyTrigger, side: Side) -> list[Window]:
        since = self._since(trigger)
        return [Window(service, side, since, subject.begun) for service in subject.services]

    def _read_traffic(self, asked: Sequence[Asked]) -> dict[Window, Seen]:
        plain, timed = list[Window](), list[Window]()
        for subject, _, trigger in asked:
            if isinstance(trigger, ErrorTrigger):
                plain += self._windows(subject, trigger, Side.SERVICE)
            elif isinstance(trigger, LatencyTrigger):
                timed += self._windows(subject, trigger, Side.SERVICE)
                if trigger.times is not None:
                    timed += self._windows(subject, trigger, Side.MONOLITH)
        return traffic_in(plain, self._now, timed=timed)

    def _read_routes(self, asked: Sequence[Asked]) -> Mapping[RouteWindow, RouteSeen]:
        """Also what the baselines need, where they are not known yet."""
        windows, unknown = list[RouteWindow](), list[tuple[Watched, AnswersTrigger]]()
        for subject, state, trigger in asked:
            if not isinstance(trigger, AnswersTrigger):
                continue
            windows += self._route_windows(subject, trigger)
            if trigger.times is None:
                continue
            if state and state.generation == subject.generation and state.baseline:
                self._baselines[key_of(subject, trigger)] = Share(*state.baseline)
            else:
                windows += _before(subject, trigger)
                unknown.append((subject, trigger))
        found = routes_in(windows)
        for subject, trigger in unknown:
            self._baselines[key_of(subject, trigger)] = _share(
                trigger, [found[one] for one in _before(subject, trigger)]
            )
        return found

    def _route_windows(self, subject: Watched, trigger: AnswersTrigger) -> list[RouteWindow]:
        since, begun = self._since(trigger), subject.begun
        return [RouteWindow(one, trigger.counted, Side.SERVICE, since, self._now, begun) for one in subject.services]

    # -- Judging ------------------------------------------------------------------------------------------------------

    def _of(self, subject: Watched, trigger: ErrorTrigger | LatencyTrigger, side: Side) -> Measured:
        seen = [self._traffic[window] for window in self._windows(subject, trigger, side)]
        latency = [sum(answers) for answers in zip(*(one.latency or NO_LATENCY for one in seen), strict=True)]
        return Measured(sum(one.requests for one in seen), sum(one.errors for one in seen), latency)

    def _health(self, subject: Watched, trigger: HealthTrigger) -> Judged:
        """Of a week: the service that has failed the most polls in a row."""
        worst: tuple[int, int, str] = (0, 0, "")
        for flag in subject.flags:
            polls = self._polls.get((flag.service.key, subject.begun), ())[: trigger.failures]
            failed = next((place for place, (healthy, _) in enumerate(polls) if healthy is not False), len(polls))
            error = polls[0][1] if polls else ""
            if subject.week and error:
                error = f"{flag.service.title} {error}"
            worst = max(worst, (failed, len(polls), error))
        failed, polls_seen, error = worst
        return judge_health(failed, polls_seen, failures=trigger.failures, last_error=error)

    def _failing_over(self, subject: Watched) -> str | None:
        """One gateway that tells it is enough; that none does, all have to tell."""
        rows = self._gateways
        seen = [row for row in rows if row.observed_at is not None and self._now - row.observed_at <= SEEN_LATELY]
        for flag in subject.flags:
            for row in seen:
                if why := row.failing_over.get(flag.service.key):
                    return f"{flag.service.title}: {why}" if subject.week else why
        return "" if len(seen) == len(rows) else None

    def _answered(self, subject: Watched, trigger: AnswersTrigger) -> Judged:
        new = _share(trigger, [self._routes[window] for window in self._route_windows(subject, trigger)])
        return judge_answers(
            new,
            self._baselines.get(key_of(subject, trigger), Share(0, 0)),
            codes=f"{' or '.join(map(str, trigger.codes))} of {trigger.counted}",
            above=trigger.above,
            times=trigger.times,
            window=trigger.window,
            requests=trigger.requests,
        )

    def _queried(self, subject: Watched, trigger: QueryTrigger) -> Judged:
        row = self._answers.get(key_of(subject, trigger))
        limits = [f"at most {trigger.above:g}"] if trigger.above is not None else []
        limits += [f"at least {trigger.below:g}"] if trigger.below is not None else []
        value, error, past = None, "", None
        if row is not None and row.at > subject.begun and row.asked == asked_of(trigger):
            age = self._now - row.at
            if age > timedelta(seconds=3 * settings.QUERY_INTERVAL):
                error = f"not asked for {in_words(age)}"
            else:
                value, error = row.value, row.error
                past = row.at - max(row.past_since, subject.begun) if row.past_since else None
        return judge_query(value, error, past, limits=" and ".join(limits), window=trigger.window)


def _before(subject: Watched, trigger: AnswersTrigger) -> list[RouteWindow]:
    """The window before the last change of weight, on both sides together."""
    moved = max((flag.changed_at for flag in subject.flags if flag.changed_at), default=subject.begun)
    return [RouteWindow(one, trigger.counted, None, moved - trigger.window, moved) for one in subject.services]


def _share(trigger: AnswersTrigger, seen: Collection[RouteSeen]) -> Share:
    return Share(sum(one.requests for one in seen), sum(one.count(trigger.codes) for one in seen))


def _read_polls(asked: Sequence[Asked]) -> Mapping[tuple[str, datetime], Sequence[tuple[bool | None, str]]]:
    """Target, and since when -> the last polls after that, the newest first; as many as any trigger looks at."""
    wanted = {
        (flag.service.key, subject.begun): 0
        for subject, _, trigger in asked
        if isinstance(trigger, HealthTrigger)
        for flag in subject.flags
    }
    most = max(trigger.failures for _, _, trigger in asked if isinstance(trigger, HealthTrigger))
    found: dict[tuple[str, datetime], list[tuple[bool | None, str]]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT wanted.target, wanted.since, poll.healthy, poll.error
            FROM unnest(%s::text[], %s::timestamptz[]) AS wanted (target, since)
            CROSS JOIN LATERAL (
                SELECT polled_at, healthy, error FROM migrations_app_healthsample
                WHERE target = wanted.target AND polled_at > wanted.since ORDER BY polled_at DESC LIMIT %s
            ) AS poll ORDER BY poll.polled_at DESC
            """,
            [[target for target, _ in wanted], [since for _, since in wanted], most],
        )
        for target, since, healthy, error in cursor.fetchall():
            found[target, since].append((healthy, error))
    return found
