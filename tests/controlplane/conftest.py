"""Helpers for tests that start the product as a person does: with a clean environment, on ports of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from controlplane.embedded.children import port_is_free
from controlplane.environment import Ports
from tests.controlplane.started import start

__all__ = ["start"]  # a fixture

OURS = ("DATABASE", "REDIS", "GATEWAY", "SECRET", "SWITCHYARD", "STATE", "PORT_", "TEST_", "PYTEST", "DEMO_", "DJANGO_")


@pytest.fixture
def clean_environ() -> dict[str, str]:
    """The environment without what the test run has put into it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


@pytest.fixture
def free_offset() -> Callable[[], int]:
    """Finds a PORT_OFFSET with which every port is free, below the range that the system gives to clients."""

    def find() -> int:
        while True:
            offset = random.randrange(10_000, 22_000)
            ports = Ports.from_environment({"PORT_OFFSET": str(offset)})
            numbers = (ports.dashboard, ports.gateway, ports.gateway_admin, ports.postgres, ports.redis, *ports.demo)
            if all(port_is_free(number) for number in numbers):
                return offset

    return find
