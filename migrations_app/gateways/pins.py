"""Pins as small files, and the journal of what was done with them. Both can be written by plain sh.

- pins/USE_AUTH_SERVICE: that the file exists pins the flag; its lines `by=`, `at=` and `why=` only tell of it
- pins.journal: a line for each thing done, in fields that tabs part (`line_of`); it is only ever appended to
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from migrations_app.gateways.base import Journal, JournalLine, Pin
from migrations_app.gateways.tables import NAME

PINS_FOLDER = "pins"
JOURNAL_FILE = "pins.journal"
PINNED, LIFTED = "pinned", "lifted"  # what was done, in the journal
MOST_BYTES = 4096  # of a pin's file that are read
LONGEST = 1000  # characters of `by` and of `why`


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line of the journal tells. `generation` is the one that ran, None when nobody knew."""

    done: str
    at: datetime
    generation: int | None
    flags: tuple[str, ...]
    by: str
    why: str


class PinFolder:
    """The pins of one gateway, in its folder. Needs no lock: a pin must not wait for whoever holds one.

    Every method raises OSError, also where the gateway's folder is not there: that tells nothing of its pins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pins, self._journal = folder / PINS_FOLDER, folder / JOURNAL_FILE

    def flags(self) -> frozenset[str]:
        """The flags that are pinned. Cheap: every apply asks."""
        try:
            names = os.listdir(self._pins)
        except (FileNotFoundError, NotADirectoryError):
            self._folder.stat()
            return frozenset()
        return frozenset(name for name in names if re.fullmatch(NAME, name))

    def pins(self) -> tuple[Pin, ...]:
        """By flag. What a file says is taken as far as it can be read."""
        return tuple(self._read(flag) for flag in sorted(self.flags()))

    def pin(self, flags: Collection[str], *, by: str, why: str, generation: int | None) -> JournalLine:
        at = datetime.now(UTC)
        self._pins.mkdir(exist_ok=True)
        told = f"by={_one_line(by)}\nat={at:%Y-%m-%dT%H:%M:%SZ}\nwhy={_one_line(why)}\n".encode()
        # Whoever dies on the way has pinned the later ones already, which the earlier ones may rest on.
        for flag in flags:
            if not re.fullmatch(NAME, flag):
                raise OSError(f"{flag!r} is no name of a flag")
            temporary = self._pins / f".{flag}.{os.getpid()}.{time.monotonic_ns()}.tmp"
            try:
                _write(temporary, told)
                temporary.replace(self._pins / flag)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        _sync(self._pins)
        _sync(self._folder)
        return self._note(Entry(PINNED, at, generation, tuple(flags), by, why))

    def lift(self, flags: Collection[str], *, by: str, why: str, generation: int | None) -> JournalLine:
        # Noted first: nothing is let go that nobody can be told of.
        noted = self._note(Entry(LIFTED, datetime.now(UTC), generation, tuple(flags), by, why))
        try:
            for flag in flags:
                (self._pins / flag).unlink(missing_ok=True)
        except OSError as error:
            kept = tuple(sorted(self.flags().intersection(flags)))
            self._note(Entry(PINNED, datetime.now(UTC), generation, kept, by, f"It could not be lifted: {error}"))
            raise
        with contextlib.suppress(FileNotFoundError):
            _sync(self._pins)
        return noted

    def journal(self) -> Journal:
        try:
            return parse_journal(self._journal.read_bytes())
        except FileNotFoundError:
            self._folder.stat()
            return Journal()

    def journal_size(self) -> int:
        try:
            return self._journal.stat().st_size
        except FileNotFoundError:
            self._folder.stat()
            return 0

    def _read(self, flag: str) -> Pin:
        path = self._pins / flag
        try:
            with path.open("rb") as file:
                told = _fields(file.read(MOST_BYTES).decode(errors="replace").splitlines())
            changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except (OSError, OverflowError, ValueError):
            return Pin(flag)  # it exists, or did a moment ago
        return Pin(flag, told.get("by", ""), moment_of(told.get("at", "")) or changed, told.get("why", ""))

    def _note(self, entry: Entry) -> JournalLine:
        text = line_of(entry)
        descriptor = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o664)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            # In one write: lines of two writers do not mix.
            os.write(descriptor, f"{chr(10) if torn else ''}{text}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        same = [line for line in self.journal().lines if line.text == text]
        return same[-1] if same else JournalLine(text)


def parse_journal(content: bytes) -> Journal:
    """The whole lines; empty ones are left out."""
    whole = content[: content.rfind(b"\n") + 1]
    seen: Counter[str] = Counter()
    lines, end = [], 0
    for raw in whole.split(b"\n"):
        end += len(raw) + 1
        text = raw.decode(errors="backslashreplace").replace("\0", "\\x00").rstrip("\r")
        if text:
            lines.append(JournalLine(text, seen[text], end))
            seen[text] += 1
    return Journal(tuple(lines), len(whole))


def line_of(entry: Entry) -> str:
    """One line of the journal: `done=pinned`, `at=`, `generation=`, `flags=A,B`, `by=`, `why=`, parted by tabs."""
    fields = {
        "done": entry.done,
        "at": f"{entry.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "generation": "" if entry.generation is None else str(entry.generation),
        "flags": ",".join(entry.flags),
        "by": _one_line(entry.by),
        "why": _one_line(entry.why),
    }
    return "\t".join(f"{name}={value}" for name, value in fields.items())


def entry_of(text: str) -> Entry | None:
    """What a line tells, None when it is none of ours."""
    fields = _fields(text.split("\t"))
    at, flags = moment_of(fields.get("at", "")), fields.get("flags", "").split(",")
    generation = fields.get("generation", "")
    known = fields.get("done") in {PINNED, LIFTED} and at is not None
    if not known or not all(re.fullmatch(NAME, flag) for flag in flags) or not re.fullmatch(r"[0-9]{0,18}", generation):
        return None
    assert at is not None  # noqa: S101  # for mypy
    number = int(generation) if generation else None
    return Entry(fields["done"], at, number, tuple(flags), fields.get("by", ""), fields.get("why", ""))


def moment_of(text: str) -> datetime | None:
    """A moment with its offset, None for anything else."""
    try:
        found = datetime.fromisoformat(text.strip())
        return found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _fields(parts: Collection[str]) -> Mapping[str, str]:
    """`name=value` each; the first of a name counts, and what is none is passed over."""
    found: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if equals:
            found.setdefault(name.strip(), _one_line(value))
    return found


def _one_line(text: str) -> str:
    """Without what could end a line or a field, or that a database does not take."""
    told = "".join(character if character.isprintable() else " " for character in text)
    return told.encode("utf-8", "replace").decode().strip()[:LONGEST]


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
