"""Ports, the state folder, and what a second terminal finds."""

from __future__ import annotations

import contextlib
import fcntl
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import environment
from controlplane.environment import EnvironmentProblem, Ports


@contextlib.contextmanager
def held(state: Path) -> Iterator[None]:
    """A supervisor that holds the state folder."""
    state.mkdir(exist_ok=True)
    with (state / environment.LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_ports_have_defaults():
    ports = Ports.from_environment({})
    assert (ports.dashboard, ports.gateway, ports.gateway_admin) == (8000, 8089, 9901)
    assert (ports.postgres, ports.redis) == (5439, 6389)
    assert ports.demo == (3000, *range(3010, 3020))


def test_an_offset_moves_every_port():
    ports = Ports.from_environment({"PORT_OFFSET": "20000"})
    assert (ports.dashboard, ports.gateway, ports.postgres) == (28000, 28089, 25439)
    assert ports.demo[0] == 23000


def test_a_port_that_is_set_alone_takes_no_offset():
    ports = Ports.from_environment({"PORT_OFFSET": "20000", "GATEWAY_PORT": "9000"})
    assert (ports.gateway, ports.dashboard) == (9000, 28000)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("PORT_OFFSET", "many"),
        ("PORT_OFFSET", "-1"),
        ("PORT_OFFSET", "60000"),
        ("REDIS_PORT", "0"),
        ("REDIS_PORT", "x"),
    ],
)
def test_a_port_that_cannot_be_is_refused_by_name(setting: str, value: str):
    with pytest.raises(EnvironmentProblem, match=setting):
        Ports.from_environment({setting: value})


def test_the_state_folder_follows_the_environment(tmp_path: Path):
    assert environment.state_dir({}) == environment.REPOSITORY / ".state"
    assert environment.state_dir({"PORT_OFFSET": "20000"}) == environment.REPOSITORY / ".state-20000"
    assert environment.state_dir({"PORT_OFFSET": "20000", "STATE_DIR": str(tmp_path)}) == tmp_path


def test_the_only_running_installation_is_found(tmp_path: Path):
    find = environment.current_state_dir
    assert find({}, tmp_path) == tmp_path / ".state"
    with held(tmp_path / ".state-20000"):
        assert find({}, tmp_path) == tmp_path / ".state-20000"
        with held(tmp_path / ".state"):
            assert find({}, tmp_path) == tmp_path / ".state"
        with held(tmp_path / ".state-30000"):
            assert find({}, tmp_path) == tmp_path / ".state"
    assert find({}, tmp_path) == tmp_path / ".state"


def test_a_state_folder_is_in_use_only_while_it_is_held(tmp_path: Path):
    assert not environment.is_running(tmp_path / "none")
    with held(tmp_path):
        assert environment.is_running(tmp_path)
    assert not environment.is_running(tmp_path)


def test_runtime_values_come_back_as_they_went(tmp_path: Path):
    values = {"A": "plain", "B": "with 'quotes' and $signs # and = too", "C": ""}
    environment.write_runtime(tmp_path, values)
    assert environment.read_runtime(tmp_path) == values
    assert stat.S_IMODE((tmp_path / environment.RUNTIME_FILE).stat().st_mode) == 0o600


def test_runtime_fills_what_the_environment_leaves_open(tmp_path: Path):
    environment.write_runtime(tmp_path, {"DATABASE_URL": "postgres://a", "GATEWAY_URL": "http://a", "SECRET_KEY": "a"})
    environ = {"STATE_DIR": str(tmp_path), "SECRET_KEY": "mine"}
    assert environment.load_runtime(environ) == {"DATABASE_URL": "postgres://a", "GATEWAY_URL": "http://a"}
    assert environ["GATEWAY_URL"] == "http://a"
    assert environ["SECRET_KEY"] == "mine"


def test_another_database_takes_nothing_from_the_runtime(tmp_path: Path):
    environment.write_runtime(tmp_path, {"DATABASE_URL": "postgres://a", "GATEWAY_URL": "http://a"})
    environ = {"STATE_DIR": str(tmp_path), "DATABASE_URL": "postgres://b"}
    assert environment.load_runtime(environ) == {}
    assert "GATEWAY_URL" not in environ


def test_the_same_database_takes_the_rest_from_the_runtime(tmp_path: Path):
    environment.write_runtime(tmp_path, {"DATABASE_URL": "postgres://a", "GATEWAY_URL": "http://a"})
    environ = {"STATE_DIR": str(tmp_path), "DATABASE_URL": "postgres://a"}
    assert environment.load_runtime(environ) == {"GATEWAY_URL": "http://a"}


@pytest.mark.parametrize("mode", ["production", "test"])
def test_production_and_tests_take_nothing_from_the_runtime(tmp_path: Path, mode: str):
    environment.write_runtime(tmp_path, {"SECRET_KEY": "a"})
    assert environment.load_runtime({"STATE_DIR": str(tmp_path), "SWITCHYARD_MODE": mode}) == {}
