"""`reconcile --gateway` and `ready` where a plan has several gateways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from controlplane.gateways import Place
from migrations_app.actions.flags import set_weight
from migrations_app.management.commands.ready import missing_parts
from migrations_app.models import Gateway
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.adapters import forget_adapters
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import memory_gateway, on_gateways, tick_all, tracseq

KEY = "USE_RAG_SERVICE"


@pytest.fixture
def two(plan, shell):
    load_plan(on_gateways(tracseq(adapter="memory", by_hand=True), "gw-2"), actor=shell, reason="for a test")
    reconcile_all()
    tick_all(1, shell)


def test_reconcile_brings_one_of_them_to_what_is_asked(two, shell, capsys):
    generation = set_weight(key=KEY, weight=100, actor=shell).generation
    call_command("reconcile", "--gateway", "gw-2")
    assert capsys.readouterr().out == f"Gateway gw-2 runs generation {generation}.\n"
    assert memory_gateway("gw-2").observe().weights[KEY] == 100
    assert memory_gateway().observe().weights[KEY] == 0


def test_reconcile_of_one_that_the_plan_does_not_have_names_those_that_it_has(two):
    with pytest.raises(CommandError, match="no gateway gw-9; the plan has gw-2, main") as raised:
        call_command("reconcile", "--gateway", "gw-9")
    assert raised.value.returncode == 2


def test_what_a_command_did_is_told_for_each_of_them(two, capsys, settings):
    settings.CONFIRM_WITHIN = 0.1
    memory_gateway("gw-2").answers = False
    with pytest.raises(SystemExit) as left:
        call_command("flag", "set", KEY, "100", "--json", "--reason", "as planned")
    assert left.value.code == 4
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == "manage.py reconcile --gateway gw-2"
    assert [(one["gateway"], one["confirmed"]) for one in told["gateways"]] == [("gw-2", False), ("main", True)]


def test_ready_names_a_gateway_that_this_process_does_not_know_and_the_setting(plan, shell, settings, tmp_path: Path):
    settings.GATEWAY_DIR = tmp_path / "main"
    settings.GATEWAYS = {"gw-2": Place(tmp_path / "gw-2", "http://127.0.0.1:1", "http://127.0.0.1:2")}
    load_plan(on_gateways(tracseq(by_hand=True), "gw-2"), actor=shell, reason="for a test")
    settings.GATEWAYS = {}
    forget_adapters()
    told = "the setting GATEWAYS of this process does not say where gw-2 runs"
    assert f"Gateway gw-2 cannot be asked: {told}" in missing_parts()
    done = {one.gateway: one for one in reconcile_all()}
    assert (done["gw-2"].error, done["gw-2"].changed) == (told, False)
    assert Gateway.objects.get(key="gw-2").error == told
    assert not (tmp_path / "gw-2").exists()
