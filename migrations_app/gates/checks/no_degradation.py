"""`no_degradation`: the new side is no slower and no less reliable than the monolith was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from migrations_app.choices import CheckState
from migrations_app.durations import in_words
from migrations_app.gates.parameters import NoDegradation
from migrations_app.gates.percentile import percentile
from migrations_app.gates.seen import Finding
from migrations_app.gateways.base import NO_LATENCY, Side
from migrations_app.models import Service, TrafficSample
from migrations_app.models.traffic import beginning_of, latency_of, requests_of, shortest_window

from .probe import Scene

_JUST_BEFORE = timedelta(microseconds=1)  # the reading itself is one of those that count


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side served within a window. `latency` counts answers by LATENCY_BOUNDS."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = NO_LATENCY

    @property
    def error_rate(self) -> float:
        """Per cent; 0 without requests."""
        return 100 * self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One service. `badness` orders services of one state, worst last: error points above, then p95 as a ratio."""

    title: str
    state: CheckState
    value: str
    act: str = ""
    badness: tuple[float, float] = (0.0, 0.0)


def no_degradation(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`services: [keys]` or `weeks: [numbers]`, `window: 15m`, `slower_by: 20` (per cent), `error_rate: 0.1` (points).

    Per service, the new side's requests of the last `window` against the monolith's of the last `window` up to its
    newest one: that is the time just before the flag went up, or now while the traffic is split. Where the monolith
    served little in it, as after a rollback and a new try, it reaches back to its last `min_requests`. The worst
    service is told. p95 is told by `percentile`; a difference up to `slower_ms` is none (gateways tell whole
    milliseconds). With fewer than `min_requests` on either side, `without_traffic` decides. A service that only the new
    side has is held to the error rate alone.
    """
    asked = NoDegradation.of(parameters)
    window = max(scene.plan.scaled(asked.window), min(asked.window, shortest_window()))
    limit = (
        f"p95 at most {asked.slower_by:g} % or {asked.slower_ms:g} ms above, "
        f"errors at most {asked.error_rate:g} points, {asked.min_requests:,} requests in {in_words(window)}"
    )
    found = list(
        Service.objects.filter(Q(key__in=asked.services) | Q(flag__week__number__in=asked.weeks), plan=scene.plan)
    )
    if unknown := sorted(set(asked.services) - {service.key for service in found}):
        return Finding(
            CheckState.UNKNOWN, f"the plan has no service {', '.join(unknown)}", limit, "Name others in the plan."
        )
    if not found:
        return Finding(CheckState.UNKNOWN, "there is no service to compare", limit, "Name services in the plan.")
    compared = [_compare(service, asked, window, scene.now) for service in found]
    order = [CheckState.HELD, CheckState.UNKNOWN, CheckState.NOT_HELD]
    worst = max(compared, key=lambda one: (order.index(one.state), one.badness))
    others = sum(one.state == worst.state for one in compared) - 1
    also = f"; {others} more like it" if others and worst.state != CheckState.HELD else ""
    return Finding(worst.state, f"{worst.title}: {worst.value}{also}", limit, worst.act)


def _compare(service: Service, asked: NoDegradation, window: timedelta, now: datetime) -> _Comparison:
    new = _measured(service.pk, Side.SERVICE, now - window, now)
    if service.new_side_only:
        return _errors_alone(service, asked, new)
    old = _baseline(service.pk, window, asked.min_requests, now)
    few = min(new.requests, old.requests) < asked.min_requests
    rates = f"errors {new.error_rate:.2f} % against {old.error_rate:.2f} %"
    counts = f"{new.requests:,} and {old.requests:,} requests"
    if few:
        return _without_traffic(service, asked, f"{counts}, too few to tell", old.requests)
    act = f"Look at {service.title}, or roll it back."
    worse = new.error_rate - old.error_rate
    if worse > asked.error_rate:
        return _Comparison(service.title, CheckState.NOT_HELD, f"{rates}, {counts}", act, (worse, 0.0))
    if min(sum(new.latency), sum(old.latency)) < asked.min_requests:
        value = f"{rates}, {counts}, but response times of only {sum(new.latency):,} and {sum(old.latency):,}"
        return _without_traffic(service, asked, value)
    p95, before = percentile(new.latency, 0.95), percentile(old.latency, 0.95)
    value = f"p95 {_ms(p95)} against {_ms(before)}, {rates}, {counts}"
    ratio = p95 / before if before else p95
    if p95 > max(before * (1 + asked.slower_by / 100), before + asked.slower_ms):
        return _Comparison(service.title, CheckState.NOT_HELD, value, act, (0.0, ratio))
    return _Comparison(service.title, CheckState.HELD, value, badness=(0.0, ratio))


def _errors_alone(service: Service, asked: NoDegradation, new: Measured) -> _Comparison:
    counts = f"{new.requests:,} requests; the monolith never had it"
    if new.requests < asked.min_requests:
        return _without_traffic(service, asked, f"{counts}, too few to tell")
    value = f"errors {new.error_rate:.2f} %, {counts}"
    if new.error_rate > asked.error_rate:
        act = f"Look at {service.title}, or roll it back."
        return _Comparison(service.title, CheckState.NOT_HELD, value, act, (new.error_rate, 0.0))
    return _Comparison(service.title, CheckState.HELD, value)


def _without_traffic(service: Service, asked: NoDegradation, value: str, baseline: int | None = None) -> _Comparison:
    """`baseline` is how many requests of the monolith there are to compare with: waiting brings no more of those."""
    if asked.without_traffic == "held":
        return _Comparison(service.title, CheckState.HELD, f"{value}; the plan counts that as held")
    act = "Wait for more traffic, or send some."
    if baseline is not None and baseline < asked.min_requests:
        act = f"Send {service.title} back to the monolith for some traffic to compare with, or have this overridden."
    return _Comparison(service.title, CheckState.UNKNOWN, value, act)


def _baseline(service: int, window: timedelta, least: int, now: datetime) -> Measured:
    """The monolith's own numbers, up to the newest request that it has served, as far back as samples are kept."""
    rows = TrafficSample.objects.filter(service=service, side=Side.MONOLITH.value, read_at__lte=now, requests__gt=0)
    newest = rows.order_by("-read_at").values_list("read_at", flat=True).first()
    if newest is None:
        return Measured()
    # Response times come a reading or two after their requests, and nothing else can be there before `now`.
    found = _measured(service, Side.MONOLITH, newest - window, now)
    if found.requests < least and (earlier := beginning_of(service, Side.MONOLITH, least, now)):
        found = _measured(service, Side.MONOLITH, earlier - _JUST_BEFORE, now)
    return found


def _measured(service: int, side: Side, after: datetime, until: datetime) -> Measured:
    return Measured(*requests_of([service], side, after, until), latency_of(service, side, after, until))


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
