"""Waiting until Envoy itself says that it runs what was written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from migrations_app.gateways.envoy.admin import AdminClient
from migrations_app.gateways.envoy.files import Folder
from migrations_app.gateways.envoy.readback import deaf, running_for
from migrations_app.gateways.envoy.wanted import Wanted, generation_of
from migrations_app.gateways.errors import NotConfirmed, StaleGeneration, Unreachable

Json = dict[str, Any]

FIRST_PAUSE = 0.001  # seconds between two looks at the gateway; Envoy takes a new route file in 2-4 ms
LONGEST_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Confirmer:
    """Looks until nothing is wrong.

    `timeout`, in seconds, is for the gateway to confirm, `down_timeout` for one that does not answer at all.
    """

    folder: Folder
    client: AdminClient
    timeout: float
    down_timeout: float

    def clusters(self, generation: int, needed: dict[str, Json]) -> None:
        """Until these clusters are in. Raises NotConfirmed."""

        def look() -> str:
            clusters = self.client.clusters()
            late = [name for name in needed if clusters.get(name) != needed[name]]
            return f"clusters {', '.join(late[:5])} are not in yet" if late else ""

        self._poll(generation, look, answered=True)

    def all(
        self,
        generation: int,
        wanted: Wanted,
        leaving: frozenset[str],
        *,
        answered: bool,
        clusters: dict[str, Json] | None = None,
    ) -> None:
        """Until it runs all of this, but for the clusters named by `leaving`. Raises NotConfirmed, StaleGeneration.

        `answered`: whether it has answered lately. `clusters`: those that it was seen to run a moment ago.
        """

        def look() -> str:
            status = self.client.status()
            if status != wanted.status:
                if (current := self.folder.generation()) > generation:
                    raise StaleGeneration(generation, current)
                return f"it runs generation {generation_of(status)}"
            running = running_for(wanted, self.client, routes_changed=True, clusters=clusters)
            return "; ".join(wanted.differences(running, ignoring=leaving))

        self._poll(generation, look, answered=answered)

    def _deaf(self) -> str:
        try:
            self.client.clusters()
            self.client.routes()
        except Unreachable:
            return ""
        return deaf(self.folder, self.client)

    def _poll(self, generation: int, look: Callable[[], str], *, answered: bool) -> None:
        """Raises NotConfirmed with what was seen last.

        An Envoy that has `answered` lately and now does not is busy loading; one that has not is down.
        """
        started = time.monotonic()
        pause = FIRST_PAUSE
        while True:
            try:
                wrong, away = look(), False
                answered = True
            except Unreachable as error:
                wrong, away = str(error), True
            if not wrong:
                return
            waited = time.monotonic() - started
            if waited > (self.timeout if answered else self.down_timeout):
                told = f"generation {generation} is written, but not confirmed after {waited:.1f} s: {wrong}"
                if not away and (why := self._deaf()):
                    raise NotConfirmed(f"{told}; {why}")
                raise NotConfirmed(told if answered else f"{told}. It runs it as soon as it starts")
            time.sleep(pause)
            pause = min(pause * 1.3, LONGEST_PAUSE)
