"""Back to the monolith while PostgreSQL is away, and without any process of the product; and what comes of it after."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings as django_settings

from controlplane.embedded.children import free_port
from migrations_app.actions.flags import set_weight
from migrations_app.actions.pins import settle_passes
from migrations_app.actions.weeks import enable_week
from migrations_app.choices import AuditKind
from migrations_app.management.commands import panic
from migrations_app.models import AuditEvent, Flag, Gateway, Plan
from migrations_app.reconcile.adapters import adapter_for
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.load import load_on
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, System, wait_for

KEY = "USE_RAG_SERVICE"
LOCKING = b"FOR UPDATE"  # what a change asks first


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on, and the rollback scripts lie ready. No process of the product runs."""
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    assert reconcile_all()[0].error == ""
    assert system.served_by() == ON_THE_SERVICES
    return system


class Between:
    """A wire to the real PostgreSQL that hangs, or is cut, as soon as a client says a word. `urls` lead through it."""

    def __init__(self, url: str, word: bytes, *, cut: bool) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._word, self._cut = word, cut
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._open: list[socket.socket] = []
        host = f"{parts.username}{f':{parts.password}' if parts.password else ''}@127.0.0.1:{self._port}"
        self.url = urlunsplit(parts._replace(netloc=host))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def _port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with_shutdown(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._open += [client, server]
            threading.Thread(target=self._carry, args=(client, server, self._word), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, None), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, word: bytes | None) -> None:
        try:
            while data := source.recv(65536):
                if word is not None and word in data:
                    if self._cut:
                        self.close()
                    return
                sink.sendall(data)
        except OSError:
            return


def with_shutdown(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        one.close()


@contextmanager
def stopped(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    yield urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{free_port()}"))


@contextmanager
def hung(url: str) -> Iterator[str]:
    """As a server that was stopped by SIGSTOP: its kernel takes the connection, and nobody ever answers."""
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        yield urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{silent.getsockname()[1]}"))


@contextmanager
def hung_midway(url: str) -> Iterator[str]:
    between = Between(url, LOCKING, cut=False)
    yield between.url
    between.close()


@contextmanager
def cut_midway(url: str) -> Iterator[str]:
    between = Between(url, LOCKING, cut=True)
    yield between.url
    between.close()


AWAY: dict[str, Callable] = {
    "stopped": stopped,
    "hung": hung,
    "hung midway": hung_midway,
    "cut midway": cut_midway,
}


@pytest.mark.parametrize("way", AWAY)
def test_a_panic_without_the_database_is_confirmed_by_the_gateway_and_told_when_it_is_back(on: System, way: str):
    generation = Plan.objects.get().generation
    events = AuditEvent.objects.count()
    with AWAY[way](on.estate.environ()["DATABASE_URL"]) as url:
        done = on.manage("panic", "--week", "1", "--actor", "anna", "--reason", "it burns", DATABASE_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The database" in done.stderr
    assert "Week 1 is on the old side, and pinned there. Confirmed in" in done.stdout
    assert on.served_by() == ON_THE_MONOLITH
    assert on.status()["generation"] == generation
    # The database knows nothing of it yet, and nothing of what was asked of it was carried out.
    assert AuditEvent.objects.count() == events
    assert set(Flag.objects.filter(week__number=1).values_list("weight", flat=True)) == {100}

    (first,) = reconcile_all()
    assert (first.error, first.changed, first.unsettled) == ("", False, True)
    assert len(settle_passes([first])) == 3
    assert reconcile_all()[0].error == ""
    assert settle_passes(reconcile_all()) == []
    told = AuditEvent.objects.get(kind=AuditKind.FLAG_PINNED)
    assert (told.actor, told.reason, told.after["generation"]) == ("anna", "it burns", generation)
    assert AuditEvent.objects.filter(kind=AuditKind.FLAG_ROLLED_BACK).count() == 3
    assert not AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).exists()
    hold(on)
    assert on.served_by() == ON_THE_MONOLITH
    assert {pin["flag"] for pin in Gateway.objects.get().pins} == set(told.after["flags"])


def test_nothing_that_a_panic_waits_for_is_without_a_limit():
    limits = django_settings.DATABASES["default"]["OPTIONS"]
    assert limits["connect_timeout"] <= panic.ANSWERS_WITHIN <= 2
    assert panic.CHANGES_WITHIN <= 3
    assert panic.CONFIRMS_WITHIN <= django_settings.CONFIRM_WITHIN + 2


def test_a_gateway_that_is_down_as_well_is_told_with_what_to_do_by_hand_and_starts_on_the_old_side(on: System):
    on.envoy.stop()
    with stopped(on.estate.environ()["DATABASE_URL"]) as url:
        done = on.manage("panic", DATABASE_URL=url)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "NOT CONFIRMED" in done.stderr
    assert f"sh {on.envoy.folder}/rollback/everything.sh" in done.stderr
    assert f"curl http://127.0.0.1:{on.envoy.port}/routing-status" in done.stderr
    assert "Traceback" not in done.stderr
    with stopped(on.estate.environ()["DATABASE_URL"]) as url:
        listed = on.manage("pin", "list", "--json", DATABASE_URL=url)
    assert {pin["flag"] for pin in json.loads(listed.stdout)} == set(Flag.objects.values_list("key", flat=True))
    on.envoy.start()
    assert on.served_by() == ON_THE_MONOLITH


def test_a_script_brings_a_week_back_under_load_without_a_failed_request_and_the_loop_obeys(on: System):
    script = str(on.envoy.folder / "rollback" / "week-1.sh")
    with load_on(on.envoy.port) as load:
        wait_for(lambda: load.count() > 60, "there is load")
        done = subprocess.run(
            ["sh", script, "it burns"], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        seen = load.count()
        wait_for(lambda: load.count() > seen + 60, "the load goes on")
    assert on.served_by() == ON_THE_MONOLITH
    # The control plane comes back.
    for _ in range(3):
        settle_passes(reconcile_all())
    hold(on, load=load)
    assert on.served_by() == ON_THE_MONOLITH
    assert AuditEvent.objects.get(kind=AuditKind.FLAG_PINNED).reason == "it burns"
    assert not AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).exists()
    assert set(Flag.objects.filter(week__number=1).values_list("weight", flat=True)) == {0}
    assert Gateway.objects.get().error == ""
    # Lifting moves nothing; then the way up is open again.
    lifted = on.manage("pin", "lift", "--all", "--reason", "mended")
    assert lifted.returncode == 0, lifted.stderr
    assert adapter_for(Gateway.objects.get()).pins() == ()
    assert reconcile_all()[0].error == ""
    assert on.served_by() == ON_THE_MONOLITH
    set_weight(key=KEY, weight=100, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    assert on.served_by() == {**ON_THE_MONOLITH, "rag": "rag"}


def test_a_script_beside_a_running_loop_is_obeyed_by_every_pass_that_was_under_way(on: System):
    over, errors = threading.Event(), []

    def loop() -> None:
        from django.db import connection

        try:
            while not over.is_set():
                errors.extend(done.error for done in reconcile_all() if done.error)
        finally:
            connection.close()

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        command = ["sh", str(on.envoy.folder / "rollback" / "everything.sh")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert errors == []
    assert on.served_by() == ON_THE_MONOLITH
    settle_passes(reconcile_all())
    reconcile_all()
    hold(on)
    assert not AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).exists()
