"""Where the further gateways of a plan run: the setting GATEWAYS. No Django in here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FORM = "key=DIR,URL,ADMIN_URL"
_KEY = r"[a-z0-9]+(-[a-z0-9]+)*"
_URL = r"https?://[^/,;\s]+/?"


@dataclass(frozen=True, slots=True)
class Place:
    """One Envoy: its folder as this process sees it, and the addresses of its data port and its admin port."""

    folder: Path
    url: str
    admin_url: str


def read_places(text: str) -> dict[str, Place]:
    """`gw-2=/gateways/2,http://10.0.0.2:8089,http://10.0.0.2:9901;gw-3=...` by key. ValueError is one sentence."""
    found: dict[str, Place] = {}
    for entry in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        key, _, place = entry.partition("=")
        parts = [part.strip() for part in place.rsplit(",", 2)]
        key = key.strip()
        if len(parts) != 3 or not re.fullmatch(_KEY, key) or not parts[0]:
            raise ValueError(f"GATEWAYS has {entry!r}; write {FORM}, and ';' before the next one.")
        for url in parts[1:]:
            if not re.fullmatch(_URL, url):
                raise ValueError(f"GATEWAYS gives {key} the address {url!r}; write one such as http://10.0.0.2:8089.")
        if key in found:
            raise ValueError(f"GATEWAYS names {key} twice.")
        found[key] = Place(Path(parts[0]), parts[1], parts[2])
    return found


def write_places(places: Mapping[str, Place]) -> str:
    """As `read_places` reads it."""
    return ";".join(f"{key}={place.folder},{place.url},{place.admin_url}" for key, place in places.items())


def shared(places: Iterable[Place]) -> str:
    """A sentence when two gateways would share a folder or a port: each would undo what is applied to the other."""
    taken: set[str] = set()
    for place in places:
        for one in (str(place.folder.absolute()), place.url.rstrip("/"), place.admin_url.rstrip("/")):
            if one in taken:
                return f"Two gateways cannot share {one}; see GATEWAYS and GATEWAY_DIR, GATEWAY_URL, GATEWAY_ADMIN_URL."
            taken.add(one)
    return ""
