"""Three real gateways: one dies, hangs, starts again; the others, the counters and what is said of it stay right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.gateways import Place, write_places
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import SYSTEM
from migrations_app.choices import AuditKind
from migrations_app.gateways.base import Side
from migrations_app.models import AuditEvent, Gateway
from migrations_app.observe.last_minute import last_minute
from migrations_app.observe.traffic import read_once
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.loop import reconcile_all
from tests.counted import requests_in
from tests.factories import make_healthy, on_gateways
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, WEEK_1, FreezableEnvoy, System, wait_for

MORE = ("gw-2", "gw-3")


@pytest.fixture
def envoys(system: System, tmp_path: Path, settings) -> Iterator[dict[str, FreezableEnvoy]]:
    """By key; the plan is on all of them, and they run it."""
    found = {"main": system.envoy}
    try:
        for key in MORE:
            found[key] = FreezableEnvoy(tmp_path / key)
            found[key].start()
        settings.GATEWAYS = {
            key: Place(found[key].folder, url(found[key].port), url(found[key].admin_port)) for key in MORE
        }
        load_plan(on_gateways(system.estate.document(), *MORE), actor=SYSTEM, reason="for a test")
        make_healthy()
        assert {one.gateway: one.error for one in reconcile_all()} == dict.fromkeys(("gw-2", "gw-3", "main"), "")
        yield found
    finally:
        for row in Gateway.objects.filter(key__in=MORE):
            adapter_for(row).close()
        for key in MORE:
            if key in found:
                found[key].close()


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def serves(envoy: FreezableEnvoy) -> dict[str, str | None]:
    return {key: envoy.ask(f"{prefix}/1").who for key, prefix in WEEK_1.items()}


def observed() -> dict[str, int | None]:
    return dict(Gateway.objects.values_list("key", "observed_generation"))


def test_one_that_is_killed_is_named_and_catches_up_by_itself_when_it_starts_again(
    system: System, envoys: dict[str, FreezableEnvoy], settings
):
    envoys["gw-3"].stop()
    done = system.manage("week", "enable", "1", GATEWAYS=write_places(settings.GATEWAYS))
    assert done.returncode == 4, done.stdout + done.stderr
    assert "Applied on 2 of 3 gateways, not on gw-3: " in done.stdout
    assert done.stdout.rstrip().endswith("By hand: manage.py reconcile --gateway gw-3")
    assert serves(envoys["main"]) == serves(envoys["gw-2"]) == ON_THE_SERVICES
    envoys["gw-3"].start(prepared=False)
    wait_for(lambda: not [one.error for one in reconcile_all() if one.error], "a pass over all succeeds")
    assert serves(envoys["gw-3"]) == ON_THE_SERVICES
    assert not AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).exists()
    hold(system, envoys=envoys)


def test_one_that_hangs_does_not_hold_up_a_rollback_on_the_others(system: System, envoys: dict[str, FreezableEnvoy]):
    enable_week(number=1, actor=OPERATOR)
    assert {one.error for one in reconcile_all()} == {""}
    envoys["gw-3"].freeze()
    try:
        reconcile_all()
        rolled_back = roll_back_week(number=1, actor=OPERATOR)
        # The pass of a worker is over while the one that hangs is still within its time-outs.
        done = reconcile_all(leave_late=True)
        assert [(one.gateway, one.error) for one in done if one.gateway != "gw-3"] == [("gw-2", ""), ("main", "")]
        assert serves(envoys["main"]) == serves(envoys["gw-2"]) == ON_THE_MONOLITH
        assert observed() == {"main": rolled_back.generation, "gw-2": rolled_back.generation, "gw-3": None}
    finally:
        envoys["gw-3"].thaw()
    wait_for(lambda: observed()["gw-3"] == rolled_back.generation or not reconcile_all(), "it catches up")
    assert serves(envoys["gw-3"]) == ON_THE_MONOLITH
    hold(system, envoys=envoys)


def test_counters_are_right_when_one_of_them_starts_again_or_is_away(envoys: dict[str, FreezableEnvoy]):
    def ask(key: str, times: int) -> None:
        for _ in range(times):
            assert envoys[key].ask("/api/rag/1").status == 200

    def told() -> int:
        read_once()
        return requests_in(last_minute()).get("rag", {}).get(Side.MONOLITH, 0)

    for key in envoys:
        ask(key, 20)
    read_once()
    before = told()
    ask("main", 3)
    ask("gw-2", 2)
    envoys["gw-3"].stop()
    wait_for(lambda: told() == before + 5, "what the others have served is counted while one is away")
    envoys["gw-3"].start()
    reconcile_all()
    ask("gw-3", 4)  # fewer than the 20 that it had counted before
    ask("main", 1)
    wait_for(lambda: told() == before + 10, "the one that started again counts from zero, the others go on")
