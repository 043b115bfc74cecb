"""One step of a rollout, purely: what was seen of it goes in; whether the next one may come, or must not, comes out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from migrations_app.choices import Health
from migrations_app.durations import in_words

ENOUGH = 20  # requests: fewer tell nothing of a share of errors, or of a percentile


@dataclass(frozen=True, slots=True)
class SeenStep:
    """What is known of the step that a rollout is at.

    `since` is when every gateway had confirmed its weight, None before; `away` are the keys of those that do not run it
    now. `requests`, `errors` and `p95` (milliseconds, None when not known) are those of the new side since the first
    gateway had confirmed it: what is wrong there needs no word of the others. `error_rate` (per cent) and `p95_limit`
    (milliseconds, None for none) are the rollout's limits; `hold` is as long as it really takes.
    """

    now: datetime
    weight: int
    hold: timedelta
    wanted_requests: int
    since: datetime | None
    requests: int
    errors: int
    p95: float | None
    error_rate: float
    p95_limit: float | None
    health: Health
    health_error: str
    away: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepLine:
    """One condition. `value` against `limit` says why it is held or not; `failed`: waiting will not help."""

    title: str
    held: bool
    value: str
    limit: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class StepVerdict:
    lines: tuple[StepLine, ...]

    @property
    def ready(self) -> bool:
        """The next step may come."""
        return all(line.held for line in self.lines)

    @property
    def failures(self) -> tuple[StepLine, ...]:
        return tuple(line for line in self.lines if line.failed)

    def why_failed(self) -> str:
        """A sentence with each measured value and its limit."""
        told = "; ".join(f"{line.title.lower()}: {line.value} (limit: {line.limit})" for line in self.failures)
        return f"{told[:1].upper()}{told[1:]}."


def judge_step(seen: SeenStep) -> StepVerdict:
    """Time and requests are waited for; errors, response times and an unhealthy service fail the step."""
    lines = [_applied(seen), _held(seen)]
    if seen.wanted_requests:
        enough = seen.requests >= seen.wanted_requests
        lines.append(StepLine("Requests", enough, f"{seen.requests:,}", f"at least {seen.wanted_requests:,}"))
    lines.append(_errors(seen))
    if seen.p95_limit is not None:
        lines.append(_slow(seen, seen.p95_limit))
    lines.append(_health(seen))
    return StepVerdict(tuple(lines))


def _applied(seen: SeenStep) -> StepLine:
    value = f"since {in_words(seen.now - seen.since)}" if seen.since else "not confirmed yet"
    if seen.away and seen.since:
        value = f"not run now by {', '.join(seen.away)}"
    return StepLine("Applied", seen.since is not None and not seen.away, value, f"{seen.weight} % on every gateway")


def _held(seen: SeenStep) -> StepLine:
    passed = seen.now - seen.since if seen.since else timedelta(0)
    held = seen.since is not None and passed >= seen.hold
    return StepLine("Time", held, in_words(min(passed, seen.hold)), f"at least {in_words(seen.hold)}")


def _errors(seen: SeenStep) -> StepLine:
    limit = f"at most {seen.error_rate:g} %"
    if seen.requests < ENOUGH:
        return StepLine("Errors", True, f"too few requests to tell: {seen.requests}", limit)
    rate = 100 * seen.errors / seen.requests
    failed = rate > seen.error_rate
    return StepLine("Errors", not failed, f"{rate:.2f} % of {seen.requests:,} requests", limit, failed)


def _slow(seen: SeenStep, most: float) -> StepLine:
    limit = f"at most {most:g} ms"
    if seen.requests < ENOUGH or seen.p95 is None:
        return StepLine("Response time (p95)", True, f"too few requests to tell: {seen.requests}", limit)
    failed = seen.p95 > most
    return StepLine("Response time (p95)", not failed, f"{seen.p95:.0f} ms", limit, failed)


def _health(seen: SeenStep) -> StepLine:
    value = f"{seen.health}: {seen.health_error}" if seen.health_error else str(seen.health)
    return StepLine("Health", seen.health == Health.HEALTHY, value, "healthy", seen.health == Health.UNHEALTHY)
