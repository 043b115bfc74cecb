"""What Envoy runs, read back and compared with what was last applied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from migrations_app.gateways.base import Observed
from migrations_app.gateways.envoy import drift
from migrations_app.gateways.envoy.admin import AdminClient, Running
from migrations_app.gateways.envoy.bootstrap import CDS_FILE, RDS_FILE
from migrations_app.gateways.envoy.files import AppliedState, Folder
from migrations_app.gateways.envoy.wanted import Wanted, generation_of
from migrations_app.gateways.errors import Unreachable

Json = dict[str, Any]


def running_for(
    wanted: Wanted, client: AdminClient, *, routes_changed: bool = False, clusters: dict[str, Json] | None = None
) -> Running:
    """What runs; a cluster that no route needs yet may still wait for its name to be resolved. Raises Unreachable.

    `clusters`, when given, are those that were read back a moment ago and are not asked for again.
    """
    found = client.clusters() if clusters is None else clusters
    running = Running(clusters=found, routes=client.routes(changed=routes_changed))
    ready = [name for name, cluster in wanted.clusters.items() if running.clusters.get(name) == cluster]
    if wanted.needed.union(ready) >= wanted.clusters.keys():
        return running
    warming = {name: cluster for name, cluster in client.warming().items() if name not in wanted.needed}
    return Running(clusters=running.clusters | warming, routes=running.routes)


def deaf(folder: Folder, client: AdminClient) -> str:
    """A sentence when Envoy watches a folder that is not there any more; empty when it does not, or nobody knows.

    Asks nobody: it goes by when Envoy last took something, as it was read back a moment ago.
    """
    taken = {CDS_FILE: client.clusters_taken_at, RDS_FILE: client.routes_taken_at}
    lost = [f"{Path(name).parent}/" for name, at in taken.items() if at is not None and folder.made_at(name) > at]
    if not lost:
        return ""
    return (
        f"the folder {' and '.join(lost)} was made anew after the gateway had started, which hears of no change in it: "
        "start the gateway again"
    )


def look(state: AppliedState, wanted: Wanted, files: Mapping[str, bytes | None], client: AdminClient) -> Observed:
    """One look at the gateway. `state` and `wanted` are what was last applied, `files` what lies in the folder now."""
    found = _changed_files(state, files)
    try:
        status = client.status()
        running = running_for(wanted, client)
    except Unreachable as away:
        return Observed(generation=None, drift=tuple(found), error=str(away))
    generation, error = generation_of(status), ""
    if generation is None:
        error = f"{client.gateway_url} answers /routing-status, but not as a table of ours would"
    elif generation > state.generation:
        # Whoever applies notes it first, so this was never applied. Believing it would stop every repair.
        error = f"the gateway claims generation {generation}, but the highest applied is {state.generation}"
        generation = None
    elif generation < state.generation:
        found.insert(0, f"the gateway runs generation {generation}, applied was {state.generation}")
    if error:
        found.insert(0, error)
    return Observed(
        generation=generation,
        weights=drift.weights(running.routes),
        drift=(*wanted.differences(running), *found),
        error=error,
    )


def _changed_files(state: AppliedState, files: Mapping[str, bytes | None]) -> list[str]:
    found = []
    for name, content in files.items():
        if content is None:
            found.append(f"the file {name} is missing: the gateway could not start again")
        elif content != state.files.get(name):
            found.append(f"the file {name} was changed: the gateway would load that when it starts again")
    return found
