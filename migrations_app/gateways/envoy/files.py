"""The gateway's folder: who may write in it, what lies in it, and what was last applied to it.

- bootstrap.json, cds/cds.json, rds/rds.json: what Envoy reads
- applied.json: what was last applied, kept apart so that an edit of the others shows
- validated.json: which shapes Envoy's validator has passed (see `validate`)
- pins/, pins.journal: which flags are held on the old side, and what was done with them (see `gateways.pins`)
- rollback/: scripts that move weeks back without us (see `scripts`)
- .lock: the fence: one writer at a time, on one host; while it is held it says by whom (see `holders`). Pins and
  scripts are written without it
- cds/watched, rds/watched: when the folder that Envoy watches was made (see `Folder.made_at`)
- .*.tmp, .*.new: what is being written; of a writer that was killed it stays, until `housekeeping` removes it
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrations_app.gateways.base import RoutingTable
from migrations_app.gateways.envoy import holders
from migrations_app.gateways.envoy.bootstrap import CDS_FILE, RDS_FILE
from migrations_app.gateways.envoy.testers import holds_secret
from migrations_app.gateways.errors import FolderBusy
from migrations_app.gateways.notes import as_values, from_values

APPLIED_FILE = "applied.json"
VALIDATED_FILE = "validated.json"
WATCHED_FILES = (CDS_FILE, RDS_FILE)
WATCHED_NOTE = "watched"  # beside each of them


@dataclass(frozen=True, slots=True)
class AppliedState:
    """What was last handed to the gateway: its generation and the bytes of its files by relative path.

    `table` is what they were made of, None when nobody told: an older version did not.
    """

    generation: int
    files: Mapping[str, bytes] = field(repr=False)
    table: RoutingTable | None = None


class Folder:
    """One gateway's folder. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cached: tuple[tuple[int, int, int], AppliedState | None] | None = None

    @contextlib.contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """Hold the folder's lock. Raises FolderBusy after `timeout` seconds. The lock dies with its process."""
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
        try:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise FolderBusy(self._busy(descriptor, timeout)) from None
                    time.sleep(0.002)
            holders.sign(descriptor)
            try:
                yield
            finally:
                holders.unsign(descriptor)
        finally:
            os.close(descriptor)

    def _busy(self, descriptor: int, waited: float) -> str:
        held = holders.told(descriptor) or f"another process has held it for more than {waited:g} s"
        script = self.path / "rollback" / "everything.sh"
        # It waits for the lock for two seconds, and not for ever.
        meanwhile = f". Traffic goes back without it: sh {script}" if script.exists() else ""
        return f"the lock of {self.path} is taken: {held}{meanwhile}"

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, or None when it is not there."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def read_watched(self) -> dict[str, bytes | None]:
        """The files that Envoy watches, as they lie in the folder now."""
        return {name: self.read(name) for name in WATCHED_FILES}

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Replace a file in one step: readers see the old bytes or the new ones, never a part.

        What holds the secret of testers is for the owner's eyes alone. `durable` also survives a power cut. The folder
        is synced after the rename, when Envoy is already at work.
        """
        target = self.path / name
        try:
            target.parent.mkdir(parents=True)
        except FileExistsError:
            pass
        else:
            if name in WATCHED_FILES:
                # Rounded down to what Envoy tells of its own moments: milliseconds.
                self._note_watched(name, since=time.time_ns() // 1_000_000 / 1000)
        # Not in the target's own folder: Envoy watches that one and would wake for the temporary file too.
        temporary = self.path / f".{target.name}.{os.getpid()}.{time.monotonic_ns()}.tmp"
        try:
            with temporary.open("wb") as file:
                if holds_secret(content):
                    os.fchmod(file.fileno(), 0o600)
                if not durable and content:
                    # ext4 writes out blocks that are not allocated yet before it renames over a file: 3 ms. Where a
                    # file system cannot do this, it is only slower.
                    with contextlib.suppress(OSError):
                        os.posix_fallocate(file.fileno(), 0, len(content))
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync_folder(target.parent)

    def note_all_watched(self) -> None:
        """Envoy is about to start: it will watch the folders that are there now."""
        for name in WATCHED_FILES:
            if self._watched(name) != 0:
                self._note_watched(name, since=0)

    def made_at(self, name: str) -> float:
        """When the folder of a watched file was made, in seconds since 1970; 0 when that was before Envoy started.

        Envoy watches a folder, not its name: of one that was made since in its place it hears nothing.
        """
        if (since := self._watched(name)) is not None:
            return since
        try:
            # Copied here from another folder.
            return (self.path / name).with_name(WATCHED_NOTE).stat().st_ctime
        except OSError:
            return 0.0  # nobody knows; an older version kept no note

    def _watched(self, name: str) -> float | None:
        """As the note beside it has it; None when there is none for this very folder."""
        note = (self.path / name).with_name(WATCHED_NOTE)
        try:
            folder, since = note.read_text().split()
            return float(since) if int(folder) == note.parent.stat().st_ino else None
        except (OSError, ValueError):
            return None

    def _note_watched(self, name: str, *, since: float) -> None:
        note = (self.path / name).with_name(WATCHED_NOTE)
        note.write_text(f"{note.parent.stat().st_ino} {since}\n")

    def applied(self) -> AppliedState | None:
        """What was last applied, or None when nothing was or the note of it cannot be read."""
        signature = self._signature()
        if signature is None:
            return None
        cached = self._cached
        if cached is None or cached[0] != signature:
            cached = self._cached = (signature, _parse_applied(self.read(APPLIED_FILE)))
        return cached[1]

    def note_applied(self, state: AppliedState) -> None:
        """Remember what is being applied. Written before the files themselves, so that the fence holds from here on.

        Not synced: after a power cut `generation` falls back on the route file, which is.
        """
        files = {name: content.decode() for name, content in state.files.items()}
        body: dict[str, Any] = {"generation": state.generation, "files": files}
        if state.table is not None:
            body["table"] = as_values(state.table)
        body["sha256"] = _digest(body)
        self.write(APPLIED_FILE, json.dumps(body).encode(), durable=False)
        if (signature := self._signature()) is not None:
            self._cached = (signature, AppliedState(state.generation, dict(state.files), state.table))

    def generation(self) -> int:
        """The highest generation that was handed over; 0 when nothing was.

        Taken from the note alone while there is one: an edit of the route file must not lift the fence.
        """
        if (state := self.applied()) is not None:
            return state.generation
        try:
            return int(json.loads(self.read(RDS_FILE) or b"{}").get("version_info", 0))
        except (ValueError, AttributeError, TypeError):
            return 0

    def _signature(self) -> tuple[int, int, int] | None:
        """Changes with every write of the note."""
        try:
            found = (self.path / APPLIED_FILE).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _digest(body: Mapping[str, Any]) -> str:
    parts = [body["generation"], body["files"], *([body["table"]] if "table" in body else [])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _parse_applied(raw: bytes | None) -> AppliedState | None:
    try:
        body = json.loads(raw or b"")
        if body["sha256"] != _digest(body):
            return None
        files = {name: content.encode() for name, content in body["files"].items()}
        table = from_values(body["table"]) if "table" in body else None
        return AppliedState(generation=int(body["generation"]), files=files, table=table)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
