"""When targets are polled, on a clock on which nothing takes longer than it says."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime

import pytest

from migrations_app.observe import schedule
from migrations_app.observe.polls import PollResult, Target
from migrations_app.observe.schedule import GRID, Ended, Schedule

from .web import lines, run

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def begun(monkeypatch) -> dict[str, list[float]]:
    """Target -> the moments at which its polls began. A poll takes no time; of a target called hang..., 1.7 seconds."""
    found: dict[str, list[float]] = defaultdict(list)

    class Line:
        def __init__(self, target, _):
            self.target = target

        async def poll(self) -> PollResult:
            found[self.target.key].append(asyncio.get_running_loop().time())
            if self.target.key.startswith("hang"):
                await asyncio.sleep(1.7)
            return PollResult(self.target.key, NOW, True)

        async def close(self) -> None:
            found[f"closed {self.target.key}"].append(asyncio.get_running_loop().time())

    monkeypatch.setattr(schedule, "Line", Line)
    return found


def poll_for(*moments: tuple[float, list[Target]]) -> list[Ended]:
    """Follow each list of targets for so many seconds; the polls that ended."""
    ended: list[Ended] = []

    async def whole():
        made = Schedule(lines(), ended.append)
        running = asyncio.create_task(made.run())
        for seconds, targets in moments:
            made.follow(targets)
            await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        poll_for.skipped = made.skipped

    run(whole(), lambda: False)
    return ended


def target(key: str, interval: float = 1.0) -> Target:
    return Target(key, f"http://127.0.0.1/{key}", interval)


def test_each_target_is_polled_at_its_own_interval(begun):
    poll_for((10.5, [target("quick", 1.0), target("slow", 2.5)]))
    for key, interval, count in (("quick", 1.0, 11), ("slow", 2.5, 4)):
        gaps = [later - earlier for earlier, later in zip(begun[key], begun[key][1:], strict=False)]
        assert len(begun[key]) == count
        assert all(abs(gap - interval) <= GRID for gap in gaps)


def test_polls_are_spread_over_the_interval(begun):
    poll_for((0.999, [target(f"t{n}") for n in range(10)]))
    first = sorted(moments[0] for key, moments in begun.items() if key.startswith("t"))
    assert first == pytest.approx([n / 10 for n in range(10)], abs=GRID)


def test_a_target_with_a_long_interval_is_polled_soon_and_then_at_its_interval(begun):
    poll_for((125.0, [target(f"t{n}", 60.0) for n in range(10)]))
    first = sorted(moments[0] for key, moments in begun.items() if key.startswith("t"))
    assert first == pytest.approx([2.0 * n for n in range(10)], abs=GRID)
    gaps = [later - earlier for earlier, later in zip(begun["t3"], begun["t3"][1:], strict=False)]
    assert gaps == pytest.approx([60.0], abs=GRID)


def test_they_begin_on_a_grid_and_are_late_by_less_than_it(begun):
    ended = poll_for((5.0, [target(f"t{n}", 1.0) for n in range(500)]))
    assert len({moment for moments in begun.values() for moment in moments}) <= 5.0 / GRID + 2
    assert max(one.late for one in ended) <= GRID + 1e-9
    assert min(one.late for one in ended) >= 0


def test_a_target_whose_poll_is_still_out_is_skipped_and_delays_no_other(begun):
    ended = poll_for((10.1, [*[target(f"hang{n}") for n in range(20)], target("good")]))
    gaps = [later - earlier for earlier, later in zip(begun["hang0"], begun["hang0"][1:], strict=False)]
    assert gaps == pytest.approx([2.0] * 5, abs=GRID)
    assert poll_for.skipped >= 20 * 4
    good = [one for one in ended if one.target.key == "good"]
    assert len(good) == 10
    assert max(one.late for one in good) <= GRID + 1e-9


def test_what_stays_keeps_its_moments_and_what_leaves_is_polled_no_more(begun):
    stays, leaves, comes = target("stays"), target("hang"), target("comes")
    ended = poll_for((3.2, [stays, leaves]), (3.0, [stays, comes]))
    assert begun["stays"] == pytest.approx(list(range(7)), abs=GRID)
    assert max(begun["hang"]) <= 3.2
    assert begun["comes"] == pytest.approx([3.2, 4.2, 5.2], abs=2 * GRID)
    # Its last poll was out when it left.
    assert len([one for one in ended if one.target == leaves]) == len(begun["hang"]) - 1
    assert begun["closed hang"] == [3.2]


def test_a_target_that_is_polled_otherwise_is_another(begun):
    ended = poll_for((1.9, [target("auth", 1.0)]), (4.1, [target("auth", 2.0)]))
    assert [one.target.interval for one in ended] == [1.0, 1.0, 2.0, 2.0, 2.0]


def test_what_could_not_begin_in_time_is_not_made_up_for(begun):
    """The process stood still for five seconds."""

    async def whole():
        made = Schedule(lines(), lambda _: None)
        running = asyncio.create_task(made.run())
        made.follow([target("auth")])
        await asyncio.sleep(1.5)
        asyncio.get_running_loop().pass_time(5.0)
        await asyncio.sleep(2.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(whole(), lambda: False)
    assert begun["auth"] == pytest.approx([0, 1, 6.5, 7, 8], abs=GRID)


def test_at_the_end_every_line_is_closed_and_no_poll_is_out(begun):
    poll_for((0.5, [target("hang"), target("good")]))
    assert begun["closed hang"] == begun["closed good"] == [0.5]
