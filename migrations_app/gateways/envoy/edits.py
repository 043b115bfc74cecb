"""Whether somebody else has edited the files that Envoy watches. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from migrations_app.gateways.envoy.bootstrap import CDS_FILE, RDS_FILE
from migrations_app.gateways.envoy.files import AppliedState
from migrations_app.gateways.envoy.obey import obeying
from migrations_app.gateways.envoy.render import cluster_file


def edits(applied: AppliedState | None, files: Mapping[str, bytes | None], pinned: Collection[str]) -> tuple[str, ...]:
    """A sentence for each file that lies otherwise than it was applied, and that no apply of ours has left so.

    Nor for one that is as applied, but for the flags that are `pinned`: a rollback script has left it.

    An apply that was cut off leaves routes of an older generation, or clusters with their own true digest.
    """
    if applied is None:
        return ()
    found: list[str] = []
    if files == applied.files:
        return ()
    obeyed = obeying(applied, pinned).files
    for name, content in files.items():
        if content in (applied.files.get(name), obeyed.get(name)):
            continue
        if content is None:
            found.append(f"the file {name} was missing")
        elif not _cut_off(name, content, applied.generation):
            found.append(f"the file {name} had been changed")
    return tuple(found)


def _cut_off(name: str, content: bytes, generation: int) -> bool:
    try:
        body = json.loads(content)
        if name == RDS_FILE:
            return int(body["version_info"]) < generation
        return name == CDS_FILE and cluster_file(body["resources"]) == content
    except (ValueError, KeyError, TypeError):
        return False
