"""Demo traffic, with the monolith in the gateway's place: it answers the same paths."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from demo import traffic as demo_traffic
from demo.estate import REPOSITORY
from demo.fault import put
from demo.faults import Fault
from tests.demo.clock import Clock
from tests.demo.conftest import Estate, ended_after, wait_until

SUMMARY = re.compile(
    r"traffic: last \d+ s: (?P<requests>\d+) requests, (?P<failed>\d+) failed, (?P<refused>\d+) refused \(4xx\), "
    r"monolith (?P<monolith>\d+), service (?P<service>\d+), no side (?P<none>\d+), held back \d+"
)


def counts_of(output: str) -> dict[str, int]:
    """The sums of all summaries in an output; empty without one."""
    found = [match.groupdict() for match in SUMMARY.finditer(output)]
    return {key: sum(int(values[key]) for values in found) for key in (found[0] if found else {})}


class Traffic:
    """One traffic process and what it prints."""

    def __init__(self, estate: Estate, log: Path) -> None:
        self.estate = estate
        self.log = log

    def start(self, url: str, rate: int, summary: float) -> None:
        words = ["--gateway", url, "--rate", str(rate), "--summary", str(summary)]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.demo.clocked", "demo.traffic", *words],
                cwd=REPOSITORY,
                env=self.estate.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self.log.read_text()

    def counts(self) -> dict[str, int]:
        """The sums of all summaries until now; empty before the first."""
        return counts_of(self.output())

    def wait_for(self, key: str, more_than: int) -> None:
        wait_until(lambda: self.counts().get(key, 0) > more_than, 20)

    def end(self) -> None:
        """Ends at once, waiting for nothing, in good order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=20) == 0, self.output()
        assert ended_after(self.output()) == 0
        assert "Traceback" not in self.output()
        assert "never retrieved" not in self.output()


