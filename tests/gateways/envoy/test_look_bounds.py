"""How long a look takes to find that somebody has edited the gateway: counted, and held against the beat."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from controlplane import settings
from migrations_app.gateways.base import Observed
from migrations_app.gateways.envoy import adapter as module
from migrations_app.gateways.envoy.adapter import QUESTIONS, SETTLED_WITHIN

ANSWER = 0.04  # seconds that the gateway may take for one answer; one that is well takes 1 to 3 ms


class Clock:
    """Time that passes only by what is done: so much with each look, and what is slept."""

    def __init__(self, look: float) -> None:
        self.now, self.look = 0.0, look

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("look", "looks"), [(0.001, 6), (0.1, 6), (0.3, 3), (2.0, 2)])
def test_a_difference_is_told_after_some_looks_and_sooner_when_looks_take_long(
    module_envoy, monkeypatch, look: float, looks: int
):
    clock, adapter, seen = Clock(look), module_envoy.adapter(), []

    def different() -> Observed:
        seen.append(clock.now)
        clock.now += clock.look
        return Observed(1, drift=("edited",))

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(adapter, "_look", different)
    monkeypatch.setattr(type(adapter._folder), "locked", lambda *_: nullcontext())  # nobody holds it
    assert adapter.observe().drift == ("edited",)
    assert len(seen) == looks
    assert clock.now <= SETTLED_WITHIN + 2 * look + 0.02


def test_an_edit_is_found_by_the_first_look_after_it_with_so_many_questions(module_envoy, table, monkeypatch):
    adapter = module_envoy.adapter()
    adapter.apply(adapter.render(table(auth=100)))
    assert adapter.observe().drift == ()
    asked, looks = [], []
    answer, look = adapter._client._answer, adapter._look
    monkeypatch.setattr(adapter._client, "_answer", lambda url, ask: asked.append(url) or answer(url, ask))
    monkeypatch.setattr(adapter, "_look", lambda: looks.append(look()) or looks[-1])
    module_envoy.edit_in_place("rds/rds.json", ('"cluster":"auth.failover"', '"cluster":"auth.monolith"'))
    assert adapter.observe().drift
    assert all(one.drift for one in looks)
    assert len(asked) <= len(looks) * QUESTIONS
    adapter.apply(adapter.render(table(auth=100)))


def test_the_beat_and_a_look_find_drift_within_two_seconds():
    """Of a gateway that answers; what hangs is told as away, after at most 0.3 s for each question."""
    beat = settings.CELERY_BEAT_SCHEDULE["reconcile"]["schedule"]
    assert beat + SETTLED_WITHIN + 2 * QUESTIONS * ANSWER <= 2.0
