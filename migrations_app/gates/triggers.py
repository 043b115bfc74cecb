"""A trigger, purely: what was measured goes in; whether it is breached, with value and limit, comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from migrations_app.choices import Breach
from migrations_app.durations import in_words
from migrations_app.gates.percentile import percentile


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side of a service did in a window: `latency` by LATENCY_BOUNDS, one more for what is above all."""

    requests: int = 0
    errors: int = 0
    latency: Sequence[int] = ()

    @property
    def p95(self) -> float | None:
        """Milliseconds; None when nothing was answered."""
        return percentile(tuple(self.latency), 0.95) if sum(self.latency) else None

    @property
    def pace(self) -> Pace:
        return Pace(self.requests, self.p95)


@dataclass(frozen=True, slots=True)
class Pace:
    """How quickly so many requests were answered: `p95` in milliseconds, None when none was."""

    requests: int = 0
    p95: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """`value` against `limit` says why. `state` NO_DATA: nobody can tell."""

    state: Breach
    value: str
    limit: str

    def sentence(self) -> str:
        return f"{self.value} (limit: {self.limit})"


@dataclass(frozen=True, slots=True)
class Polls:
    """The last polls of a service since the weight was changed.

    The newest, `age` ago, was `healthy`, None when it could not tell; `failed` in a row, up to that one, have failed.
    A poll tells something for `trusted_for`.
    """

    healthy: bool | None
    error: str
    failed: int
    age: timedelta
    trusted_for: timedelta


def judge_health(polls: Polls | None, *, failures: int) -> Judged:
    """`polls` is None when there was none since the weight was changed."""
    limit = f"fewer than {failures} failed polls in a row"
    if polls is None:
        return Judged(Breach.NO_DATA, "no poll since the weight was changed", limit)
    if polls.age > polls.trusted_for:
        return Judged(Breach.NO_DATA, f"not polled for {in_words(polls.age)}", limit)
    if polls.healthy is None:
        return Judged(Breach.NO_DATA, f"the last poll could not tell: {polls.error}", limit)
    if polls.failed >= failures:
        return Judged(Breach.BREACHED, f"{polls.failed} failed polls in a row, the last one: {polls.error}", limit)
    return Judged(Breach.OK, f"{polls.failed} failed polls in a row", limit)


def judge_failover(why: str | None) -> Judged:
    """`why` the gateway lets the monolith answer, "" while it does not, None when no gateway that answers can tell."""
    if why is None:
        return Judged(Breach.NO_DATA, "a gateway has not answered lately", "no failover")
    if why:
        return Judged(Breach.BREACHED, f"the monolith answers in its place: {why}", "no failover")
    return Judged(Breach.OK, "the service answers by itself", "no failover")


def judge_errors(new: Measured, *, above: float, window: timedelta, requests: int) -> Judged:
    limit = f"at most {above:g} % in {in_words(window)}"
    if new.requests < requests:
        return Judged(Breach.NO_DATA, _too_few(new.requests, requests), limit)
    rate = 100 * new.errors / new.requests
    state = Breach.BREACHED if rate > above else Breach.OK
    return Judged(state, f"{rate:.2f} % errors of {new.requests:,} requests", limit)


def judge_latency(
    new: Measured,
    old: Measured,
    before: Pace,
    *,
    above: float | None,
    times: float | None,
    window: timedelta,
    requests: int,
    slower_ms: float = 0.0,
) -> Judged:
    """`old` is the monolith in the same window, `before` as it was before the weight was changed.

    The one stands in for the other when that has too few requests, as at 100 %. Without both, or with a p95 of 0,
    `above` alone is judged.

    `times` counts only where the new side is slower by more than `slower_ms`.
    """
    limits = [f"{above:g} ms"] if above is not None else []
    if times is not None:
        limits.append(f"{times:g} times the monolith's" + (f" or {slower_ms:g} ms above it" if slower_ms else ""))
    limit = f"p95 at most {' and '.join(limits)} in {in_words(window)}"
    p95 = new.p95
    if new.requests < requests or p95 is None:
        return Judged(Breach.NO_DATA, _too_few(new.requests, requests), limit)
    found = Judged(Breach.OK, f"p95 {p95:.0f} ms", limit)
    if above is not None and p95 > above:
        found = replace(found, state=Breach.BREACHED)
    if times is None:
        return found
    compared = next((one for one in (old.pace, before) if one.requests >= requests and one.p95), None)
    if compared is None or not compared.p95:
        told = f"{found.value}; the monolith has too few requests to compare with: {old.requests}"
        nothing = above is None
        return replace(found, state=Breach.NO_DATA if nothing else found.state, value=told)
    told = f"{found.value}, {p95 / compared.p95:.1f} times the monolith's {compared.p95:.0f} ms"
    if compared is before:
        told += " before the weight was changed"
    slower = p95 > max(times * compared.p95, compared.p95 + slower_ms)
    return replace(found, state=Breach.BREACHED if slower else found.state, value=told)


@dataclass(frozen=True, slots=True)
class Share:
    """So many of these requests were answered with one of the statuses that count."""

    requests: int
    counted: int

    @property
    def per_cent(self) -> float:
        return 100 * self.counted / self.requests


def judge_answers(
    new: Share, before: Share, *, codes: str, above: float | None, times: float | None, window: timedelta, requests: int
) -> Judged:
    """`before` is the baseline, of the old side: with too few requests it is none, and then `above` alone is judged.

    Where none of them counted it is taken as one of them: nothing can be so many times nothing, and a single failed
    sign-in must not move everybody back.
    """
    limits = [f"{above:g} %"] if above is not None else []
    limits += [f"{times:g} times the share before"] if times is not None else []
    limit = f"{codes} at most {' and '.join(limits)} in {in_words(window)}"
    if new.requests < requests:
        return Judged(Breach.NO_DATA, _too_few(new.requests, requests), limit)
    found = Judged(Breach.OK, f"{new.per_cent:.2f} % of {new.requests:,} requests", limit)
    if above is not None and new.per_cent > above:
        found = replace(found, state=Breach.BREACHED)
    if times is None:
        return found
    if before.requests < requests:
        told = f"{found.value}; too few requests before to compare with: {before.requests}"
        return replace(found, state=Breach.NO_DATA if above is None else found.state, value=told)
    baseline = replace(before, counted=max(1, before.counted)).per_cent
    told = f"{found.value}, before {before.per_cent:.2f} % of {before.requests:,}"
    if not before.counted:
        told += f", taken as {baseline:.2f} %"
    return replace(found, state=Breach.BREACHED if new.per_cent > times * baseline else found.state, value=told)


def judge_query(
    value: float | None, error: str, past_for: timedelta | None, *, limits: str, window: timedelta
) -> Judged:
    """`past_for`: how long every answer was past the limit, None while the last one is not."""
    limit = f"{limits} for {in_words(window)}"
    if value is None:
        return Judged(Breach.NO_DATA, error or "not asked since the weight was changed", limit)
    if past_for is None:
        return Judged(Breach.OK, f"{value:g}", limit)
    state = Breach.BREACHED if past_for >= window else Breach.OK
    return Judged(state, f"{value:g}, past it for {in_words(past_for)}", limit)


def _too_few(found: int, needed: int) -> str:
    return f"too few requests to tell: {found} of {needed}"
