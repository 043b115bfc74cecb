"""Passwords and keys that a state folder makes for itself, once, and keeps."""

from __future__ import annotations

import os
import secrets
import shlex
from pathlib import Path

FILE = "secrets.env"
_NAMES = (
    "SECRET_KEY",
    "DATABASE_PASSWORD",
    "DEMO_DATABASE_PASSWORD",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "DEMO_PASSWORD",
)


def load(state: Path) -> dict[str, str]:
    """The keys of this state folder; those that are missing are made and written (mode 0600)."""
    path = state / FILE
    keys: dict[str, str] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            keys[name] = "".join(shlex.split(value))
    missing = [name for name in _NAMES if name not in keys]
    if missing:
        keys |= {name: _new(name) for name in missing}
        temporary = state / f"{FILE}.new"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in sorted(keys.items()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return keys


def _new(name: str) -> str:
    # The demo's password is typed by people; the others never are. All are safe in a URL.
    return secrets.token_hex(6) if name == "DEMO_PASSWORD" else secrets.token_hex(32)
