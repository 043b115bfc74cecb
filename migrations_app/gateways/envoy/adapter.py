"""The Envoy adapter: writes what should run into the folder that Envoy watches, and reads back what does run."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from migrations_app.gateways.base import (
    Applied,
    Capabilities,
    Counted,
    Gateway,
    Journal,
    JournalLine,
    Observed,
    Pin,
    Rendered,
    RollbackScript,
    RouteTraffic,
    RoutingTable,
    Side,
    SideTraffic,
)
from migrations_app.gateways.envoy import counters, failing, render
from migrations_app.gateways.envoy.admin import AdminClient
from migrations_app.gateways.envoy.bootstrap import BOOTSTRAP_FILE, CDS_FILE, RDS_FILE
from migrations_app.gateways.envoy.confirm import LONGEST_PAUSE, Confirmer
from migrations_app.gateways.envoy.edits import edits
from migrations_app.gateways.envoy.files import VALIDATED_FILE, AppliedState, Folder
from migrations_app.gateways.envoy.housekeeping import ACCESS_LOG_LIMIT, LEFTOVER_AGE, clear_up
from migrations_app.gateways.envoy.obey import obeying
from migrations_app.gateways.envoy.readback import deaf, look, running_for
from migrations_app.gateways.envoy.scripts import Scripts
from migrations_app.gateways.envoy.validate import NoVerdict, Shapes, Validator, default_bootstrap
from migrations_app.gateways.envoy.wanted import Wanted, parse_files
from migrations_app.gateways.errors import (
    FolderBusy,
    FolderUnusable,
    GatewayError,
    NotConfirmed,
    Pinned,
    Rejected,
    StaleGeneration,
    Unreachable,
)
from migrations_app.gateways.pins import PinFolder

Json = dict[str, Any]
logger = logging.getLogger(__name__)

_VERDICT_WITHIN = 0.8  # seconds that the validator gets for a shape that another Envoy has passed
_SETTLING = 5  # looks, 20 ms apart, before a difference counts as drift and not as an apply that is under way
SETTLED_WITHIN = 0.5  # seconds; a gateway whose answers take long gets fewer looks
QUESTIONS = 6  # of one look, at most: drift is told within SETTLED_WITHIN and the time of two looks' answers


class EnvoyGateway(Gateway):
    """One Envoy, its folder, its data port and its admin port.

    `envoy_binary` is used for validation alone. With None nothing is validated before the hand-over, as
    `capabilities.validates` says: what Envoy refuses is then found by read-back, and the former files are put back.
    Times are in seconds: `confirm_timeout` for the gateway to confirm, `down_timeout` for one that does not answer at
    all, `lock_timeout` for the folder's lock, `http_timeout` for one question to the gateway, so that one that hangs is
    told within two seconds. `log_limit`, in bytes, is how large the access log may get before it is set aside, and
    `leftover_age` how long a temporary file lies in the folder before its writer counts as killed.
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
        http_timeout: float = 0.3,
        validate_timeout: float = 10.0,
        log_limit: int = ACCESS_LOG_LIMIT,
        leftover_age: float = LEFTOVER_AGE,
    ) -> None:
        self._folder, self._pins = Folder(folder), PinFolder(folder)
        self._scripts = Scripts(folder)
        self._client = AdminClient(gateway_url=gateway_url, admin_url=admin_url, timeout=http_timeout)
        self._validator = Validator(Path(envoy_binary), timeout=validate_timeout) if envoy_binary else None
        self._confirm = Confirmer(self._folder, self._client, confirm_timeout, down_timeout)
        self._lock_timeout = lock_timeout
        self._log_limit, self._leftover_age = log_limit, leftover_age
        self._parsed: tuple[Mapping[str, bytes], Wanted] | None = None
        self._in_vain = False  # the lock was waited for and not got, the last time
        self._ran: bytes | None = None  # shapes that Envoy was seen to run, where nothing validates them

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(split=True, traffic=True, survives_restart=True, validates=self._validator is not None)

    def render(self, table: RoutingTable) -> Rendered:
        return render.render(table)

    def check(self, rendered: Rendered) -> None:
        """See Gateway.check. Asks Envoy's validator anew, also about shapes that it has passed: 60-100 ms."""
        wanted = parse_files(rendered.files)
        if self._validator is None:
            return
        with self._usable():
            bootstrap = self._folder.read(BOOTSTRAP_FILE) or default_bootstrap()
        clusters = list(wanted.clusters.values())
        self._validator.check(bootstrap=bootstrap, clusters=clusters, routes=wanted.routes)

    def apply(self, rendered: Rendered) -> Applied:
        """See Gateway.apply. Also raises FolderBusy and FolderUnusable.

        With Envoy down the files are written, for its next start.
        """
        started = time.perf_counter()
        wanted = self._parse(rendered.files)
        with self._usable():
            changed, replaced = self._apply(rendered, wanted)
        milliseconds = (time.perf_counter() - started) * 1000
        return Applied(rendered.generation, changed=changed, milliseconds=milliseconds, replaced=replaced)

    def observe(self) -> Observed:
        seen = Observed(generation=None)
        settled = time.monotonic() + SETTLED_WITHIN
        try:
            for _ in range(_SETTLING):
                seen = self._look()
                if not seen.drift:
                    return seen
                if time.monotonic() >= settled:
                    break
                time.sleep(LONGEST_PAUSE)
            # Who holds it for long is waited for once in a pass, and the apply before has done so.
            with self._locked(0.0 if self._in_vain else self._lock_timeout):
                return self._look()
        except FolderBusy:
            return seen
        except OSError as error:
            return Observed(generation=None, error=f"the gateway's folder {self._folder.path} is not usable: {error}")

    def traffic(self) -> dict[tuple[str, Side], SideTraffic]:
        """See Gateway.traffic. One question, however many services.

        Measured on two busy cores, with both sides of each service used: 4 ms with 10 services, 75 ms with 100. Two
        thirds of that are the response times.
        """
        return counters.traffic(self._client.statistics(counters.PATTERN))

    def traffic_of_routes(self) -> dict[tuple[str, Counted, Side], RouteTraffic]:
        """See Gateway.traffic_of_routes. What no route counts any more may be in it as well."""
        return counters.traffic_of_routes(self._client.statistics(counters.PATTERN_APART))

    def failing_over(self) -> dict[str, str]:
        routes = self._client.routes()
        return failing.failing_over(routes, self._client.cluster_statuses())

    def housekeep(self) -> bool:
        """See Gateway.housekeep: sets a long access log aside, removes what killed writers left."""
        with self._usable():
            return clear_up(
                self._folder,
                self._client,
                lock_timeout=self._lock_timeout,
                log_limit=self._log_limit,
                leftover_age=self._leftover_age,
            )

    def pins(self) -> tuple[Pin, ...]:
        with self._usable():
            return self._pins.pins()

    def pin(self, flags: Collection[str], *, by: str, why: str = "") -> JournalLine:
        with self._usable():
            return self._pins.pin(flags, by=by, why=why, generation=self._folder.generation())

    def _let_go(self, flags: Collection[str], *, by: str, why: str) -> JournalLine:
        with self._usable():
            return self._pins.lift(flags, by=by, why=why, generation=self._folder.generation())

    def journal(self) -> Journal:
        with self._usable():
            return self._pins.journal()

    def journal_size(self) -> int:
        with self._usable():
            return self._pins.journal_size()

    def last_applied(self) -> RoutingTable | None:
        with self._usable():
            state = self._folder.applied()
        return state.table if state else None

    def keep_scripts(self, scripts: Collection[RollbackScript], *, called: str = "") -> bool:
        """See Gateway.keep_scripts. They lie in the folder's `rollback/`."""
        with self._usable():
            if (table := self.last_applied()) is None:
                return False
            return self._scripts.keep(tuple(scripts), table, self._client.gateway_url, called=called)

    def called(self) -> str:
        with self._usable():
            return self._scripts.called()

    def scripts(self) -> tuple[RollbackScript, ...]:
        with self._usable():
            return self._scripts.known()

    def close(self) -> None:
        """Drop the connections to the gateway. The adapter may be used again."""
        self._client.close()

    def _apply(self, rendered: Rendered, wanted: Wanted) -> tuple[bool, tuple[str, ...]]:
        """Whether anything had to be written, and what of somebody else's was replaced."""
        former, refused_before, state = None, None, _state_of(rendered)
        replaced: tuple[str, ...] = ()
        try:
            # The lock ends with the writing: who waits for a confirmation must not hold up a rollback.
            with self._locked():
                self._refuse_stale(rendered.generation)
                # Under the lock: whoever has pinned a flag need not fear an apply that began before.
                pinned = self._pins.flags()
                if against := wanted.on & pinned:
                    raise Pinned(against)
                former = self._folder.applied()
                found = self._folder.read_watched()
                same = former == state and found == rendered.files
                if same and self._runs(wanted):
                    return False, ()
                self._validate(rendered, wanted)
                refused_before = self._refusals(wanted)
                if former != state:
                    self._folder.note_applied(state)
                replaced = edits(former, found, pinned)
                leaving, up, seen = self._write(rendered, wanted, former)
            self._confirm.all(rendered.generation, wanted, leaving, answered=up, clusters=seen)
            refused_before = None  # it runs all of this
            if leaving:
                self._remove(rendered, wanted)
        except GatewayError as error:
            error.replaced = replaced
            if isinstance(error, NotConfirmed):
                self._put_back_if_refused(rendered, former, refused_before, error)
            raise
        if self._validator is None:
            self._ran = _shapes_alone(wanted).noted_in(self._ran)
        return True, replaced

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FolderUnusable(f"the gateway's folder {self._folder.path} is not usable: {error}") from error

    @contextmanager
    def _locked(self, timeout: float | None = None) -> Iterator[None]:
        """Raises FolderBusy."""
        try:
            with self._folder.locked(self._lock_timeout if timeout is None else timeout):
                self._in_vain = False
                yield
        except FolderBusy:
            self._in_vain = True
            raise

    def _refuse_stale(self, generation: int) -> None:
        if generation < (current := self._folder.generation()):
            raise StaleGeneration(generation, current)

    def _runs(self, wanted: Wanted) -> bool:
        try:
            return not wanted.differences(running_for(wanted, self._client)) and self._client.status() == wanted.status
        except Unreachable:
            return False

    def _validate(self, rendered: Rendered, wanted: Wanted) -> None:
        if self._validator is None:
            return
        bootstrap = self._folder.read(BOOTSTRAP_FILE) or default_bootstrap()
        clusters = list(wanted.clusters.values())
        store = self._folder.read(VALIDATED_FILE)
        shapes = partial(Shapes, envoy=self._validator.identity(), bootstrap=bootstrap, clusters=clusters)
        own = shapes(routes=wanted.routes)
        if own.known_in(store):
            return
        # Passed by another Envoy, before an upgrade: a rollback must not wait for a validator that is broken now.
        passed_before = shapes(envoy="", routes=wanted.routes).known_in(store)
        routes = wanted.routes
        if isinstance(rendered, render.EnvoyRendered):
            # Pass every weight of every route now, so that no later flip has to wait for the validator. Files that say
            # other than their table does are passed as they are: they are what Envoy gets.
            variants = render.every_variant(rendered.table)
            routes = variants if own.within(shapes(routes=variants)) else wanted.routes
        try:
            within = _VERDICT_WITHIN if passed_before else None
            self._validator.check(bootstrap=bootstrap, clusters=clusters, routes=routes, within=within)
        except NoVerdict as none:
            if not passed_before:
                raise
            logger.warning("%s; another Envoy has passed this shape, so it is handed over", none)
            return
        self._folder.write(VALIDATED_FILE, shapes(routes=routes).noted_in(store), durable=False)

    def _write(
        self, rendered: Rendered, wanted: Wanted, former: AppliedState | None
    ) -> tuple[frozenset[str], bool, dict[str, Json] | None]:
        """Clusters, then routes.

        Returns the names of clusters that stay until no route needs them, whether Envoy answered meanwhile, and the
        clusters that it ran at the end, when that is known.
        """
        routes = rendered.files[RDS_FILE]
        if early := self._only_routes_change(rendered, wanted, former):
            # Every click waits for this rename, so the question about the clusters comes after it. Should they have
            # changed unseen, Envoy refuses routes to a cluster that it lacks, and they are written again below.
            self._folder.write(RDS_FILE, routes)
        now: dict[str, Json] = {}
        try:
            now, up = self._client.clusters(), True
        except Unreachable:
            up = False
        if early and (not up or now == wanted.clusters):
            return frozenset(), up, now or None
        leaving = frozenset(now) - frozenset(wanted.clusters)
        clusters = rendered.files[CDS_FILE]
        if leaving:
            clusters = render.cluster_file([*wanted.clusters.values(), *(now[name] for name in sorted(leaving))])
        target = wanted.clusters | {name: now[name] for name in leaving}
        if self._folder.read(CDS_FILE) != clusters or (up and now != target):
            self._folder.write(CDS_FILE, clusters)
            if up:
                needed = {name: target[name] for name in wanted.needed & target.keys()}
                self._confirm.clusters(rendered.generation, needed)
        # A gateway that is up gets the same file again too: it may have missed it, or run something else since.
        if up or self._folder.read(RDS_FILE) != routes:
            self._folder.write(RDS_FILE, routes)
        return leaving, up, None

    def _only_routes_change(self, rendered: Rendered, wanted: Wanted, former: AppliedState | None) -> bool:
        """Whether these clusters were applied before, lie ready, and were seen to run when last asked for."""
        clusters = rendered.files[CDS_FILE]
        return (
            former is not None
            and former.files.get(CDS_FILE) == clusters == self._folder.read(CDS_FILE)
            and self._client.last_clusters == wanted.clusters
            and self._folder.read(RDS_FILE) != rendered.files[RDS_FILE]
        )

    def _remove(self, rendered: Rendered, wanted: Wanted) -> None:
        """Take away the clusters that no route needs any more, unless another apply has come in between."""
        with self._locked():
            if self._folder.applied() != _state_of(rendered):
                return
            self._folder.write(CDS_FILE, rendered.files[CDS_FILE])
        self._confirm.all(rendered.generation, wanted, frozenset(), answered=True)

    def _refusals(self, wanted: Wanted) -> int | None:
        """Only counted for what nobody has passed before: Envoy's own refusal is then the first word on it."""
        if self._validator is not None or _shapes_alone(wanted).known_in(self._ran):
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
        refused = Rejected(told)
        refused.replaced = error.replaced
        raise refused from error

    def _look(self) -> Observed:
        state = self._folder.applied()
        if state is None:
            return Observed(generation=None, error="nothing was applied to this gateway yet, or the note of it is lost")
        now = obeying(state, self._pins.flags())
        seen = self._look_for(now)
        if seen.drift and now is not state:
            # Flags that were pinned a moment ago are no drift: what was applied before may still run.
            before = self._look_for(state)
            return seen if before.drift else before
        return seen

    def _look_for(self, state: AppliedState) -> Observed:
        try:
            wanted = self._parse(state.files)
        except Rejected as error:
            return Observed(generation=None, error=str(error))
        seen = look(state, wanted, self._folder.read_watched(), self._client)
        if seen.generation is not None and not seen.error and (why := deaf(self._folder, self._client)):
            # No drift: there is nothing to put back, and what is put there Envoy would not take.
            return replace(seen, error=why)
        return seen

    def _parse(self, files: Mapping[str, bytes]) -> Wanted:
        """The same files come every second; parse them once."""
        known = self._parsed
        if known is None or known[0] != files:
            known = self._parsed = (dict(files), parse_files(files))
        return known[1]


def _state_of(rendered: Rendered) -> AppliedState:
    table = rendered.table if isinstance(rendered, render.EnvoyRendered) else None
    return AppliedState(rendered.generation, rendered.files, table)


def _shapes_alone(wanted: Wanted) -> Shapes:
    """For one Envoy with one bootstrap, where neither needs a name."""
    return Shapes(envoy="", bootstrap=b"", clusters=list(wanted.clusters.values()), routes=wanted.routes)
