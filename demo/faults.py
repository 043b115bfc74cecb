"""Faults that can be put on a running process, and the files through which they are asked for and confirmed.

Per process the folder `<state folder>/demo` holds: `NAME-PORT.lock`, locked for as long as the process lives;
`NAME-PORT.ask`, what was asked for last (a fault, or another JWT secret); `NAME-PORT.state`, what the process runs.
Files and not a socket: they need no port, no secret and no short path, and a person can read them.
"""

import fcntl
import json
import os
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

SLOWEST_MS = 60_000


class FaultError(Exception):
    """The words do not name a fault; the text says which words do."""


@dataclass(frozen=True)
class Fault:
    """`kind` is none, down, hang, slow (`amount` in ms) or errors (`amount` in hundredths of a percent)."""

    kind: str = "none"
    amount: int = 0

    @classmethod
    def parse(cls, words: list[str]) -> "Fault":
        """Read `none`, `down`, `hang`, `slow MS` or `errors PERCENT`. Raises FaultError."""
        match words:
            case ["none" | "down" | "hang" as kind]:
                return cls(kind)
            case ["slow", amount]:
                return cls("slow", _whole(amount, 1, 1, SLOWEST_MS, "slow takes milliseconds, from 1 to 60000"))
            case ["errors", amount]:
                return cls("errors", _whole(amount, 100, 1, 10_000, "errors takes a percentage, from 0.01 to 100"))
        raise FaultError("a fault is one of: down, hang, slow MS, errors PERCENT, none")

    def words(self) -> list[str]:
        """The words that `parse` reads."""
        if self.kind == "errors":
            return ["errors", f"{self.amount / 100:g}"]
        return [self.kind, str(self.amount)] if self.kind == "slow" else [self.kind]

    def __str__(self) -> str:
        unit = {"slow": " ms", "errors": " %"}.get(self.kind, "")
        return " ".join(self.words()) + unit


class Spread:
    """Says which requests fail so that of any 100/p in a row exactly one does: no luck, the same on every run."""

    def __init__(self) -> None:
        self._owed = 0

    def hit(self, hundredths: int) -> bool:
        """Whether the next request is one of them."""
        self._owed += hundredths
        if self._owed < 10_000:
            return False
        self._owed -= 10_000
        return True


class Files:
    """The control files of one process."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.folder = folder
        stem = f"{name}-{port}"
        self.lock = folder / f"{stem}.lock"
        self.ask = folder / f"{stem}.ask"
        self.state = folder / f"{stem}.state"

    def hold(self) -> TextIOWrapper | None:
        """Take the lock for the life of this process; None when another process has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.lock.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def running(self) -> bool:
        """Whether a process holds the lock. The kernel frees it at any death, so this is never stale."""
        try:
            with self.lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def stamp(self) -> tuple[int, int] | None:
        """Changes whenever a fault is asked for."""
        try:
            status = self.ask.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns


def read(path: Path) -> dict[str, Any]:
    """The JSON object in a control file; empty when it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write(path: Path, value: dict[str, Any]) -> None:
    """Replace a control file whole, so that no reader meets half of it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(value) + "\n")
    fresh.replace(path)


def _whole(text: str, factor: int, low: int, high: int, sentence: str) -> int:
    try:
        amount = round(float(text) * factor)
    except (ValueError, OverflowError):
        raise FaultError(sentence) from None
    if not low <= amount <= high:
        raise FaultError(sentence)
    return amount
