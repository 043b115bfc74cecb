"""Health polls with httpx: one client for each target, kept open, all polled at once on one event loop.

One client for each target costs less than half of a shared one, and 35 times less than one made for each poll: making a
client loads the TLS certificates (docs/decisions/0003-health-polls.md).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import httpx
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from migrations_app.choices import Health
from migrations_app.live import Topic, tell_all
from migrations_app.models import HealthSample, HealthState, Plan, Service
from migrations_app.models.health import MONOLITH_TARGET

BODY_LIMIT = 64 * 1024  # bytes of an answer that are read; the rest is left unread


@dataclass(frozen=True, slots=True)
class Target:
    """What to poll. `key` is the service's key, or "monolith"."""

    key: str
    url: str


@dataclass(frozen=True, slots=True)
class PollResult:
    """One poll, with its error inside. `milliseconds` and `status_code` are None without an answer."""

    target: str
    polled_at: datetime
    healthy: bool
    status_code: int | None = None
    milliseconds: float | None = None
    error: str = ""


def targets(plan: Plan) -> list[Target]:
    """The monolith and every service of the plan."""
    services = [
        Target(service.key, f"http://{service.upstream}{service.health_path}")
        for service in Service.objects.filter(plan=plan)
    ]
    return [Target(MONOLITH_TARGET, f"http://{plan.monolith}{plan.monolith_health_path}"), *services]


class Poller:
    """Polls targets. Keeps its event loop and its clients; use one for each process and close it at the end."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._runner = asyncio.Runner()
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._tls = httpx.create_ssl_context(trust_env=False)

    def poll(self, wanted: list[Target]) -> list[PollResult]:
        """Poll all at once; takes at most the timeout however many of them hang."""
        return self._runner.run(self._poll_all(wanted))

    def close(self) -> None:
        self._runner.run(self._close_clients(set(self._clients)))
        self._runner.close()

    async def _poll_all(self, wanted: list[Target]) -> list[PollResult]:
        await self._close_clients(set(self._clients) - {target.url for target in wanted})
        return await asyncio.gather(*(self._poll(target) for target in wanted))

    async def _close_clients(self, urls: set[str]) -> None:
        for url in urls:
            await self._clients.pop(url).aclose()

    def _client(self, target: Target) -> httpx.AsyncClient:
        if target.url not in self._clients:
            # No redirects (httpx's default), no proxies from the environment, one connection.
            self._clients[target.url] = httpx.AsyncClient(
                verify=self._tls,
                trust_env=False,
                timeout=None,  # noqa: S113  # the whole poll has one deadline, below
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                headers={"user-agent": "switchyard-health", "accept-encoding": "identity"},
            )
        return self._clients[target.url]

    async def _poll(self, target: Target) -> PollResult:
        polled_at, begun = timezone.now(), time.perf_counter()
        status, error = None, ""
        try:
            # Around the whole poll: a trickling answer passes every per-operation timeout.
            async with asyncio.timeout(self._timeout):
                status, error = await self._ask(target)
        except TimeoutError:
            error = f"no complete answer within {self._timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as problem:
            error = _in_words(problem)
        milliseconds = (time.perf_counter() - begun) * 1000 if status is not None else None
        return PollResult(target.key, polled_at, not error, status, milliseconds, error)

    async def _ask(self, target: Target) -> tuple[int, str]:
        async with self._client(target).stream("GET", target.url) as answer:
            size = 0
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > BODY_LIMIT:
                    return answer.status_code, f"the answer is longer than {BODY_LIMIT // 1024} kB"
            if answer.status_code != HTTPStatus.OK:
                return answer.status_code, f"answered {answer.status_code}, expected 200"
            return answer.status_code, ""


def _in_words(problem: Exception) -> str:
    if isinstance(problem, httpx.ConnectError):
        return f"no connection: {problem}"[:300]
    return f"{type(problem).__name__}: {problem}"[:300]


def store(results: list[PollResult]) -> None:
    """Keep every result, and the state of each target with the moment it began."""
    states = {row.target: row for row in HealthState.objects.all()}
    changed, told = [], []
    for result in results:
        state = Health.HEALTHY if result.healthy else Health.UNHEALTHY
        row = states.get(result.target) or HealthState(target=result.target, since=result.polled_at)
        if (row.state, row.error) != (state, result.error[:300]):
            told.append(result.target)
        if row.state != state:
            row.state, row.since = state, result.polled_at
        row.polled_at, row.milliseconds, row.error = result.polled_at, result.milliseconds, result.error[:300]
        changed.append(row)
    with transaction.atomic():
        HealthSample.objects.bulk_create(
            HealthSample(
                target=result.target,
                polled_at=result.polled_at,
                healthy=result.healthy,
                status_code=result.status_code,
                milliseconds=result.milliseconds,
                error=result.error[:300],
            )
            for result in results
        )
        HealthState.objects.bulk_create(
            changed,
            update_conflicts=True,
            unique_fields=["target"],
            update_fields=["state", "since", "polled_at", "milliseconds", "error"],
        )
        tell_all({Topic.POLL: [result.target for result in results], Topic.HEALTH: told})


def poll_once(poller: Poller) -> list[PollResult]:
    """One round over the plan that is loaded, stored. Nothing to do without a plan.

    What was seen at an address that the plan left during the round vouches for nothing, and is not stored.
    """
    wanted = _current_targets()
    results = poller.poll(wanted) if wanted else []
    still = set(_current_targets())
    kept = [result for target, result in zip(wanted, results, strict=True) if target in still]
    store(kept)
    return kept


def _current_targets() -> list[Target]:
    plan = Plan.objects.first()
    return targets(plan) if plan else []


def make_poller() -> Poller:
    return Poller(settings.HEALTH_TIMEOUT)
