"""Text of others, fit to be stored and shown. No Django in here."""

from __future__ import annotations


def printable(text: str, longest: int = 100) -> str:
    """At most so many characters, none of which PostgreSQL cannot hold or a terminal obeys."""
    short = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(character if character.isprintable() else "?" for character in short)
