"""What any gateway of ours is to be: each test of this folder runs on the one in memory and on Envoy."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import replace

import pytest

from migrations_app.gateways.base import Counted, Gateway, Rendered, RouteTraffic, Side, Sticky
from migrations_app.gateways.envoy.bootstrap import CDS_FILE, RDS_FILE
from migrations_app.gateways.memory import MemoryGateway
from tests.gateways.estate import Upstream, wait_until

_numbers = itertools.count(1)


class Bench(ABC):
    """An adapter, its gateway, and hands to do to the gateway what operators and accidents do."""

    gateway: Gateway

    @abstractmethod
    def ask(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[str, str] | None:
        """Send a request through the gateway: who answered, and the path that was seen there. None for an error."""

    @abstractmethod
    def kill(self, service: str) -> None:
        """End the service of this name: from now on it takes no connections."""

    @abstractmethod
    def answer_with(self, service: str, status: int) -> None:
        """What the service of this name answers from now on."""

    @abstractmethod
    def ask_slow(self, path: str, milliseconds: float) -> None:
        """Send a request that takes at least so long upstream, and less than 50 % longer."""

    def apart(self, service: str) -> dict[tuple[str, Side], RouteTraffic]:
        """Path or method and path, and side -> what is counted of this service by itself."""
        found = self.gateway.traffic_of_routes()
        return {(str(one), side): counted for (name, one, side), counted in found.items() if name == service}

    @abstractmethod
    def written(self) -> object:
        """Something that changes whenever the adapter writes."""

    @abstractmethod
    def refused(self, rendered: Rendered) -> Rendered:
        """A table in the gateway's language that the gateway itself refuses."""

    @abstractmethod
    def edit_running(self) -> None:
        """Send the storage service's traffic, at weight 0, to the new side, behind the adapter's back."""

    @abstractmethod
    def edit_folder(self) -> None:
        """The same in what lies ready for the next start only."""

    @abstractmethod
    def delete_folder(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def start(self) -> None: ...


class MemoryBench(Bench):
    def __init__(self, estate) -> None:
        self.gateway = MemoryGateway()
        self._estate = estate
        self._statuses = {}

    def ask(self, path, method="GET", headers=None):
        status = next(
            (status for name, status in self._statuses.items() if name in (path.split("/")[2], "monolith")), 200
        )
        served = self.gateway.serve(path, method=method, headers=headers, failed=status >= 500, status=status)
        names = {upstream.address: name for name, upstream in self._estate.items()}
        return None if served.failed else (names[served.address], served.path)

    def kill(self, service):
        self.gateway.down.add(service)

    def answer_with(self, service, status):
        self._statuses[service] = status

    def ask_slow(self, path, milliseconds):
        self.gateway.serve(path, milliseconds=milliseconds)

    def written(self):
        return self.gateway.writes

    def refused(self, rendered):
        self.gateway.refuses = "a gateway in a bad mood"
        return rendered

    def edit_running(self):
        self.gateway.tamper({"USE_STORAGE_SERVICE": 100})

    def edit_folder(self):
        self.gateway.tamper_folder(b"{}")

    def delete_folder(self):
        self.gateway.tamper_folder(None)

    def stop(self):
        self.gateway.answers = False

    def start(self):
        self.gateway.answers = True


class EnvoyBench(Bench):
    def __init__(self, envoy, estate) -> None:
        self.envoy, self._estate = envoy, estate
        self.gateway = envoy.adapter()

    def ask(self, path, method="GET", headers=None):
        body = b"x" * 2000 if method == "POST" else None
        reply = self.envoy.ask(path, method=method, headers=headers, body=body)
        return None if reply.status >= 500 else (reply.who, reply.path)

    def kill(self, service):
        self._estate[service].die()

    def answer_with(self, service, status):
        self._estate[service].status = status

    def ask_slow(self, path, milliseconds):
        for upstream in self._estate.values():
            upstream.delay = milliseconds / 1000
        try:
            self.ask(path)
        finally:
            for upstream in self._estate.values():
                upstream.delay = 0.0

    def written(self):
        files = [file for file in self.envoy.folder.rglob("*.json") if file.is_file()]
        return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

    def refused(self, rendered):
        routes = rendered.files[RDS_FILE].replace(b'"num_retries":1', b'"num_retries":"many"', 1)
        assert routes != rendered.files[RDS_FILE]
        return Rendered(rendered.generation, {**rendered.files, RDS_FILE: routes})

    def edit_running(self):
        self.envoy.replace_file(RDS_FILE, ('"cluster":"storage.monolith"', '"cluster":"storage.service"'))
        wait_until(lambda: self.ask("/api/storage")[0] == "storage")

    def edit_folder(self):
        self.envoy.edit_in_place(RDS_FILE, ('"cluster":"storage.monolith"', '"cluster":"storage.service"'))

    def delete_folder(self):
        for name in (CDS_FILE, RDS_FILE):
            (self.envoy.folder / name).unlink()

    def stop(self):
        self.envoy.stop()

    def start(self):
        self.envoy.start()


@pytest.fixture(params=["memory", "envoy"])
def bench(request, estate):
    if request.param == "memory":
        yield MemoryBench(estate)
    else:
        envoy = request.getfixturevalue("module_envoy")
        yield EnvoyBench(envoy, estate)
        if pinned := [pin.flag for pin in envoy.adapter().pins()]:
            envoy.adapter().lift(pinned, by="tests")
        if envoy._process is None:
            envoy.start()


@pytest.fixture
def run(bench, table):
    """Apply the next table: `run(auth=100)`."""

    def apply(**weights: int):
        return bench.gateway.apply(bench.gateway.render(table(**weights)))

    return apply


@pytest.fixture
def mortal(bench, table, estate):
    """Apply a table with one route to a service of this test alone: `name = mortal(weight=100)`.

    Its route is `/api/NAME`. Envoy remembers for a while that a service has failed, so every test has its own.
    """
    added = []

    def make(
        *, weight: int = 100, sticky: Sticky | None = None, counted: tuple[str, ...] = (), secret: str = "", **fields
    ) -> str:
        name = f"mortal-{next(_numbers)}"
        estate[name] = Upstream(name)
        added.append(name)
        made = table()
        route = replace(
            made.routes[0], service=name, flag=f"USE_{name}", prefix=f"/api/{name}", weight=weight, **fields
        )
        apart = [(method, rest) for method, _, rest in (one.rpartition(" ") for one in counted)]
        applied = replace(
            made,
            routes=(replace(route, upstream=estate[name].address),),
            sticky=sticky,
            tester_secret=secret,
            counted=tuple(Counted(f"/api/{name}/{rest}".rstrip("/"), method) for method, rest in apart),
        )
        bench.gateway.apply(bench.gateway.render(applied))
        return name

    yield make
    for name in added:
        upstream = estate.pop(name)
        if not upstream.dead:
            upstream.stop()
