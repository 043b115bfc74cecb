"""Takes rollouts to their next step, or back, as what is observed says. Level-triggered: asked every second."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.choices import Health, RolloutState
from migrations_app.durations import in_words
from migrations_app.errors import ActionError, Busy, GateClosed, NotFound, Stale
from migrations_app.gates.load import current_health
from migrations_app.gates.percentile import percentile
from migrations_app.gates.steps import SeenStep, StepVerdict, judge_step
from migrations_app.gateways.base import Side
from migrations_app.models import Rollout
from migrations_app.models.gateways import verified_at
from migrations_app.models.traffic import latency_of, requests_of

from .flags import roll_back_flag
from .rollouts import finish_rollout, holds_for, pause_rollout, step_to, steps_of

logger = logging.getLogger(__name__)


def advance_rollouts(now: datetime | None = None) -> list[str]:
    """One look at every rollout under way; the keys of the flags whose rollout changed. A paused one may still fail.

    Safe to run late, twice or in two places: each change is made only from the step that was looked at.
    """
    now, changed = now or timezone.now(), []
    rollouts = Rollout.objects.filter(ended_at__isnull=True)
    for rollout in rollouts.select_related("flag__service", "flag__week__plan").order_by("pk"):
        try:
            if _advance(rollout, judge(rollout, now)):
                changed.append(rollout.flag.key)
        except (Stale, NotFound, Busy):
            continue  # somebody else has changed it meanwhile, or holds the plan: the next look finds it as it is
        except ActionError as refusal:
            logger.warning("the rollout of %s does not go on: %s", rollout.flag.key, refusal)
    return changed


def judge(rollout: Rollout, now: datetime) -> StepVerdict:
    """What the step that it is at waits for, and what has failed it."""
    confirmed = verified_at([rollout.generation]).get(rollout.generation)
    since = max(confirmed, rollout.since) if confirmed else None
    requests, errors, p95 = 0, 0, None
    if since:
        service = rollout.flag.service_id
        requests, errors = requests_of([service], Side.SERVICE, since, now)
        if rollout.p95 is not None:
            latency = latency_of(service, Side.SERVICE, since, now)
            p95 = percentile(latency, 0.95) if sum(latency) else None
    health, why = current_health(now).get(rollout.flag.service.key, (Health.UNKNOWN, "no poll yet"))
    return judge_step(
        SeenStep(
            now=now,
            weight=rollout.weight,
            hold=holds_for(rollout),
            wanted_requests=steps_of(rollout)[rollout.position].requests,
            since=since,
            requests=requests,
            errors=errors,
            p95=p95,
            error_rate=rollout.error_rate,
            p95_limit=rollout.p95,
            health=health,
            health_error=why,
        )
    )


def _advance(rollout: Rollout, verdict: StepVerdict) -> bool:
    key, at = rollout.flag.key, rollout.position
    running = rollout.state == RolloutState.RUNNING
    if verdict.failures:
        because = f"At {rollout.place}: {verdict.why_failed()}"
        if rollout.on_failure == "pause":
            measured = rollout.generation
            return pause_rollout(key=key, actor=SYSTEM, because=because, at=at, measured_at=measured).changed
        return roll_back_flag(key=key, actor=SYSTEM, reason=because, measured_at=rollout.generation).changed
    if not (running and verdict.ready):
        return False
    if rollout.last:
        return finish_rollout(key=key, at=at).changed
    try:
        said = f"Rollout started by {rollout.started_by}: {rollout.place} has held for {_held(rollout)}."
        return step_to(key=key, position=at + 1, at=at, actor=SYSTEM, reason=said).changed
    except GateClosed as refusal:
        return pause_rollout(key=key, actor=SYSTEM, because=str(refusal), at=at).changed


def _held(rollout: Rollout) -> str:
    return in_words(max(timedelta(0), timezone.now() - rollout.since))
