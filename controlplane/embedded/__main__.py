"""`python -m controlplane.embedded up|demo`: run everything on this machine until Ctrl-C. `reset` removes its state."""

from __future__ import annotations

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 after a signal, 1 when the start failed, 2 for words that are not known."""
    parser = argparse.ArgumentParser(prog="python -m controlplane.embedded", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("up", help="run the dashboard and the gateway")
    commands.add_parser("demo", help="run them with the demo estate and its traffic")
    reset = commands.add_parser("reset", help="remove the state folder: databases, accounts, the gateway's routes")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    chosen = parser.parse_args(arguments)
    try:
        from controlplane.embedded import start
    except ImportError as problem:
        sys.exit(f"not started: {problem.name} is not installed; `make {chosen.what}` installs what is needed.")
    if chosen.what == "reset":
        return start.reset(sure=chosen.yes)
    return start.run(demo=chosen.what == "demo")


if __name__ == "__main__":
    sys.exit(main())
