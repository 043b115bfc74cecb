"""The desired table: what reaches the gateway beside the weights."""

from __future__ import annotations

import pytest

from migrations_app.actor import SYSTEM
from migrations_app.gateways.base import Sticky
from migrations_app.models import Plan, Service
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.writer import write
from migrations_app.reconcile.desired import desired_table
from tests.planfile.samples import SMALL, changed, only_problem, plan_of

GATEWAY = "gateway: {key: main, adapter: memory}"


def table():
    return desired_table(Plan.objects.get())


def with_sticky(sticky: str) -> str:
    return changed((GATEWAY, f"gateway: {{key: main, adapter: memory, sticky: {sticky}}}"))


def test_every_service_fails_over_but_what_the_monolith_never_had_or_can_no_longer_serve(plan):
    Service.objects.filter(key="auth").update(failover=False)
    alone = {route.service for route in table().routes if not route.failover}
    assert alone == {"auth", *Service.objects.filter(new_side_only=True).values_list("key", flat=True)}
    assert len(alone) > 1


def test_a_plan_says_that_a_service_must_not_fail_over_and_the_gateway_gets_it(db):
    load_plan(plan_of(SMALL), actor=SYSTEM)
    before = Plan.objects.get().generation
    text = changed(("    flag: USE_AUTH\n", "    flag: USE_AUTH\n    failover: false\n"))
    loaded = load_plan(plan_of(text), actor=SYSTEM)
    assert loaded.difference.lines == ("service 'auth': failover true -> false",)
    assert loaded.generation > before
    assert [route.failover for route in table().routes if route.service == "auth"] == [False]


@pytest.mark.parametrize(("weight", "writes"), [(0, 0), (1, 0), (49, 0), (50, 50), (100, 100)])
def test_reads_move_before_writes_where_the_plan_says_so(db, weight, writes):
    document = plan_of(
        changed(("    flag: USE_AUTH\n", f"    flag: USE_AUTH\n    writes_from: 50\n    weight: {weight}\n"))
    )
    load_plan(document, actor=SYSTEM)
    assert current_plan() == document == plan_of(write(document))
    shares = {route.service: (route.weight, route.writes) for route in table().routes}
    assert shares == {"auth": (weight, writes), "storage": (0, 0)}


@pytest.mark.parametrize("wrong", ["0", "101", "half", "1.5"])
def test_the_share_from_which_writes_move_is_one(wrong):
    _, path, reason = only_problem(changed(("    flag: USE_AUTH\n", f"    flag: USE_AUTH\n    writes_from: {wrong}\n")))
    assert path == "services[auth].writes_from"
    assert reason


@pytest.mark.parametrize(
    ("sticky", "told"),
    [
        ("{header: x-customer}", Sticky(header="x-customer")),
        ("{cookie: session}", Sticky(cookie="session")),
        ("{claim: sub}", Sticky(jwt_claim="sub")),
    ],
)
def test_what_tells_users_apart_comes_from_the_plan(db, sticky, told):
    document = plan_of(with_sticky(sticky))
    load_plan(document, actor=SYSTEM)
    assert table().sticky == told
    assert current_plan() == document == plan_of(write(document))
    assert load_plan(plan_of(SMALL), actor=SYSTEM).changed
    assert table().sticky is None


@pytest.mark.parametrize(
    "wrong",
    ["{}", "{header: a, cookie: b}", "{header: 'x y'}", "{header: x-user-id}", "{header: x-envoy-internal}", "null"],
)
def test_what_no_gateway_could_run_is_refused_with_the_plan(wrong):
    _, path, reason = only_problem(with_sticky(wrong))
    assert path.startswith("gateway.sticky")
    assert reason


def test_the_secret_of_testers_comes_from_the_settings_and_is_told_nowhere(plan, settings):
    assert table().tester_secret == ""
    settings.GATEWAY_TESTER_SECRET = "a secret of testers"
    assert table().tester_secret == "a secret of testers"
    assert "a secret" not in repr(table())
