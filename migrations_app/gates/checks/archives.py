"""Whether a pg_dump archive is there to its last byte. No Django in here.

`pg_restore --list` reads the table of contents at the front of an archive and nothing behind it, so it accepts a file
that lacks half of its data. Behind the contents, a custom archive (`-Fc`) has one block for each table: its kind, its
number in the contents, and chunks that each begin with their length. Going from length to length to the end of the
file shows, without reading the data, that no block is cut off and none is missing. When the contents tell where each
block begins, only the last one is followed: pg_dump writes that down after everything else.

A tar archive (`-Ft`) ends with 1,024 zero bytes.
"""

from __future__ import annotations

import io
import itertools
import os
import time

_MAGIC = b"PGDMP"
_CUSTOM = 1  # the only format that a file alone can have and that begins with the magic bytes
_OLDEST, _NEWEST = (1, 12), (1, 16)  # versions of the format: PostgreSQL 9.0 to 18
_PLACE_KNOWN, _NO_DATA = 2, 3  # what the contents say of an entry's data
_BETWEEN, _DATA, _LARGE_OBJECTS, _LARGE_OBJECT = 0, 1, 3, -1  # where a walk is; 1 and 3 are kinds of blocks
_CHUNKS = 1024  # between two looks at the clock

_Identity = tuple[int, int, int, int]


class Broken(Exception):
    """The archive lacks something; the text says what: `ends too early`."""


class Unfamiliar(Exception):
    """Not to be told: a format that this version does not know."""


class _Reader:
    """Reads a custom archive from its front, numbers and texts as pg_dump writes them."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self.file, self.size = file, size
        magic = self.take(5)
        major, minor, _, self._number_size, self._offset_size, kind = self.take(6)
        self.version = major, minor
        if magic != _MAGIC or kind != _CUSTOM or not _OLDEST <= self.version <= _NEWEST:
            raise Unfamiliar

    def take(self, count: int) -> bytes:
        taken = self.file.read(count) if count <= self.size else b""
        if len(taken) < count:
            raise Broken("ends too early")
        return taken

    def octet(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        sign, *digits = self.take(1 + self._number_size)
        value = int.from_bytes(bytes(digits), "little")
        return -value if sign else value

    def pass_text(self) -> bool:
        """Whether there was one: a text that is not there has a length below zero."""
        length = self.number()
        self.take(max(0, length))
        return length >= 0

    def contents(self) -> dict[int, int | None]:
        """Number of each entry that has data -> where that begins, None when it is not told.

        Leaves the file at the end of the contents, where the first block begins.
        """
        if self.version >= (1, 15):
            self.octet()  # compression
        else:
            self.number()
        for _ in range(7):
            self.number()  # when it was made
        for _ in range(3):
            self.pass_text()  # name of the database, versions of server and pg_dump
        places: dict[int, int | None] = {}
        for _ in range(self.number()):
            number = self.number()
            self._pass_entry()
            known, place = self.octet(), int.from_bytes(self.take(self._offset_size), "little")
            if known != _NO_DATA:
                places[number] = place if known == _PLACE_KNOWN else None
        return places

    def _pass_entry(self) -> None:
        self.number()  # whether it has data
        for _ in range(4):
            self.pass_text()  # two oids, name, kind
        self.number()  # section
        for _ in range(5 + (self.version >= (1, 14))):
            self.pass_text()  # definition, drop, copy, schema, tablespace, access method
        if self.version >= (1, 16):
            self.number()  # kind of relation
        for _ in range(2):
            self.pass_text()  # owner, with oids
        while self.pass_text():
            pass  # what it depends on


class _Walk:
    """From chunk to chunk to the end of the file. What has been walked is not walked again."""

    def __init__(self, places: dict[int, int | None], begin: int) -> None:
        known = [place for place in places.values() if place is not None]
        last_alone = bool(places) and len(known) == len(places)
        self._position = max(known) if last_alone else begin
        self._missing = set() if last_alone else set(places)
        self._where = _BETWEEN

    def go(self, reader: _Reader, deadline: float) -> None:
        """Return at a proper end. Raises Broken, and TimeoutError at the deadline."""
        for count in itertools.count():
            if count % _CHUNKS == 0 and time.monotonic() > deadline:
                raise TimeoutError
            if self._where == _BETWEEN and self._position == reader.size:
                break
            reader.file.seek(self._position)
            self._step(reader)
        if self._missing:
            raise Broken("lacks the data of some tables")

    def _step(self, reader: _Reader) -> None:
        if self._where == _BETWEEN:
            where = reader.octet()
            if where not in {_DATA, _LARGE_OBJECTS}:
                raise Broken("is damaged")
            self._missing.discard(reader.number())
            behind = reader.file.tell()
        elif self._where == _LARGE_OBJECTS:
            where = _LARGE_OBJECT if reader.number() else _BETWEEN
            behind = reader.file.tell()
        else:
            length = reader.number()
            where = self._where
            if length == 0:
                where = _BETWEEN if self._where == _DATA else _LARGE_OBJECTS
            behind = reader.file.tell() + length
        if not self._position < behind <= reader.size:
            raise Broken("ends too early")
        self._position, self._where = behind, where


# Taken out while it is walked, so that two checks of one archive do not share a walk.
_walks: dict[_Identity, _Walk] = {}


def refuse_broken(descriptor: int, deadline: float) -> None:
    """Return when the archive in this open file is whole.

    Raises Broken, Unfamiliar, or TimeoutError at the deadline (of `time.monotonic`); the next call for the same file
    goes on from there. Following 1 GB costs some ten thousand short reads.
    """
    status = os.fstat(descriptor)
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        magic = file.read(len(_MAGIC))
        if magic != _MAGIC:
            _refuse_broken_tar(file, status.st_size)
            return
        file.seek(0)
        reader = _Reader(file, status.st_size)
        identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        walk = _walks.pop(identity, None) or _Walk(reader.contents(), file.tell())
        try:
            walk.go(reader, deadline)
        finally:
            if len(_walks) >= 64:
                _walks.clear()
            _walks[identity] = walk


def _refuse_broken_tar(file: io.BufferedReader, size: int) -> None:
    file.seek(max(0, size - 1024))
    if size % 512 or file.read() != bytes(1024):
        raise Broken("ends too early")
