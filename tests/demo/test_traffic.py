"""Demo traffic, with the monolith in the gateway's place: it answers the same paths."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.estate import REPOSITORY
from tests.demo.conftest import Estate, wait_until

SUMMARY = re.compile(
    r"traffic: last \d+ s: (?P<requests>\d+) requests, (?P<failed>\d+) failed, (?P<refused>\d+) refused \(4xx\), "
    r"monolith (?P<monolith>\d+), service (?P<service>\d+), no side (?P<none>\d+), held back \d+"
)


class Traffic:
    """One traffic process and what it prints."""

    def __init__(self, estate: Estate, log: Path) -> None:
        self.estate = estate
        self.log = log

    def start(self, url: str, rate: int, summary: float) -> None:
        words = ["--gateway", url, "--rate", str(rate), "--summary", str(summary)]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo.traffic", *words],
                cwd=REPOSITORY,
                env=self.estate.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self.log.read_text()

    def counts(self) -> dict[str, int]:
        """The sums of all summaries until now; empty before the first."""
        found = [match.groupdict() for match in SUMMARY.finditer(self.output())]
        return {key: sum(int(values[key]) for values in found) for key in (found[0] if found else {})}

    def wait_for(self, key: str, more_than: int) -> None:
        wait_until(lambda: self.counts().get(key, 0) > more_than, 20)

    def end(self) -> None:
        """Ends at once, in good order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=5) == 0, self.output()
        assert "Traceback" not in self.output()
        assert "never retrieved" not in self.output()


@pytest.fixture
def traffic(seeded: Estate, tmp_path: Path) -> Iterator[Traffic]:
    """Traffic that is not started yet; the rows that it writes are taken away again."""
    traffic = Traffic(seeded, tmp_path / "traffic.log")
    yield traffic
    if traffic.process.poll() is None:
        traffic.process.kill()
        traffic.process.wait()
    seeded.query("monolith", "DELETE FROM samples WHERE barcode LIKE 'DEMO-%'")
    seeded.query("monolith", "DELETE FROM notifications WHERE body LIKE 'Demo message%'")


def test_it_logs_in_reads_and_writes_at_the_rate_it_was_given(estate: Estate, traffic: Traffic) -> None:
    began = time.monotonic()
    traffic.start(estate.url("monolith"), rate=40, summary=1)
    written = "SELECT count(*) FROM samples WHERE barcode LIKE 'DEMO-%' AND submitted_by <> 'anonymous'"
    wait_until(lambda: estate.query("monolith", written)[0][0] > 0, 20)
    traffic.wait_for("requests", 60)
    traffic.end()
    sums = traffic.counts()
    # What a busy second leaves undone the next one catches up with; over all of them the rate is never exceeded.
    assert sums["requests"] <= 40 * (time.monotonic() - began) + 2
    assert sums["monolith"] >= sums["requests"] - 1
    assert (sums["failed"], sums["service"]) == (0, 0)
    # The three prefixes of week 5 are not on the monolith, and little else is refused.
    assert sums["refused"] < sums["requests"] / 3


def test_it_waits_for_a_gateway_that_is_away_and_goes_on(estate: Estate, traffic: Traffic) -> None:
    assert estate.run("demo.fault", "monolith", "down").returncode == 0
    traffic.start(estate.url("monolith"), rate=30, summary=0.5)
    wait_until(lambda: "does not take connections; waiting" in traffic.output(), 20)
    time.sleep(0.5)
    assert traffic.counts() == {}
    assert estate.run("demo.fault", "monolith", "none").returncode == 0
    traffic.wait_for("monolith", 5)
    traffic.end()
    assert traffic.output().count("takes connections again") == 1
    # While it is away nothing is sent but the requests that found it out: those of one round, of 30 a second.
    assert 1 <= traffic.counts()["failed"] <= 12


def test_failing_and_hanging_answers_are_counted_and_do_not_stop_it(estate: Estate, traffic: Traffic) -> None:
    assert estate.run("demo.fault", "monolith", "errors", "100").returncode == 0
    traffic.start(estate.url("monolith"), rate=30, summary=0.3)
    traffic.wait_for("failed", 5)
    assert estate.run("demo.fault", "monolith", "hang").returncode == 0
    time.sleep(0.3)
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
