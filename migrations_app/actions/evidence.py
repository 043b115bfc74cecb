"""Files that come with a sign-off: which are taken, what they are, and how they may be handed out."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from migrations_app.errors import Invalid
from migrations_app.models import Evidence, SignOff

MOST_BYTES = 5 * 1024 * 1024
LONGEST_NAME = 120  # characters, the ending included
TEXT = "text/plain; charset=utf-8"
TEXT_ENDINGS = (".txt", ".log", ".csv", ".json", ".md")
# What a file is by its content -> the endings that it may have; the first is added where it has none of them.
ENDINGS = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "application/pdf": (".pdf",),
    TEXT: TEXT_ENDINGS,
}
KINDS = f"a PNG or JPEG picture, a PDF, or plain text in UTF-8 whose name ends in {', '.join(TEXT_ENDINGS)}"

_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PDF, _PDF_END = re.compile(rb"%PDF-[12]\.[0-9]"), b"%%EOF"
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")  # none belongs in a text; the colours of a log do
_UNSAFE = re.compile(r'[<>:"|?*%&;$`\']')  # in a name: what some shell, header or file system reads as its own


@dataclass(frozen=True, slots=True)
class UploadedEvidence:
    """A file as somebody sent it: `name` as their machine calls it, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """What may be handed out of a stored file: only ever as a download, under this name and content type."""

    name: str
    content_type: str
    content: bytes


def accept(upload: UploadedEvidence) -> Evidence:
    """The row of a file, not yet saved and without its sign-off.

    What the file is comes from its bytes, never from what the sender calls it. Raises Invalid for one that is empty,
    larger than MOST_BYTES, or of no kind that is taken.
    """
    size = len(upload.content)
    if size > MOST_BYTES:
        raise Invalid(f"Evidence: the file is larger than {MOST_BYTES // 1024**2} MB.")
    if not size:
        raise Invalid("Evidence: the file is empty.")
    name = clean_name(upload.name)
    kind = kind_of(upload.content)
    ending = PurePosixPath(name).suffix.lower()
    if kind is None or (kind == TEXT and ending not in TEXT_ENDINGS):
        raise Invalid(f"Evidence: “{name}” is not {KINDS}.")
    if ending not in ENDINGS[kind]:
        name += ENDINGS[kind][0]
    digest = hashlib.sha256(upload.content).hexdigest()
    return Evidence(name=name, content_type=kind, size=size, sha256=digest, content=upload.content)


def kind_of(content: bytes) -> str | None:
    """The content type that the bytes themselves tell, None for one that is not taken."""
    if content.startswith(_PNG):
        return "image/png"
    if content.startswith(_JPEG) and _JPEG_END in content:
        return "image/jpeg"
    if _PDF.match(content) and _PDF_END in content:
        return "application/pdf"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if _CONTROLS.search(text) else TEXT


def clean_name(name: str) -> str:
    """A name and nothing else: no folder, not hidden, no character that is invisible or means something elsewhere."""
    base = re.split(r"[/\\]", name)[-1]
    # Categories: C are controls, formats (which can turn the reading direction round) and surrogates; Z are spaces.
    shown = "".join(
        " " if unicodedata.category(one).startswith("Z") else one
        for one in unicodedata.normalize("NFC", base)
        if not unicodedata.category(one).startswith("C")
    )
    safe = " ".join(_UNSAFE.sub("_", shown).split()).strip(" .-")
    if len(safe) > LONGEST_NAME:
        ending = PurePosixPath(safe).suffix[:10]
        safe = safe[: LONGEST_NAME - len(ending)].rstrip(" .") + ending
    return safe or "evidence"


def download(row: Evidence) -> Download:
    """What may be served of a stored file, however its row came to be.

    The content type is one of ENDINGS, or bytes that no browser shows. Serve it with `Content-Disposition: attachment`,
    `X-Content-Type-Options: nosniff` and a sandboxing policy; never inline.
    """
    content = bytes(row.content)
    kind = kind_of(content)
    name = clean_name(row.name)
    if kind is None or kind != row.content_type:
        return Download(f"{name}.bin", "application/octet-stream", content)
    if PurePosixPath(name).suffix.lower() not in ENDINGS[kind]:
        name += ENDINGS[kind][0]
    return Download(name, kind, content)


def told(row: Evidence) -> dict[str, object]:
    """What the audit log keeps of a file: enough to prove that a copy of it is the one."""
    return {"name": row.name, "content_type": row.content_type, "size": row.size, "sha256": row.sha256}


def keep(row: Evidence, sign_off: SignOff) -> None:
    """Store a file with its sign-off. Called in the transaction of the sign-off."""
    row.sign_off = sign_off
    row.save(force_insert=True)
