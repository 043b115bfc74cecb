"""The decision of one pass, as a table."""

import pytest

from migrations_app.gateways.base import Address, Observed, Route, RoutingTable
from migrations_app.reconcile.decide import Step, decide

TABLE = RoutingTable(
    plan="p",
    generation=5,
    monolith=Address("127.0.0.1", 3000),
    routes=(Route("auth", "USE_AUTH", "/api/auth", Address("127.0.0.1", 3010), 100),),
)


@pytest.mark.parametrize(
    ("observed", "step"),
    [
        (Observed(5, {"USE_AUTH": 100}), Step.NOTHING),
        (Observed(4, {"USE_AUTH": 0}), Step.APPLY),
        (Observed(0), Step.APPLY),
        (Observed(None, error="does not answer"), Step.APPLY),
        (Observed(None, drift=("somebody's own route file runs",)), Step.REPAIR),
        (Observed(5, {"USE_AUTH": 0}), Step.REPAIR),
        (Observed(5, {}), Step.REPAIR),
        (Observed(5, {"USE_AUTH": 100}, drift=("route /api/auth runs elsewhere",)), Step.REPAIR),
        (Observed(6, {"USE_AUTH": 0}), Step.STAND_BACK),
        (Observed(6, {"USE_AUTH": 0}, drift=("something",)), Step.STAND_BACK),
    ],
)
def test_decide(observed, step):
    decision = decide(TABLE, observed)
    assert decision.step == step
    assert bool(decision.because) == (step != Step.NOTHING)
