"""`python -m controlplane.embedded up` or `... demo`: run everything on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 after a signal, 1 when the start failed, 2 for words that are not known."""
    parser = argparse.ArgumentParser(prog="python -m controlplane.embedded", description=__doc__)
    parser.add_argument("what", choices=["up", "demo"], help="the dashboard; or the dashboard with the demo estate")
    chosen = parser.parse_args(arguments)
    try:
        from controlplane.embedded import start
    except ImportError as problem:
        sys.exit(f"not started: {problem.name} is not installed; `make {chosen.what}` installs what is needed.")
    return start.run(demo=chosen.what == "demo")


if __name__ == "__main__":
    sys.exit(main())
