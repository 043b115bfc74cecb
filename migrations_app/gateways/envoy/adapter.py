"""The Envoy adapter: writes what should run into the folder that Envoy watches, and reads back what does run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from migrations_app.gateways.base import (
    Applied,
    Capabilities,
    Gateway,
    Observed,
    Rendered,
    RoutingTable,
    Side,
    SideTraffic,
)
from migrations_app.gateways.envoy import drift, render
from migrations_app.gateways.envoy.admin import AdminClient, Running
from migrations_app.gateways.envoy.bootstrap import BOOTSTRAP_FILE, CDS_FILE, RDS_FILE
from migrations_app.gateways.envoy.files import VALIDATED_FILE, AppliedState, Folder
from migrations_app.gateways.envoy.validate import Shapes, Validator, default_bootstrap
from migrations_app.gateways.errors import FolderBusy, NotConfirmed, Rejected, StaleGeneration, Unreachable

Json = dict[str, Any]

_FIRST_PAUSE = 0.001  # seconds between two looks at the gateway; Envoy takes a new route file in 2-4 ms
_LONGEST_PAUSE = 0.02
_COUNTERS = r"^vhost\.gateway\.route\.([^.]+)\.(monolith|service)\.upstream_rq_(completed|5xx)$"
_SETTLING = 5  # looks, 20 ms apart, before a difference counts as drift and not as an apply that is under way


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Rendered files, parsed."""

    clusters: dict[str, Json]
    routes: Json
    status: bytes  # the body that `/routing-status` has when this runs

    def differences(self, running: Running, *, ignoring: frozenset[str] = frozenset()) -> tuple[str, ...]:
        return drift.differences(
            clusters={name: cluster for name, cluster in running.clusters.items() if name not in ignoring},
            routes=running.routes,
            wanted_clusters=self.clusters,
            wanted_routes=self.routes,
        )


