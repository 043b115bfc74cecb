"""Start and end of a process."""

import signal
import socket
import threading
import time

import httpx
import pytest

from demo.estate import MEMBERS, Settings, SettingsError
from demo.faults import Files, read
from tests.demo.conftest import Estate, free_offset, wait_until

NAME = "rag"


class Beside:
    """One process of its own at another offset, so that the shared estate is left alone."""

    def __init__(self, estate: Estate, folder, **environ: str) -> None:
        offset = free_offset()
        self.environ = {"PORT_OFFSET": str(offset), "STATE_DIR": str(folder)} | environ
        self.port = MEMBERS[NAME].port + offset
        self.files = Files(folder / "demo", NAME, self.port)
        self.estate = estate

    def __enter__(self) -> "Beside":
        self.process = self.estate.start("demo.process", NAME, **self.environ)
        wait_until(lambda: bool(read(self.files.state)))
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=5)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def end(self, number: int = signal.SIGTERM) -> tuple[float, int, str]:
        """Seconds until the process has ended, its exit status and what it printed."""
        began = time.monotonic()
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=5)
        return time.monotonic() - began, self.process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_a_second_with_connections_open(seeded: Estate, tmp_path, number: int) -> None:
    with Beside(seeded, tmp_path) as beside, httpx.Client(trust_env=False, verify=False) as client:
        assert client.get(beside.url("/rag")).status_code == 200
        with socket.create_connection(("127.0.0.1", beside.port)) as half:
            half.sendall(b"POST /rag HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
            seconds, status, output = beside.end(number)
    assert (status, seconds < 3) == (0, True)
    lines = output.splitlines()
    assert len(lines) == 2, output
    assert lines[0].startswith(f"rag-service: listening on http://127.0.0.1:{beside.port}, database ")
    assert lines[1] == "rag-service: stopped"
    assert not beside.files.state.exists()


@pytest.mark.parametrize("words", [["hang"], ["slow", "60000"], ["down"]])
def test_a_signal_ends_it_within_a_second_under_a_fault(seeded: Estate, tmp_path, words: list[str]) -> None:
    with Beside(seeded, tmp_path) as beside:
        assert seeded.run("demo.fault", NAME, *words, **beside.environ).returncode == 0
        failures: list[Exception] = []

        def ask() -> None:
            try:
                httpx.get(beside.url("/rag"), timeout=10, trust_env=False)
            except httpx.TransportError as error:
                failures.append(error)

        client = threading.Thread(target=ask)
        client.start()
        time.sleep(0.3)
        seconds, status, output = beside.end()
        client.join(timeout=2)
    assert (status, seconds < 3, len(failures)) == (0, True, 1)
    assert "Traceback" not in output


def test_a_request_that_is_nearly_done_is_answered_before_the_end(seeded: Estate, tmp_path) -> None:
    with Beside(seeded, tmp_path) as beside:
        assert seeded.run("demo.fault", NAME, "slow", "300", **beside.environ).returncode == 0
        answers: list[int] = []
        client = threading.Thread(
            target=lambda: answers.append(httpx.get(beside.url("/rag"), trust_env=False).status_code)
        )
        client.start()
        time.sleep(0.2)
        beside.end()
        client.join(timeout=2)
    assert answers == [200]


def test_a_new_start_has_no_fault(seeded: Estate, tmp_path) -> None:
    with Beside(seeded, tmp_path) as beside:
        assert seeded.run("demo.fault", NAME, "down", **beside.environ).returncode == 0
        second = seeded.run("demo.process", NAME, **beside.environ)
        assert (second.returncode, second.stdout.count("\n")) == (1, 1)
        assert "already runs" in second.stdout
        beside.end()
        with beside:
            assert httpx.get(beside.url("/health"), trust_env=False).status_code == 200


@pytest.mark.parametrize("name", ["monolith", "reports"])
def test_a_taken_port_is_one_line_with_the_port_and_who_wanted_it(running: Estate, name: str, tmp_path) -> None:
    done = running.run("demo.process", name, STATE_DIR=str(tmp_path))
    port = running.settings.port(MEMBERS[name])
    assert done.returncode == 1
    assert done.stdout == (
        f"{MEMBERS[name].served_by}: port {port} is taken: {MEMBERS[name].served_by} wants it; "
        "PORT_OFFSET moves every port\n"
    )
    assert done.stderr == ""


def test_without_its_database_it_starts_and_says_so(seeded: Estate, tmp_path) -> None:
    with Beside(seeded, tmp_path, DEMO_DATABASE_URL="postgresql://postgres@127.0.0.1:1/postgres") as beside:
        answer = httpx.get(beside.url("/health"), trust_env=False)
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert "refused" in answer.json()["database"]
        assert httpx.get(beside.url("/rag"), trust_env=False).status_code == 503
        assert beside.end()[1] == 0


@pytest.mark.parametrize("arguments", [["nobody"], ["rag", "auth"]])
def test_a_name_that_is_not_in_the_estate_ends_with_two(seeded: Estate, arguments: list[str]) -> None:
    done = seeded.run("demo.process", *arguments)
    assert (done.returncode, done.stderr) == (2, "")
    assert "spreadsheet" in done.stdout


def test_a_state_folder_that_cannot_be_used_is_one_line(seeded: Estate, tmp_path) -> None:
    (tmp_path / "file").touch()
    done = seeded.run("demo.process", NAME, PORT_OFFSET=str(free_offset()), STATE_DIR=str(tmp_path / "file"))
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")
    assert "STATE_DIR" in done.stdout


def test_a_command_beside_a_running_demo_needs_no_settings(seeded: Estate, tmp_path) -> None:
    runtime = ("PORT_OFFSET", "DEMO_DATABASE_URL")
    (tmp_path / "runtime.env").write_text("".join(f"{name}={seeded.environ[name]}\n" for name in runtime))
    hidden = {*runtime, "DATABASE_URL", "SWITCHYARD_MODE"}
    terminal = {name: value for name, value in seeded.environ.items() if name not in hidden}
    second = Estate(terminal | {"STATE_DIR": str(tmp_path)}, seeded.client)
    check = second.run("demo.migrate_users", "--check")
    assert "of 40 users are the same on both sides" in check.stdout, check.stdout + check.stderr
    port = str(seeded.settings.port(MEMBERS[NAME]))
    assert f"{NAME:<13} {port:>5}  not running" in second.run("demo.fault", "list").stdout.splitlines()


@pytest.mark.parametrize("offset", ["x", "-1", "60001", "1.5"])
def test_an_offset_that_makes_no_sense_is_named(offset: str) -> None:
    with pytest.raises(SettingsError, match="PORT_OFFSET"):
        Settings.read({"PORT_OFFSET": offset})


def test_settings_of_two_offsets_share_nothing() -> None:
    here, there = Settings.read({}), Settings.read({"PORT_OFFSET": "20000"})
    assert (here.port(MEMBERS["monolith"]), there.port(MEMBERS["monolith"])) == (3000, 23000)
    assert (here.state_folder.parts[-2:], there.state_folder.parts[-2:]) == (
        (".state", "demo"),
        (".state-20000", "demo"),
    )
    assert here.database_url != there.database_url


def test_each_process_stays_small(estate: Estate) -> None:
    for name, process in estate.processes.items():
        estate.get(name, "/health")
        with open(f"/proc/{process.pid}/status") as status:
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        assert resident < 60_000, f"{name} holds {resident} kB"
