"""Several gateways in a plan file: what it may say, what differs, and which the settings must place."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.gateways import Place
from migrations_app.errors import Invalid
from migrations_app.models import Gateway
from migrations_app.planfile.conflicts import conflicts
from migrations_app.planfile.diff import compare
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.schema import Plan
from migrations_app.planfile.writer import write
from tests.factories import on_gateways, tracseq

from .samples import changed, plan_of, problems_of

ONE = "gateway: {key: main, adapter: memory}"


def instances(listed: str) -> tuple[str, str]:
    return ONE, f"gateway: {{key: main, adapter: memory, instances: {listed}}}"


def on(*keys: str) -> Plan:
    return plan_of(changed(instances(f"[{', '.join(keys)}]")))


def test_one_gateway_is_called_by_its_key():
    assert plan_of().gateway.keys == ("main",)
    assert "instances" not in write(plan_of())


def test_several_are_read_and_written_and_read_again():
    plan = on("main", "gw-2", "gw-3")
    assert plan.gateway.keys == ("main", "gw-2", "gw-3")
    assert plan_of(write(plan)) == plan


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ("[main, gw-2, gw-2]", "instances names gw-2 twice"),
        ("[gw-2]", "instances must name main, the gateway's key, too"),
        ("[main, GW 2]", "not a key"),
        (f"[main, {', '.join(f'gw-{number}' for number in range(20))}]", "names 21 gateways; 20 are the most"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(listed: str, told: str):
    (problem,) = problems_of(changed(instances(listed)))
    assert problem.line == 2
    assert told in str(problem)


def test_gateways_are_added_and_removed_in_the_difference_and_need_a_new_routing_table():
    difference = compare(plan_of(), on("main", "gw-2"))
    assert (difference.lines, difference.routing) == (("gateway 'gw-2' added",), True)
    assert compare(on("main", "gw-2"), plan_of()).lines == ("gateway 'gw-2' removed",)
    assert not compare(plan_of(), on("main"))
    assert not compare(on("main", "gw-2"), on("gw-2", "main"))


def test_they_may_come_and_go_once_a_week_has_been_started_but_the_first_one_stays():
    assert conflicts(on("main", "gw-2"), on("main", "gw-3"), started={1}, on=set()) == []
    other = plan_of(changed(instances("[main, gw-2]"), ("key: main", "key: gw-2")))
    assert conflicts(on("main", "gw-2"), other, started={1}, on=set()) == [
        "The gateway's key and adapter cannot change once a week has been started."
    ]


def test_a_gateway_that_the_settings_do_not_place_is_refused_with_its_key_and_the_setting(db, shell, settings):
    with pytest.raises(Invalid, match=r"where gw-2 and gw-3 run.* GATEWAYS, such as gw-2=DIR,URL,ADMIN_URL"):
        load_plan(on_gateways(tracseq(), "gw-2", "gw-3"), actor=shell)
    assert not Gateway.objects.exists()
    settings.GATEWAYS = {"gw-2": Place(Path("/gateways/2"), "http://127.0.0.1:1", "http://127.0.0.1:2")}
    with pytest.raises(Invalid, match="where gw-3 runs"):
        load_plan(on_gateways(tracseq(), "gw-2", "gw-3"), actor=shell)
    load_plan(on_gateways(tracseq(), "gw-2"), actor=shell)
    assert dict(Gateway.objects.values_list("key", "first")) == {"main": True, "gw-2": False}
    settings.GATEWAYS |= {"main": Place(Path("/gateways/1"), "http://127.0.0.1:3", "http://127.0.0.1:4")}
    with pytest.raises(Invalid, match="GATEWAYS names main"):
        load_plan(tracseq(), actor=shell)


def test_another_one_may_be_the_first_before_anything_has_begun(db, shell):
    load_plan(on_gateways(tracseq(adapter="memory"), "gw-2"), actor=shell)
    document = on_gateways(tracseq(adapter="memory"), "gw-2")
    gateway = document.gateway.model_copy(update={"key": "gw-2"})
    load_plan(document.model_copy(update={"gateway": gateway}), actor=shell)
    assert dict(Gateway.objects.values_list("key", "first")) == {"main": False, "gw-2": True}
