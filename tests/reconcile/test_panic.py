"""A panic without a database over several gateways, and how a gateway is called when there is nobody to ask."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from migrations_app.gateways.base import Address, RollbackScript, Route, RoutingTable
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.gateways.envoy.files import APPLIED_FILE
from migrations_app.gateways.envoy.scripts import Scripts
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.reconcile import panic as module
from migrations_app.reconcile.adapters import Known
from migrations_app.reconcile.panic import flags_known, flags_of_week, panic

KEY = "USE_AUTH_SERVICE"
ROUTE = Route("auth", KEY, "/api/auth", Address("127.0.0.1", 7), 100)
TABLE = RoutingTable("tests", 3, Address("127.0.0.1", 9), (ROUTE,))


def envoy_at(folder, key: str = "") -> Known:
    """A gateway that is down."""
    url = "http://127.0.0.1:9"
    adapter = EnvoyGateway(folder=folder, gateway_url=url, admin_url=url, envoy_binary=None, down_timeout=0.0)
    return Known(key, adapter, folder, url)


@pytest.fixture
def well(tmp_path) -> Known:
    gateway = MemoryGateway()
    gateway.apply(gateway.render(TABLE))
    gateway.keep_scripts([RollbackScript("week-1.sh", "Week 1", (KEY,))], called="edge")
    return Known("", gateway, tmp_path / "well", "http://127.0.0.1:9")


@pytest.fixture
def hanging(tmp_path):
    """Its files are pipes that nobody writes to: whoever reads one waits for ever."""
    folder = tmp_path / "hangs"
    (folder / "rollback").mkdir(parents=True)
    pipes = [folder / APPLIED_FILE, folder / "rollback" / "scripts.json"]
    for pipe in pipes:
        os.mkfifo(pipe)
    before = set(threading.enumerate())
    yield envoy_at(folder, "gw-2")
    threads = [thread for thread in threading.enumerate() if thread not in before]
    while any(thread.is_alive() for thread in threads):
        for pipe in pipes:
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        for thread in threads:
            thread.join(0.01)


def test_a_gateway_whose_folder_hangs_holds_up_no_other_and_is_told(well, hanging, monkeypatch):
    monkeypatch.setattr(module, "TELLS_WITHIN", 0.2)
    monkeypatch.setattr(module, "PINS_WITHIN", 0.3)
    assert flags_of_week([hanging, well], 1) == (KEY,)
    assert flags_known([hanging, well]) is None
    assert flags_known([well]) == {KEY}
    ends = panic([hanging, well], [KEY], by="anna")
    first = next(ends)
    assert (first.name, first.error, first.generation) == ("edge", "", 3)
    assert first.milliseconds < 300
    (late,) = ends
    assert (late.name, late.error) == ("gw-2", "no end of it in time; its folder may hang")
    assert well.adapter.observe().weights == {KEY: 0}


def test_a_gateway_is_called_as_the_plan_has_it_and_by_its_folder_where_nobody_has_told(tmp_path):
    known = envoy_at(tmp_path)
    assert known.name() == str(tmp_path)
    assert Scripts(tmp_path).keep((), TABLE, known.url, called="edge")
    assert known.name() == "edge"
    assert replace(known, key="gw-2").name() == "gw-2"
    (tmp_path / "rollback" / "scripts.json").write_text('[{"name": "week-1.sh", "title": "One", "flags": ["USE_A"]}]')
    assert known.name() == str(tmp_path)
    assert flags_of_week([known], 1) == ("USE_A",)
