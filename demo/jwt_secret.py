"""`python -m demo.jwt_secret NAME change|restore`: give one running process another JWT secret, and its own again.

Tokens of the two sides are then no longer accepted by each other. A process that is started again has its own secret.
"""

import sys

from demo.estate import MEMBERS, Settings, SettingsError
from demo.fault import ask

STATES = {"change": "changed", "restore": "own"}
USAGE = f"""usage: python -m demo.jwt_secret NAME change|restore
NAME is one of: {", ".join(MEMBERS)}"""


def set_secret(name: str, state: str, settings: Settings) -> str | None:
    """Ask a process for its `own` secret or a `changed` one. Returns None, or one sentence saying why it has not."""
    return ask(name, {"secret": state}, settings)


def main(arguments: list[str]) -> int:
    """Exit status 0 when the process has confirmed, 1 when it has not, 2 for words that are not a command."""
    if len(arguments) != 2 or arguments[0] not in MEMBERS or arguments[1] not in STATES:
        print(USAGE)
        return 2
    name, state = arguments[0], STATES[arguments[1]]
    try:
        problem = set_secret(name, state, Settings.for_command())
    except SettingsError as error:
        problem = str(error)
    except OSError as error:
        problem = f"the control files cannot be used: {error}"
    if problem:
        print(f"jwt_secret: {problem}")
        return 1
    print(f"{name}: {'a JWT secret that nobody else knows' if state == 'changed' else 'its own JWT secret'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
