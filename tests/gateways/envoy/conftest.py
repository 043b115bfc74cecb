"""Short ways to the Envoy of this module."""

from __future__ import annotations

import pytest


@pytest.fixture
def envoy(module_envoy):
    """The module's Envoy, running again whatever the test did to it."""
    yield module_envoy
    if module_envoy._process is None:
        module_envoy.start()


@pytest.fixture
def gateway(envoy):
    return envoy.adapter()


@pytest.fixture
def run(gateway, table):
    """Apply the next table: `run(auth=100)`; gives what was rendered."""

    def apply(**weights: int):
        rendered = gateway.render(table(**weights))
        gateway.apply(rendered)
        return rendered

    return apply
