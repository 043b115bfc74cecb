"""Start and end of a process."""

import signal
import socket

import httpx
import pytest

from demo.estate import MEMBERS, Settings, SettingsError
from demo.faults import Files, read
from demo.process import GRACE_S
from tests.demo.conftest import Estate, ended_after, free_offset, heard, unanswered, wait_until

NAME = "rag"


class Beside:
    """One process of its own at another offset, so that the shared estate is left alone.

    With `clocked` it tells how long it took to end, on a clock that no other process can hurry or delay.
    """

    def __init__(self, estate: Estate, folder, *, clocked: bool = False, **environ: str) -> None:
        self.modules = ("tests.demo.clocked", "demo.process") if clocked else ("demo.process",)
        offset = free_offset()
        self.environ = {"PORT_OFFSET": str(offset), "STATE_DIR": str(folder)} | environ
        self.port = MEMBERS[NAME].port + offset
        self.files = Files(folder / "demo", NAME, self.port)
        self.estate = estate

    def __enter__(self) -> "Beside":
        self.process = self.estate.start(*self.modules, NAME, **self.environ)
        wait_until(lambda: bool(read(self.files.state)), 20)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=20)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status and what it printed."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_a_second_with_connections_open(seeded: Estate, tmp_path, number: int) -> None:
    with Beside(seeded, tmp_path, clocked=True) as beside, httpx.Client(trust_env=False, verify=False) as client:
        assert client.get(beside.url("/rag")).status_code == 200
        with beside.connect() as half:
            half.sendall(b"POST /rag HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
            heard(beside.port)
            status, output = beside.end(number)
            assert unanswered(half)
    assert status == 0
    assert GRACE_S <= ended_after(output) < 1
    lines = output.splitlines()
    assert len(lines) == 3, output
    assert lines[0].startswith(f"rag-service: listening on http://127.0.0.1:{beside.port}, database ")
    assert lines[1] == "rag-service: stopped"
    assert not beside.files.state.exists()


@pytest.mark.parametrize("words", [["hang"], ["slow", "60000"]])
def test_a_signal_ends_it_within_a_second_while_a_fault_holds_a_request(
    seeded: Estate, tmp_path, words: list[str]
) -> None:
    with Beside(seeded, tmp_path, clocked=True) as beside:
        assert seeded.run("demo.fault", NAME, *words, **beside.environ).returncode == 0
        with beside.connect() as client:
            client.sendall(b"GET /rag HTTP/1.1\r\nhost: x\r\n\r\n")
            heard(beside.port)
            status, output = beside.end()
            assert unanswered(client)
    assert status == 0
    assert GRACE_S <= ended_after(output) < 1
    assert "Traceback" not in output


def test_a_signal_ends_it_without_a_grace_while_it_is_down(seeded: Estate, tmp_path) -> None:
    with Beside(seeded, tmp_path, clocked=True) as beside:
        assert seeded.run("demo.fault", NAME, "down", **beside.environ).returncode == 0
        with pytest.raises(ConnectionRefusedError):
            beside.connect()
        status, output = beside.end()
    assert status == 0
    assert ended_after(output) < GRACE_S
    assert "Traceback" not in output


def test_a_request_that_is_nearly_done_is_answered_before_the_end(seeded: Estate, tmp_path) -> None:
    with Beside(seeded, tmp_path, clocked=True) as beside:
        assert seeded.run("demo.fault", NAME, "slow", "300", **beside.environ).returncode == 0
        with beside.connect() as client:
            # The clock would not wait for a database, so this is what is answered without one.
            client.sendall(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
            heard(beside.port)
            status, output = beside.end()
            assert client.recv(100).startswith(b"HTTP/1.1 404")
    assert status == 0
    assert ended_after(output) <= GRACE_S


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
        assert beside.end()[0] == 0


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
