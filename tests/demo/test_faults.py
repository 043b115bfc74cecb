"""Faults on running processes: each bites, is confirmed, is seen, and goes away."""

import asyncio
import os
import select
import signal
import socket

import httpx
import pytest

from demo import fault
from demo.app import App
from demo.estate import MEMBERS
from demo.faults import Fault, FaultError, Files, Spread, read
from tests.demo.clock import Clock
from tests.demo.conftest import Estate, free_offset, heard, unanswered, wait_until

NAME, PATH = "notification", "/notifications"


def put(estate: Estate, *words: str, name: str = NAME) -> None:
    done = estate.run("demo.fault", name, *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "confirmed in" in done.stdout


def line_of(estate: Estate, name: str = NAME) -> str:
    lines = estate.run("demo.fault", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(MEMBERS)
    return next(line for line in lines if line.startswith(name))


@pytest.mark.parametrize("words", ["down", "hang", "none", "slow 1", "slow 60000", "errors 0.01", "errors 100"])
def test_words_of_a_fault_read_back_as_they_were(words: str) -> None:
    assert " ".join(Fault.parse(words.split()).words()) == words


@pytest.mark.parametrize(
    "words",
    ["", "up", "slow", "slow x", "slow 0", "slow 60001", "slow nan", "errors 0", "errors 101", "errors inf", "down 1"],
)
def test_words_that_are_no_fault_are_refused(words: str) -> None:
    with pytest.raises(FaultError):
        Fault.parse(words.split())


@pytest.mark.parametrize(
    ("percent", "requests", "failed"), [(25, 4, 1), (1, 100, 1), (33.33, 10_000, 3333), (100, 5, 5)]
)
def test_errors_are_spread_evenly(percent: float, requests: int, failed: int) -> None:
    spread = Spread()
    hundredths = Fault.parse(["errors", str(percent)]).amount
    for _ in range(3):
        assert sum(spread.hit(hundredths) for _ in range(requests)) == failed


def test_down_refuses_connections_and_none_brings_it_back(estate: Estate) -> None:
    pid = estate.processes[NAME].pid
    assert estate.get(NAME, "/health").status_code == 200
    put(estate, "down")
    with httpx.Client(trust_env=False, verify=False) as fresh, pytest.raises(httpx.ConnectError):
        fresh.get(estate.url(NAME, "/health"))
    with pytest.raises(httpx.TransportError):
        estate.get(NAME, PATH)
    assert "down, since" in line_of(estate)
    assert estate.get("storage", "/health").status_code == 200
    put(estate, "down")
    put(estate, "none")
    assert estate.get(NAME, "/health").status_code == 200
    assert "no fault" in line_of(estate)
    assert estate.processes[NAME].pid == pid
    assert estate.processes[NAME].poll() is None


def test_down_cuts_a_connection_that_is_open(estate: Estate) -> None:
    with socket.create_connection(("127.0.0.1", estate.settings.port(MEMBERS[NAME])), timeout=2) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        put(estate, "down")
        client.settimeout(1)
        try:
            while client.recv(1000):
                pass
        except ConnectionResetError:
            pass


def test_a_port_lost_while_down_is_said_and_the_fault_stays(estate: Estate) -> None:
    put(estate, "down")
    with socket.create_server(("127.0.0.1", estate.settings.port(MEMBERS[NAME]))):
        done = estate.run("demo.fault", NAME, "none")
        assert done.returncode == 1
        assert "is taken" in done.stdout
        assert "down, since" in line_of(estate)
    put(estate, "none")
    assert estate.get(NAME, "/health").status_code == 200


def test_hang_takes_connections_and_never_answers(estate: Estate) -> None:
    put(estate, "hang")
    for path in (PATH, "/health"):
        with pytest.raises(httpx.ReadTimeout):
            estate.get(NAME, path, timeout=0.3)
    assert "hang, since" in line_of(estate)


def test_lifting_a_hang_cuts_what_hangs_and_answers_what_comes(estate: Estate) -> None:
    put(estate, "hang")
    port = estate.settings.port(MEMBERS[NAME])
    waiting = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(5)]
    for client in waiting:
        client.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    heard(port)
    assert select.select(waiting, [], [], 0)[0] == []
    put(estate, "none")
    for client in waiting:
        with client:
            assert unanswered(client)
    assert estate.get(NAME, PATH).status_code == 200


@pytest.mark.parametrize("path", [PATH, "/health"])
def test_slow_delays_an_answer_by_exactly_so_much(seeded: Estate, path: str) -> None:
    clock = Clock()
    app = App(MEMBERS[NAME], seeded.settings)

    async def ask(fault: Fault) -> tuple[int, float]:
        app.fault, began = fault, clock.time()
        answer = await client.get(path)
        return answer.status_code, clock.time() - began

    with asyncio.Runner(loop_factory=lambda: clock) as runner:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", trust_env=False)
        assert runner.run(ask(Fault("slow", 300))) == (200, pytest.approx(0.3))
        assert runner.run(ask(Fault())) == (200, 0)
        runner.run(client.aclose())
        runner.run(app.store.close())


def test_slow_delays_each_answer_and_none_ends_it(estate: Estate) -> None:
    put(estate, "slow", "300")
    for path in (PATH, "/health"):
        answer = estate.get(NAME, path)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() >= 0.3
    # Longer than the client waits.
    put(estate, "slow", "60000")
    put(estate, "none")
    assert estate.get(NAME, PATH).status_code == 200


def test_errors_fail_exactly_their_share(estate: Estate) -> None:
    put(estate, "errors", "25")
    answers = [estate.get(NAME, "/health" if n % 2 else PATH) for n in range(40)]
    assert [answer.status_code for answer in answers].count(500) == 10
    for n in range(0, 40, 4):
        assert [answer.status_code for answer in answers[n : n + 4]].count(500) == 1
    failed = next(answer for answer in answers if answer.status_code == 500)
    assert failed.json()["error"] == "injected fault"
    assert failed.headers["x-served-by"] == "notification-service"
    put(estate, "none")
    assert {estate.get(NAME, PATH).status_code for _ in range(8)} == {200}


def test_the_monolith_can_be_broken_as_well(estate: Estate) -> None:
    put(estate, "errors", "100", name="monolith")
    answer = estate.get("monolith", "/api/samples")
    assert (answer.status_code, answer.headers["x-side"]) == (500, "monolith")
    put(estate, "none", name="monolith")


def test_a_process_that_does_not_run_is_said_so(estate: Estate, tmp_path) -> None:
    done = estate.run("demo.fault", NAME, "down", STATE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, f"fault: {NAME} is not running\n")
    listing = estate.run("demo.fault", "list", STATE_DIR=str(tmp_path))
    assert (listing.returncode, listing.stdout.count("not running")) == (0, len(MEMBERS))


def test_two_estates_do_not_hear_each_other_and_a_killed_process_does_not_seem_to_run(estate: Estate, tmp_path) -> None:
    beside = {"PORT_OFFSET": str(free_offset()), "STATE_DIR": str(tmp_path)}
    port = MEMBERS[NAME].port + int(beside["PORT_OFFSET"])
    process = estate.start("demo.process", NAME, **beside)
    try:
        files = Files(tmp_path / "demo", NAME, port)
        wait_until(lambda: read(files.state).get("port") == port)
        assert estate.run("demo.fault", NAME, "errors", "100", **beside).returncode == 0
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 500
        assert estate.get(NAME, "/health").status_code == 200
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    done = estate.run("demo.fault", NAME, "down", **beside)
    assert (done.returncode, done.stdout) == (1, f"fault: {NAME} is not running\n")


def test_a_stopped_process_does_not_confirm(estate: Estate) -> None:
    os.kill(estate.processes[NAME].pid, signal.SIGSTOP)
    try:
        slow = Fault.parse(["slow", "5"])
        assert fault.put(NAME, slow, estate.settings, within_s=0.5) == f"{NAME} did not confirm within 0.5 s"
    finally:
        os.kill(estate.processes[NAME].pid, signal.SIGCONT)
    wait_until(lambda: "slow 5 ms" in line_of(estate))


@pytest.mark.parametrize("words", [[], ["nobody", "down"], [NAME], [NAME, "broken"], [NAME, "slow"], ["list", "all"]])
def test_words_that_make_no_sense_end_with_two(estate: Estate, words: list[str]) -> None:
    done = estate.run("demo.fault", *words)
    assert done.returncode == 2
    assert done.stdout
    assert "Traceback" not in done.stderr