class EnvoyGateway(Gateway):
    """One Envoy, its folder, its data port and its admin port.

    `envoy_binary` is used for validation alone. With None nothing is validated before the hand-over, as
    `capabilities.validates` says: what Envoy refuses is then found by read-back, and the former files are put back.
    Times are in seconds: `confirm_timeout` for the gateway to confirm, `down_timeout` for one that does not answer at
    all, `lock_timeout` for the folder's lock, `http_timeout` for one question to the gateway.
    """

    def __init__(
        self,
        *,
        folder: Path,
        gateway_url: str,
        admin_url: str,
        envoy_binary: Path | str | None,
        confirm_timeout: float = 2.0,
        down_timeout: float = 0.4,
        lock_timeout: float = 1.5,
        http_timeout: float = 0.5,
        validate_timeout: float = 10.0,
    ) -> None:
        self._folder = Folder(folder)
        self._client = AdminClient(gateway_url=gateway_url, admin_url=admin_url, timeout=http_timeout)
        self._validator = Validator(Path(envoy_binary), timeout=validate_timeout) if envoy_binary else None
        self._confirm_timeout = confirm_timeout
        self._down_timeout = down_timeout
        self._lock_timeout = lock_timeout
        self._parsed: tuple[bytes, bytes, _Wanted] | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(split=True, traffic=True, survives_restart=True, validates=self._validator is not None)

    def render(self, table: RoutingTable) -> Rendered:
        return render.render(table)

    def apply(self, rendered: Rendered) -> Applied:
        """See Gateway.apply. Also raises FolderBusy. With Envoy down the files are written, for its next start."""
        started = time.perf_counter()
        wanted = self._parse(rendered.files)
        with self._locked():
            self._refuse_stale(rendered.generation)
            former = self._folder.applied()
            if self._lies_ready(rendered, former) and self._runs(wanted):
                return Applied(rendered.generation, changed=False, milliseconds=_since(started))
            self._validate(rendered, wanted)
            refused_before = self._refusals()
            self._folder.note_applied(AppliedState(rendered.generation, rendered.files))
            leaving = self._write(rendered, wanted)
        try:
            self._confirm(rendered.generation, wanted, leaving)
        except NotConfirmed as error:
            self._put_back_if_refused(rendered, former, refused_before, error)
            raise
        if leaving:
            self._remove(rendered, wanted)
        return Applied(rendered.generation, changed=True, milliseconds=_since(started))

    def observe(self) -> Observed:
        for _ in range(_SETTLING):
            seen = self._look()
            if not seen.drift:
                return seen
            time.sleep(_LONGEST_PAUSE)
        try:
            with self._locked():
                return self._look()
        except FolderBusy:
            return seen

    def traffic(self) -> dict[tuple[str, Side], SideTraffic]:
        found: dict[tuple[str, Side], dict[str, int]] = {}
        for name, value in self._client.counters(_COUNTERS).items():
            if part := re.match(_COUNTERS, name):
                found.setdefault((part[1], Side(part[2])), {})[part[3]] = value
        return {
            key: SideTraffic(requests=counts.get("completed", 0), errors=counts.get("5xx", 0))
            for key, counts in sorted(found.items())
        }

    def close(self) -> None:
        """Drop the connections to the gateway. The adapter may be used again."""
        self._client.close()

    def _locked(self) -> Any:
        return self._folder.locked(self._lock_timeout)

    def _refuse_stale(self, generation: int) -> None:
        if generation < (current := self._folder.generation()):
            raise StaleGeneration(generation, current)

    def _lies_ready(self, rendered: Rendered, state: AppliedState | None) -> bool:
        """Whether the folder has exactly this, for Envoy and in our note of it."""
        if state != AppliedState(rendered.generation, rendered.files):
            return False
        return self._folder.read_watched() == rendered.files

    def _runs(self, wanted: _Wanted) -> bool:
        try:
            return not wanted.differences(self._client.running()) and self._client.status() == wanted.status
        except Unreachable:
            return False

    def _validate(self, rendered: Rendered, wanted: _Wanted) -> None:
        if self._validator is None:
            return
        bootstrap = self._folder.read(BOOTSTRAP_FILE) or default_bootstrap()
        clusters = list(wanted.clusters.values())
        store = self._folder.read(VALIDATED_FILE)
        shapes = partial(Shapes, envoy=self._validator.identity(), bootstrap=bootstrap, clusters=clusters)
        if shapes(routes=wanted.routes).known_in(store):
            return
        routes = wanted.routes
        if isinstance(rendered, render.EnvoyRendered):
            # Pass every weight of every route now, so that no later flip has to wait for the validator.
            routes = render.every_variant(rendered.table)
        self._validator.check(bootstrap=bootstrap, clusters=clusters, routes=routes)
        self._folder.write(VALIDATED_FILE, shapes(routes=routes).noted_in(store), durable=False)

    def _write(self, rendered: Rendered, wanted: _Wanted) -> frozenset[str]:
        """Clusters, then routes. Returns the names of clusters that stay until no route needs them."""
        try:
            now, up = self._client.clusters(), True
        except Unreachable:
            now, up = {}, False
        leaving = frozenset(now) - frozenset(wanted.clusters)
        clusters = rendered.files[CDS_FILE]
        if leaving:
            clusters = render.cluster_file([*wanted.clusters.values(), *(now[name] for name in sorted(leaving))])
        target = wanted.clusters | {name: now[name] for name in leaving}
        if self._folder.read(CDS_FILE) != clusters or (up and now != target):
            self._folder.write(CDS_FILE, clusters)
            if up:
                self._await_clusters(rendered.generation, target)
        self._folder.write(RDS_FILE, rendered.files[RDS_FILE])
        return leaving

    def _await_clusters(self, generation: int, target: dict[str, Json]) -> None:
        def look() -> str:
            clusters = self._client.clusters()
            late = [name for name in target if clusters.get(name) != target[name]]
            return f"clusters {', '.join(late[:5])} are not in yet" if late else ""

        self._poll(generation, look)

    def _confirm(self, generation: int, wanted: _Wanted, leaving: frozenset[str]) -> None:
        def look() -> str:
            status = self._client.status()
            if status != wanted.status:
                if (current := self._folder.generation()) > generation:
                    raise StaleGeneration(generation, current)
                return f"it runs generation {_generation(status)}"
            return "; ".join(wanted.differences(self._client.running(), ignoring=leaving))

        self._poll(generation, look)

    def _poll(self, generation: int, look: Callable[[], str]) -> None:
        """Look until nothing is wrong. Raises NotConfirmed with what was seen last."""
        started = time.monotonic()
        pause, answered = _FIRST_PAUSE, False
        while True:
            try:
                wrong = look()
                answered = True
            except Unreachable as error:
                wrong = str(error)
            if not wrong:
                return
            waited = time.monotonic() - started
            if waited > (self._confirm_timeout if answered else self._down_timeout):
                told = f"generation {generation} is written, but not confirmed after {waited:.1f} s: {wrong}"
                raise NotConfirmed(told if answered else f"{told}. It runs it as soon as it starts")
            time.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)

    def _remove(self, rendered: Rendered, wanted: _Wanted) -> None:
        """Take away the clusters that no route needs any more, unless another apply has come in between."""
        with self._locked():
            if self._folder.applied() != AppliedState(rendered.generation, rendered.files):
                return
            self._folder.write(CDS_FILE, rendered.files[CDS_FILE])
        self._confirm(rendered.generation, wanted, frozenset())

    def _refusals(self) -> int | None:
        """Only counted where nothing was validated before: Envoy's own refusal is then the first word on it."""
        if self._validator is not None:
            return None
        try:
            return self._client.rejections()
        except Unreachable:
            return None

    def _put_back_if_refused(
        self, rendered: Rendered, former: AppliedState | None, before: int | None, error: NotConfirmed
    ) -> None:
        if before is None or former is None:
            return
        try:
            if self._client.rejections() <= before:
                return
        except Unreachable:
            return
        with self._locked():
            if self._folder.generation() == rendered.generation:
                self._folder.note_applied(former)
                for name, content in former.files.items():
                    self._folder.write(name, content)
        told = f"Envoy refuses generation {rendered.generation}, its log says why; {former.generation} is put back"
        raise Rejected(told) from error

    def _look(self) -> Observed:
        state = self._folder.applied()
        if state is None:
            return Observed(generation=None, error="nothing was applied to this gateway yet, or the note of it is lost")
        wanted = self._parse(state.files)
        found = [*self._changed_files(state)]
        try:
            status = self._client.status()
            running = self._client.running()
        except Unreachable as error:
            return Observed(generation=None, drift=tuple(found), error=str(error))
        generation, error = _generation(status), ""
        if generation is None:
            error = f"{self._client.gateway_url} answers /routing-status, but not as a table of ours would"
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

    def _changed_files(self, state: AppliedState) -> list[str]:
        found = []
        for name, content in self._folder.read_watched().items():
            if content is None:
                found.append(f"the file {name} is missing: the gateway could not start again")
            elif content != state.files.get(name):
                found.append(f"the file {name} was changed: the gateway would load that when it starts again")
        return found

    def _parse(self, files: Any) -> _Wanted:
        cds, rds = files.get(CDS_FILE, b""), files.get(RDS_FILE, b"")
        if self._parsed is None or self._parsed[:2] != (cds, rds):
            self._parsed = (cds, rds, _parse(cds, rds))
        return self._parsed[2]


def _parse(cds: bytes, rds: bytes) -> _Wanted:
    try:
        clusters = {cluster["name"]: cluster for cluster in json.loads(cds)["resources"]}
        [routes] = json.loads(rds)["resources"]
        own = [route for host in routes["virtual_hosts"] for route in host["routes"]]
        [status] = [route for route in own if route.get("name") == render.STATUS_ROUTE]
        body = status["direct_response"]["body"]["inline_string"].encode()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Rejected(f"the rendered files are not a routing table of ours: {error!r}") from error
    return _Wanted(clusters=clusters, routes=routes, status=body)


def _generation(status: bytes) -> int | None:
    try:
        return int(json.loads(status)["generation"])
    except (ValueError, KeyError, TypeError):
        return None


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
