"""Small servers for the load clients."""

from __future__ import annotations

import sys

import pytest

from bench.processes import process, wait_for_port
from controlplane.embedded.children import free_port


@pytest.fixture
def upstream_port(tmp_path):
    """A benchmark's upstream that calls itself `storage`."""
    port, log = free_port(), tmp_path / "upstream.log"
    with process([sys.executable, "-m", "bench.upstreams", f"{port}=storage"], log) as child:
        wait_for_port(port, child, log)
        yield port
