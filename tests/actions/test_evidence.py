"""Files that come with a sign-off: what they are is read from their bytes."""

import hashlib
import struct
import zlib

import pytest

from migrations_app.actions.evidence import (
    LONGEST_NAME,
    MOST_BYTES,
    TEXT,
    UploadedEvidence,
    accept,
    clean_name,
    download,
)
from migrations_app.errors import Invalid
from migrations_app.models import Evidence


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# A whole picture of one black pixel.
PNG = b"".join(
    [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(b"\0\0")),
        _chunk(b"IEND", b""),
    ]
)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9"
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"


@pytest.mark.parametrize(
    ("name", "content", "kept_as", "kind"),
    [
        ("shot.png", PNG, "shot.png", "image/png"),
        ("SHOT.PNG", PNG, "SHOT.PNG", "image/png"),
        ("shot.jpeg", JPEG, "shot.jpeg", "image/jpeg"),
        ("report.pdf", PDF, "report.pdf", "application/pdf"),
        ("dump.log", b"\x1b[32mok\x1b[0m 1.2 GB\r\n", "dump.log", TEXT),
        ("users.csv", b"\xef\xbb\xbfid;name\n", "users.csv", TEXT),
        ("answer.json", b'{"status": "\xe2\x9c\x93"}', "answer.json", TEXT),
        ("notes.md", b"# Seen\n", "notes.md", TEXT),
        # What a file is called says nothing: it gets the ending of what it is.
        ("shot.jpg", PNG, "shot.jpg.png", "image/png"),
        ("page.html", PNG + b"<script>alert(1)</script>", "page.html.png", "image/png"),
        ("script", PDF, "script.pdf", "application/pdf"),
    ],
)
def test_a_file_is_what_its_bytes_are(name, content, kept_as, kind):
    row = accept(UploadedEvidence(name, content))
    assert (row.name, row.content_type, row.size) == (kept_as, kind, len(content))
    assert row.sha256 == hashlib.sha256(content).hexdigest()
    assert download(row).content_type == kind
    assert download(row).name == kept_as


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("page.html", b"<script>alert(1)</script>", "is not a PNG or JPEG picture, a PDF, or plain text"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "drawing.svg"),
        ("shot.png", b"<html></html>", "shot.png"),
        ("shot.png", PNG[:8] + b"no picture follows", "shot.png"),
        ("shot.gif", b"GIF89a\x01\x00\x01\x00", "shot.gif"),
        ("report.pdf", b"%PDF-1.7 cut short", "report.pdf"),
        ("program.txt", b"\x7fELF\x02\x01\x01\x00", "program.txt"),
        ("latin.txt", "Müller".encode("latin-1"), "in UTF-8"),
        ("wide.txt", "ok".encode("utf-16"), "in UTF-8"),
        ("nul.txt", b"one\x00two", "nul.txt"),
        ("README", b"plain text without an ending", "whose name ends in .txt, .log, .csv, .json, .md"),
        ("empty.txt", b"", "is empty"),
        ("big.txt", b"x" * (MOST_BYTES + 1), "is larger than 5 MB"),
    ],
)
def test_what_is_of_no_kind_that_is_taken_is_refused_by_the_fields_name(name, content, said):
    with pytest.raises(Invalid, match=r"^Evidence: ") as refusal:
        accept(UploadedEvidence(name, content))
    assert said in str(refusal.value)


def test_five_megabytes_are_taken():
    assert accept(UploadedEvidence("big.txt", b"x" * MOST_BYTES)).size == MOST_BYTES


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\ada\\dump of Monday.log", "dump of Monday.log"),
        ("/", "evidence"),
        ("", "evidence"),
        ("...", "evidence"),
        (".htaccess.txt", "htaccess.txt"),
        ("a\r\nSet-Cookie: x=1.txt", "aSet-Cookie_ x=1.txt"),
        ("a\x00b.txt", "ab.txt"),
        ('quote".txt', "quote_.txt"),
        ("photo\u202egpj.exe.png", "photogpj.exe.png"),  # U+202E makes the eye read exe.jpg
        ("br\udcfcken.txt", "brken.txt"),  # a byte that is no UTF-8, as Python reads it from a shell
        ("Prüfung\u00a0 1.txt", "Prüfung 1.txt"),
        ("-rf.txt", "rf.txt"),
    ],
)
def test_a_name_is_only_a_name(name, cleaned):
    assert clean_name(name) == cleaned
    assert clean_name(cleaned) == cleaned


def test_a_long_name_keeps_its_ending():
    cleaned = clean_name("x" * 500 + ".txt")
    assert len(cleaned) == LONGEST_NAME
    assert cleaned.endswith("xx.txt")
    assert accept(UploadedEvidence("x" * 500, PNG)).name.endswith(".png")


@pytest.mark.parametrize(
    ("name", "content_type", "content"),
    [
        ("page.html", "text/html", b"<script>alert(1)</script>"),
        ("shot.png", "text/html", PNG),
        ("shot.png", "image/png", b"<script>alert(1)</script>"),
        ("shot.png", "image/png", b"\x00\x01\x02"),
    ],
)
def test_a_row_that_came_past_the_door_is_handed_out_as_bytes_that_no_browser_shows(name, content_type, content):
    row = Evidence(name=name, content_type=content_type, size=len(content), sha256="", content=content)
    handed = download(row)
    assert (handed.name, handed.content_type) == (f"{name}.bin", "application/octet-stream")
    assert handed.content == content
