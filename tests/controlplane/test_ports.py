"""A taken port is one line that says what to do."""

from __future__ import annotations

import os
import socket

import pytest

from controlplane.embedded import ports
from controlplane.embedded.children import free_port
from controlplane.embedded.errors import StartFailed
from controlplane.embedded.ports import WantedPort


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_free_ports_pass():
    ports.check([WantedPort(free_port(), "the dashboard", "DASHBOARD_PORT")])


def test_a_taken_port_names_itself_its_holder_what_wants_it_and_the_setting(taken: int):
    with pytest.raises(StartFailed) as caught:
        ports.check([WantedPort(taken, "the dashboard", "DASHBOARD_PORT or PORT_OFFSET")])
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        f"Port {taken} is taken",
        f"pid {os.getpid()}",
        "the dashboard wants it",
        "DASHBOARD_PORT or PORT_OFFSET",
    ):
        assert part in line


def test_further_taken_ports_are_on_the_same_line(taken: int):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        second = other.getsockname()[1]
        with pytest.raises(StartFailed, match=rf"also taken: {second}\)"):
            ports.check([WantedPort(taken, "a", "A"), WantedPort(second, "b", "B")])


def test_two_parts_that_want_one_port_are_both_named():
    port = free_port()
    with pytest.raises(StartFailed, match=r"wanted by the gateway and by Redis: change GATEWAY_PORT or REDIS_PORT"):
        ports.check([WantedPort(port, "the gateway", "GATEWAY_PORT"), WantedPort(port, "Redis", "REDIS_PORT")])