class Attempts(Clock):
    """Notes when a connection was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[float] = []

    async def sock_connect(self, sock: socket.socket, address: object) -> None:
        self.attempts.append(self.time())
        await super().sock_connect(sock, address)


class Played:
    """Traffic in this process until a second of its own clock, which stands still while a request is under way.

    `events` happen at their second. `sent` has the moment of every request, the questions to an absent gateway too.
    """

    def __init__(
        self, estate: Estate, seconds: float, *events: tuple[float, Callable[[Clock], object]], rate: int
    ) -> None:
        self.sent: list[float] = []
        self.clock = Attempts()

        async def note(_: httpx.Request) -> None:
            self.sent.append(self.clock.time())

        async def play() -> None:
            traffic = demo_traffic.Traffic(estate.url("monolith"), rate)
            traffic._client.event_hooks = {"request": [note]}
            for moment, happen in events:
                self.clock.call_at(moment, happen, self.clock)
            running = asyncio.ensure_future(traffic.run(summary_s=1))
            self.clock.call_at(seconds, running.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await running

        with asyncio.Runner(loop_factory=lambda: self.clock) as runner:
            runner.run(play())


@pytest.fixture
def no_rows_left(seeded: Estate) -> Iterator[None]:
    """Takes the rows away that traffic wrote."""
    yield
    seeded.query("monolith", "DELETE FROM samples WHERE barcode LIKE 'DEMO-%'")
    seeded.query("monolith", "DELETE FROM notifications WHERE body LIKE 'Demo message%'")


@pytest.fixture
def traffic(seeded: Estate, no_rows_left: None, tmp_path: Path) -> Iterator[Traffic]:
    """Traffic that is not started yet."""
    traffic = Traffic(seeded, tmp_path / "traffic.log")
    yield traffic
    if traffic.process.poll() is None:
        traffic.process.kill()
        traffic.process.wait()


def test_it_logs_in_reads_and_writes(estate: Estate, traffic: Traffic) -> None:
    traffic.start(estate.url("monolith"), rate=40, summary=1)
    written = "SELECT count(*) FROM samples WHERE barcode LIKE 'DEMO-%' AND submitted_by <> 'anonymous'"
    wait_until(lambda: estate.query("monolith", written)[0][0] > 0, 20)
    traffic.wait_for("requests", 60)
    traffic.end()
    assert traffic.output().startswith(f"traffic: 40 requests/s to {estate.url('monolith')}\n")
    sums = traffic.counts()
    assert sums["monolith"] >= sums["requests"] - 1
    assert (sums["failed"], sums["service"]) == (0, 0)
    # The three prefixes of week 5 are not on the monolith, and little else is refused.
    assert sums["refused"] < sums["requests"] / 3


@pytest.mark.usefixtures("no_rows_left")
def test_each_request_is_sent_at_its_moment_of_the_rate(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    played = Played(estate, 3.99, rate=40)
    assert played.sent == pytest.approx([n / 40 for n in range(160)])
    output = capsys.readouterr().out
    whole = [int(match["requests"]) for match in SUMMARY.finditer(output)]
    assert sum(whole) == 160
    assert all(40 <= requests <= 41 for requests in whole[:-1]), output
    assert counts_of(output)["failed"] == 0


@pytest.mark.usefixtures("no_rows_left")
# What was due in half a second, or what was due first and in the last second with both its ends.
@pytest.mark.parametrize(("stall", "least", "most"), [(0.5, 5, 5), (30.0, 11, 12)])
def test_what_a_busy_second_leaves_undone_is_caught_up_with_and_no_more(
    estate: Estate, stall: float, least: int, most: int
) -> None:
    played = Played(estate, stall + 2, (1.01, lambda clock: clock.pass_time(stall)), rate=10)
    late = [moment for moment in played.sent if 1.01 < moment < stall + 1.02]
    assert late == [pytest.approx(stall + 1.01)] * len(late)
    assert least <= len(late) <= most
    before, after = ([m for m in played.sent if m < 1.01], [m for m in played.sent if m > stall + 1.02])
    assert before == pytest.approx([n / 10 for n in range(11)])
    assert [b - a for a, b in pairwise(after)] == pytest.approx([1 / 10] * (len(after) - 1))
    assert 9 <= len(after) <= 10


@pytest.mark.usefixtures("no_rows_left")
def test_it_waits_for_a_gateway_that_is_away_and_goes_on(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    assert put("monolith", Fault("down"), estate.settings) is None
    back = (5.5, lambda _: put("monolith", Fault(), estate.settings))
    played = Played(estate, 7.99, back, rate=30)
    output = capsys.readouterr().out
    assert output.count("does not take connections; waiting") == 1
    assert output.count("takes connections again") == 1
    # Nothing is sent but the request that found it out, and then a question a second, the seventh of which is answered.
    away = [0, *(1 / 30 + n for n in range(7))]
    assert played.clock.attempts[: len(away)] == pytest.approx(away)
    assert played.sent[: len(away)] == pytest.approx(away)
    assert played.sent[len(away)] == pytest.approx(away[-1])
    sums = counts_of(output)
    assert (sums["failed"], sums["monolith"]) == (1, sums["requests"] - 1)
    assert sums["requests"] == len(played.sent) - 7


def test_failing_and_hanging_answers_are_counted_and_do_not_stop_it(estate: Estate, traffic: Traffic) -> None:
    assert estate.run("demo.fault", "monolith", "errors", "100").returncode == 0
    traffic.start(estate.url("monolith"), rate=30, summary=0.3)
    traffic.wait_for("failed", 5)
    assert estate.run("demo.fault", "monolith", "hang").returncode == 0
    # When no request came to an end all through a summary, some are under way.
    before = len(traffic.output())
    wait_until(lambda: ": 0 requests, 0 failed" in traffic.output()[before:], 20)
    traffic.end()
    sums = traffic.counts()
    assert sums["failed"] == sums["requests"]


def test_what_a_side_refuses_is_counted_under_that_side(estate: Estate, traffic: Traffic) -> None:
    # A service knows no path under /api, so that it refuses everything.
    traffic.start(estate.url("auth"), rate=30, summary=0.3)
    traffic.wait_for("refused", 5)
    traffic.end()
    sums = traffic.counts()
    assert sums["refused"] == sums["service"] == sums["requests"]
    assert (sums["failed"], sums["monolith"]) == (0, 0)


def test_the_end_is_at_once_while_it_waits(traffic: Traffic) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        traffic.start(f"http://127.0.0.1:{closed.getsockname()[1]}", rate=10, summary=60)
        wait_until(lambda: "waiting for it" in traffic.output(), 20)
        traffic.end()


@pytest.mark.parametrize("rate", ["0", "x"])
def test_a_rate_that_makes_no_sense_is_refused(seeded: Estate, rate: str) -> None:
    assert seeded.run("demo.traffic", "--rate", rate).returncode == 2
