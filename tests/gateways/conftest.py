"""The estate of this part of the suite: upstreams and one Envoy for each module of tests. No Django, no database."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from migrations_app.gateways.base import Route, RoutingTable
from tests.gateways.estate import Envoy, Upstream, upstreams

_generations = itertools.count(1)


@pytest.fixture(autouse=True)
def _own_adapters() -> None:
    """Nothing here goes through the settings' adapters."""


@pytest.fixture(scope="module")
def estate() -> Iterator[dict[str, Upstream]]:
    with upstreams("monolith", "auth", "users", "storage") as running:
        yield running


@pytest.fixture(scope="module")
def module_envoy(tmp_path_factory) -> Iterator[Envoy]:
    envoy = Envoy(tmp_path_factory.mktemp("gateway"))
    try:
        envoy.start()
        yield envoy
    finally:
        envoy.close()


@pytest.fixture
def table(estate) -> Callable[..., RoutingTable]:
    """Make a table of the next generation: `table(auth=100)`. What is not named has weight 0."""

    def make(*, generation: int | None = None, failover: bool = True, **weights: int) -> RoutingTable:
        prefixes = [("auth", "/api/auth"), ("users", "/api/auth/users"), ("storage", "/api/storage")]
        routes = tuple(
            Route(
                key,
                f"USE_{key.upper()}_SERVICE",
                prefix,
                estate[key].address,
                weights.get(key, 0),
                timeout=2.0,
                failover=failover,
            )
            for key, prefix in prefixes
        )
        chosen = next(_generations) if generation is None else generation
        return RoutingTable("tests", chosen, estate["monolith"].address, routes)

    return make


@pytest.fixture(autouse=True)
def _well_behaved(request) -> Iterator[None]:
    """Upstreams forget the faults of the test before."""
    yield
    if "estate" in request.fixturenames:
        for upstream in request.getfixturevalue("estate").values():
            upstream.status, upstream.delay = 200, 0.0
