"""Demo traffic, with the monolith in the gateway's place: it answers the same paths."""

import re
import signal
import socket
import subprocess
import time

import pytest

from tests.demo.conftest import Estate, wait_until

SUMMARY = re.compile(
    r"traffic: last \d+ s: (?P<requests>\d+) requests, (?P<failed>\d+) failed, (?P<refused>\d+) refused \(4xx\), "
    r"monolith (?P<monolith>\d+), service (?P<service>\d+), no side (?P<none>\d+), held back \d+"
)


def end(process: subprocess.Popen[str]) -> tuple[float, str]:
    """Seconds until it has ended, and what it printed."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=5)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "never retrieved" not in output
    return time.monotonic() - began, output


def counts(output: str) -> dict[str, int]:
    """The sums of all summaries."""
    found = [match.groupdict() for match in SUMMARY.finditer(output)]
    assert found, output
    return {key: sum(int(values[key]) for values in found) for key in found[0]}


def test_it_logs_in_reads_and_writes_at_the_rate_it_was_given(estate: Estate) -> None:
    before = estate.query("monolith", "SELECT count(*) FROM samples")[0][0]
    traffic = estate.start("demo.traffic", "--gateway", estate.url("monolith"), "--rate", "60", "--summary", "1")
    written = "SELECT count(*) FROM samples WHERE barcode LIKE 'DEMO-%' AND submitted_by <> 'anonymous'"
    wait_until(lambda: estate.query("monolith", written)[0][0] > 0, 20)
    seconds, output = end(traffic)
    sums = counts(output)
    assert seconds < 0.8
    assert sums["monolith"] >= sums["requests"] - 1 > 20
    assert (sums["failed"], sums["service"]) == (0, 0)
    # The three prefixes of week 5 are not on the monolith, and nothing else is refused.
    assert sums["refused"] < sums["requests"] / 3
    whole = list(SUMMARY.finditer(output))[:-1]
    assert all(40 <= int(match["requests"]) <= 62 for match in whole[1:]), output
    estate.query("monolith", "DELETE FROM samples WHERE barcode LIKE 'DEMO-%'")
    estate.query("monolith", "DELETE FROM notifications WHERE id > 120")
    assert estate.query("monolith", "SELECT count(*) FROM samples")[0][0] == before


def test_it_waits_for_a_gateway_that_is_away_and_goes_on(estate: Estate) -> None:
    assert estate.run("demo.fault", "monolith", "down").returncode == 0
    traffic = estate.start("demo.traffic", "--gateway", estate.url("monolith"), "--rate", "30", "--summary", "0.5")
    time.sleep(1.2)
    assert estate.run("demo.fault", "monolith", "none").returncode == 0
    time.sleep(1.5)
    seconds, output = end(traffic)
    assert output.count("does not take connections; waiting") == 1
    assert output.count("takes connections again") == 1
    sums = counts(output)
    # While it is away nothing is sent but the first request.
    assert 1 <= sums["failed"] <= 3
    assert sums["monolith"] > 5
    assert seconds < 0.8
    estate.query("monolith", "DELETE FROM samples WHERE barcode LIKE 'DEMO-%'")
    estate.query("monolith", "DELETE FROM notifications WHERE id > 120")


def test_failing_and_hanging_answers_are_counted_and_do_not_stop_it(estate: Estate) -> None:
    assert estate.run("demo.fault", "monolith", "errors", "100").returncode == 0
    traffic = estate.start("demo.traffic", "--gateway", estate.url("monolith"), "--rate", "30", "--summary", "0.4")
    time.sleep(1.2)
    assert estate.run("demo.fault", "monolith", "hang").returncode == 0
    time.sleep(0.5)
    seconds, output = end(traffic)
    sums = counts(output)
    assert sums["failed"] == sums["requests"] > 3
    assert seconds < 0.8


def test_logins_that_are_refused_are_counted_as_refused(estate: Estate, unmigrated) -> None:
    traffic = estate.start("demo.traffic", "--gateway", estate.url("auth"), "--rate", "30", "--summary", "0.5")
    time.sleep(1.2)
    _, output = end(traffic)
    sums = counts(output)
    # A service knows no path under /api: everything is refused, and it says which side refused it.
    assert sums["refused"] == sums["service"] >= sums["requests"] - 1 > 3
    assert sums["failed"] == 0


def test_the_end_is_at_once_while_it_waits(seeded: Estate) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        traffic = seeded.start("demo.traffic", "--gateway", url)
        time.sleep(0.9)
        seconds, output = end(traffic)
    assert "waiting for it" in output
    assert seconds < 0.5


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "x"], ["--rate", "5000"]])
def test_a_rate_that_makes_no_sense_is_refused(seeded: Estate, arguments: list[str]) -> None:
    assert seeded.run("demo.traffic", *arguments).returncode == 2
