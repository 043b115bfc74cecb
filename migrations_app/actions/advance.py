"""Takes rollouts to their next step, or back, as what is observed says. Level-triggered: asked every second."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.choices import Health, RolloutState
from migrations_app.durations import in_words
from migrations_app.errors import ActionError, Busy, GateClosed, NotFound, Stale
from migrations_app.gates.percentile import percentile
from migrations_app.gates.rows import current_health
from migrations_app.gates.steps import SeenStep, StepVerdict, judge_step
from migrations_app.gateways.base import Side
from migrations_app.models import Gateway, Rollout
from migrations_app.models.gateways import begun_at, verified_at
from migrations_app.models.traffic import latency_of, requests_of

from .flags import roll_back_flag
from .rollouts import finish_rollout, holds_for, pause_rollout, step_to, steps_of

logger = logging.getLogger(__name__)
# What comes of a row that makes no sense; whatever else goes wrong is wrong with all of them.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def look_at_rollouts(now: datetime | None = None) -> tuple[list[str], list[Rollout]]:
    """One look at every rollout under way, also at paused ones: what has failed is moved back, or paused, at once.

    The keys of the flags whose rollout that was, and the rollouts that may go on, for `go_on`. Asks nobody but the
    database. Safe to run late, twice or in two places: each change is made only from the step that was looked at.
    """
    now, ready = now or timezone.now(), []

    def failed(rollout: Rollout) -> bool:
        verdict = judge(rollout, now)
        if verdict.failures:
            return _fail(rollout, verdict)
        if rollout.state == RolloutState.RUNNING and verdict.ready:
            ready.append(rollout)
        return False

    rollouts = Rollout.objects.filter(ended_at__isnull=True)
    return _each(rollouts.select_related("flag__service", "flag__week__plan").order_by("pk"), failed), ready


def go_on(ready: Iterable[Rollout]) -> list[str]:
    """Each takes its next step, or ends after its last one; the keys of the flags whose rollout has changed.

    May take CHECK_WITHIN seconds for each, as its gate has the checks of its week run. What anybody has changed since
    it was looked at is left alone. As safe as `look_at_rollouts`.
    """
    return _each(ready, _next)


def _each(rollouts: Iterable[Rollout], act: Callable[[Rollout], bool]) -> list[str]:
    """The keys of those that it has changed. What is wrong with one does not stop the others."""
    changed = []
    for rollout in rollouts:
        try:
            if act(rollout):
                changed.append(rollout.flag.key)
        except (Stale, NotFound, Busy):
            continue  # somebody else has changed it meanwhile, or holds the plan: the next look finds it as it is
        except ActionError as refusal:
            logger.warning("the rollout of %s does not go on: %s", rollout.flag.key, refusal)
        except UNREADABLE:
            logger.exception("the rollout of %s cannot be read", rollout.flag.key)
    return changed


def judge(rollout: Rollout, now: datetime) -> StepVerdict:
    """What the step that it is at waits for, and what has failed it."""
    generation, service = rollout.generation, rollout.flag.service_id
    confirmed, begun = (found([generation]).get(generation) for found in (verified_at, begun_at))
    requests, errors, p95 = 0, 0, None
    if begun:
        counted_from = max(begun, rollout.since)
        requests, errors = requests_of([service], Side.SERVICE, counted_from, now)
        if rollout.p95 is not None:
            latency = latency_of(service, Side.SERVICE, counted_from, now)
            p95 = percentile(latency, 0.95) if sum(latency) else None
    away = [row.key for row in Gateway.objects.all() if not row.runs(rollout.flag)]
    health, why = current_health(now).get(rollout.flag.service.key, (Health.UNKNOWN, "no poll yet"))
    return judge_step(
        SeenStep(
            now=now,
            weight=rollout.weight,
            hold=holds_for(rollout),
            wanted_requests=steps_of(rollout)[rollout.position].requests,
            since=max(confirmed, rollout.since) if confirmed else None,
            away=tuple(away),
            requests=requests,
            errors=errors,
            p95=p95,
            error_rate=rollout.error_rate,
            p95_limit=rollout.p95,
            health=health,
            health_error=why,
        )
    )


def _fail(rollout: Rollout, verdict: StepVerdict) -> bool:
    key, measured_at = rollout.flag.key, rollout.generation
    because = f"At {rollout.place}: {verdict.why_failed()}"
    if rollout.on_failure == "pause":
        return pause_rollout(
            key=key, actor=SYSTEM, because=because, at=rollout.position, measured_at=measured_at
        ).changed
    return roll_back_flag(key=key, actor=SYSTEM, reason=because, measured_at=measured_at).changed


def _next(rollout: Rollout) -> bool:
    key = rollout.flag.key
    if rollout.last:
        return finish_rollout(judged=rollout).changed
    try:
        said = f"Rollout started by {rollout.started_by}: {rollout.place} has held for {_held(rollout)}."
        return step_to(key=key, position=rollout.position + 1, actor=SYSTEM, reason=said, judged=rollout).changed
    except GateClosed as refusal:
        return pause_rollout(key=key, actor=SYSTEM, because=str(refusal), judged=rollout).changed


def _held(rollout: Rollout) -> str:
    return in_words(max(timedelta(0), timezone.now() - rollout.since))
