"""`python -m controlplane.gateway_folder`: make GATEWAY_DIR one that an Envoy in a container can start from.

Inside its container Envoy listens on every address; which of them the outside sees is for the container's engine. The
admin port answers readings alone and is not published. Loads no Django and needs no database.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from migrations_app.gateways.envoy import BootstrapOptions, prepare_folder
from migrations_app.gateways.errors import GatewayError

PORT = 8089
ADMIN_PORT = 9901


def main() -> int:
    """Exit status 0, or 1 with one line that says why not."""
    folder = os.environ.get("GATEWAY_DIR")
    if not folder:
        sys.stderr.write("GATEWAY_DIR is not set; name the folder that the gateway reads.\n")
        return 1
    options = BootstrapOptions(port=PORT, admin_port=ADMIN_PORT, bind="0.0.0.0", admin_bind="0.0.0.0")  # noqa: S104
    try:
        prepare_folder(Path(folder), options)
    except (GatewayError, OSError) as problem:
        sys.stderr.write(f"The gateway's folder {folder} could not be prepared: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
