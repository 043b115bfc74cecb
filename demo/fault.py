"""`python -m demo.fault NAME FAULT` and `python -m demo.fault list`: break a process while it runs, and mend it."""

import sys
import time
import uuid
from typing import Any

from demo.estate import MEMBERS, Settings, SettingsError
from demo.faults import Fault, FaultError, Files, read, write

# A process looks for a new fault ten times a second.
CONFIRM_S = 3.0
USAGE = f"""usage: python -m demo.fault NAME down|hang|slow MS|errors PERCENT|none
       python -m demo.fault list
NAME is one of: {", ".join(MEMBERS)}"""


def put(name: str, fault: Fault, settings: Settings, *, within_s: float = CONFIRM_S) -> str | None:
    """Ask a process to take a fault and wait until it has. Returns None, or one sentence saying why it has not."""
    return ask(name, {"fault": fault.words()}, settings, within_s=within_s)


def ask(name: str, wanted: dict[str, Any], settings: Settings, *, within_s: float = CONFIRM_S) -> str | None:
    """As `put`, for anything that a process takes."""
    files = Files(settings.state_folder, name, settings.port(MEMBERS[name]))
    if not files.running():
        return f"{name} is not running"
    ticket = uuid.uuid4().hex
    write(files.ask, {**wanted, "ticket": ticket})
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        state = read(files.state)
        if state.get("ticket") == ticket:
            return str(state["error"]) or None
        if not files.running():
            return f"{name} stopped before it took it"
        time.sleep(0.02)
    asked = read(files.ask).get("ticket")
    if asked != ticket:
        return f"another command came between for {name}"
    return f"{name} did not confirm within {within_s:g} s"


def listing(settings: Settings) -> list[str]:
    """One line for each member: name, port, and what it runs."""
    lines = []
    for name, member in MEMBERS.items():
        port = settings.port(member)
        files = Files(settings.state_folder, name, port)
        what = "not running"
        if files.running():
            state = read(files.state)
            words = state.get("fault") or ["none"]
            what = "no fault" if words == ["none"] else f"{Fault.parse(words)}, since {state.get('since')}"
            if state.get("secret") == "changed":
                what += ", JWT secret changed"
        lines.append(f"{name:<13} {port:>5}  {what}")
    return lines


def main(arguments: list[str]) -> int:
    """Exit status 0 when the process has confirmed, 1 when it has not, 2 for words that are not a command."""
    try:
        settings = Settings.for_command()
        match arguments:
            case ["list"]:
                print("\n".join(listing(settings)))
                return 0
            case [name, *words] if name in MEMBERS and words:
                fault = Fault.parse(words)
            case _:
                print(USAGE)
                return 2
    except (SettingsError, FaultError) as error:
        print(f"fault: {error}")
        return 2
    started = time.monotonic()
    try:
        problem = put(name, fault, settings)
    except OSError as error:
        problem = f"the control files cannot be used: {error}"
    if problem:
        print(f"fault: {problem}")
        return 1
    print(f"{name}: {fault}, confirmed in {(time.monotonic() - started) * 1000:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
