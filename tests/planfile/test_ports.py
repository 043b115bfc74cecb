"""The port offset moves loopback ports alone, there and back."""

from __future__ import annotations

import pytest

from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.problems import PlanFileError

from .samples import changed, plan_of


def test_every_loopback_port_moves_and_comes_back():
    plan = plan_of(
        changed(("127.0.0.1:3014", "localhost:3014"), ("upstream: 127.0.0.1:3010", 'upstream: "[::1]:3010"'))
    )
    shifted = shift_ports(plan, 20000)
    assert shifted.monolith.address == "127.0.0.1:23000"
    assert [service.upstream for service in shifted.services] == ["localhost:23014", "[::1]:23010"]
    assert shift_ports(shifted, -20000) == plan
    assert shift_ports(plan, 0) is plan


@pytest.mark.parametrize("address", ["10.0.0.7:3014", "storage.internal:3014", "localhost.internal:3014"])
def test_addresses_of_other_machines_stay(address):
    plan = plan_of(changed(("127.0.0.1:3014", address)))
    assert shift_ports(plan, 20000).services[0].upstream == address


@pytest.mark.parametrize("offset", [65535 - 3009, -3000])
def test_every_port_out_of_range_is_told(offset):
    with pytest.raises(PlanFileError) as raised:
        shift_ports(plan_of(changed(("127.0.0.1:3014", "127.0.0.1:65000"))), 63000)
    assert [problem.path for problem in raised.value.problems] == [
        "monolith.address",
        "services[storage].upstream",
        "services[auth].upstream",
    ]
    with pytest.raises(PlanFileError) as raised:
        shift_ports(plan_of(), offset)
    assert "change PORT_OFFSET" in raised.value.problems[0].reason
