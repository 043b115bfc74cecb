"""PostgreSQL fails in the middle of a click: what was acknowledged is stored, the same click again is one change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from psycopg import sql

from controlplane.database import ANSWER_WITHIN
from controlplane.embedded.children import free_port
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.management.base import NOT_KNOWN
from migrations_app.models import AuditEvent, Flag, Plan
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import PASSWORD
from tests.faults.load import load_on
from tests.faults.promises import SAID_WITHIN, hold
from tests.faults.proxy import At, Proxy
from tests.faults.system import (
    ON_THE_MONOLITH,
    ON_THE_SERVICES,
    OPERATOR,
    Browser,
    Child,
    Estate,
    System,
    answers,
    python,
    wait_for,
)
from tests.servers import with_database

pytestmark = pytest.mark.usefixtures("on")


class Database:
    """The test's database as the web process reaches it: through a proxy, as a role of its own."""

    def __init__(self) -> None:
        server = urlsplit(os.environ["TEST_POSTGRES_URL"])
        self.name = connection.settings_dict["NAME"]
        self.role = f"web_of_{self.name}"
        self.proxy = Proxy((str(server.hostname), int(server.port or 5432)))
        self._admin = os.environ["TEST_POSTGRES_URL"]
        self._do("DROP ROLE IF EXISTS {role}")
        self._do("CREATE ROLE {role} LOGIN PASSWORD 'for tests' IN ROLE {owner}", owner=str(server.username))

    @property
    def url(self) -> str:
        return with_database(f"postgres://{self.role}:for%20tests@127.0.0.1:{self.proxy.port}", self.name)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        self.proxy.refuse()
        yield

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        self.proxy.hang()
        yield

    @contextlib.contextmanager
    def without_connections(self) -> Iterator[None]:
        """The server has none left for this role, which is one error with having none left at all."""
        self._do("ALTER ROLE {role} CONNECTION LIMIT 0")
        self.proxy.cut()
        try:
            yield
        finally:
            self._do("ALTER ROLE {role} CONNECTION LIMIT -1")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else holds the plan's row, and does not let go."""
        with psycopg.connect(with_database(self._admin, self.name)) as other:
            other.execute("SELECT 1 FROM migrations_app_plan FOR UPDATE")
            yield
            other.rollback()

    def at_commit(self, what: At) -> Callable[[], contextlib.AbstractContextManager[None]]:
        @contextlib.contextmanager
        def befalls() -> Iterator[None]:
            self.proxy.at_commit(what)
            met = self.proxy.met
            yield
            assert self.proxy.met == met + 1, "no commit has met it"

        return befalls

    def close(self) -> None:
        self.proxy.close()
        self._do("DROP ROLE {role}")

    def _do(self, statement: str, **names: str) -> None:
        words = {name: sql.Identifier(value) for name, value in (names | {"role": self.role}).items()}
        with psycopg.connect(self._admin, autocommit=True) as admin:
            admin.execute(sql.SQL(statement).format(**words))


@pytest.fixture(scope="module")
def database(django_db_setup) -> Iterator[Database]:
    made = Database()
    yield made
    made.close()


def test_the_shell_claims_nothing_of_a_rollback_whose_answer_was_lost_and_the_same_again_is_no_change(
    on: System, database: Database
):
    with database.at_commit(At.CUT_AFTER)():
        done = on.manage("week", "rollback", "1", DATABASE_URL=database.url)
    database.proxy.well()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("CommandError: The database does not answer any more: "), done.stderr
    assert done.stderr.endswith(f". {NOT_KNOWN}\n"), done.stderr
    assert set(Flag.objects.filter(week__number=1).values_list("weight", flat=True)) == {0}
    assert not roll_back_week(number=1, actor=OPERATOR).changed
    assert reconcile_all()[0].error == ""
    hold(on)


@pytest.fixture(scope="module")
def web(database: Database, estate: Estate) -> Iterator[str]:
    """A web process of its own, which knows this database alone."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    child = Child(
        python("uvicorn", "controlplane.asgi:application", *options),
        estate.environ(DATABASE_URL=database.url, WORKER_HEAD_START="0.05"),
        estate.folder / "web-by-proxy.log",
    )
    try:
        wait_for(lambda: answers(f"{url}/healthz") or child.process.poll() is not None, "the web process answers", 30)
        assert child.process.poll() is None, child.said()
        yield url
    finally:
        child.close()


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on."""
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    return system


@pytest.fixture
def by_proxy(on: System, web: str, database: Database) -> Iterator[Browser]:
    user = User.objects.create_user("release-manager", password=PASSWORD)
    user.groups.add(Group.objects.get(name=Role.RELEASE_MANAGER.value))
    browser = Browser(web)
    browser.sign_in("release-manager")
    yield browser
    browser.close()
    database.proxy.well()


# Name -> what befalls the database, and whether the change is stored all the same.
FAULTS: dict[str, tuple[Callable[[Database], contextlib.AbstractContextManager[None]], bool]] = {
    "stopped": (Database.stopped, False),
    "hung": (Database.hung, False),
    "out of connections": (Database.without_connections, False),
    "a row locked": (Database.locked, False),
    "gone before the commit": (lambda database: database.at_commit(At.CUT_BEFORE)(), False),
    "gone after the commit": (lambda database: database.at_commit(At.CUT_AFTER)(), True),
    "hung at the commit": (lambda database: database.at_commit(At.HANG)(), False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_rollback_that_meets_it_is_stored_or_not_acknowledged_and_the_same_again_is_one_change(
    on: System, by_proxy: Browser, database: Database, web: str, name: str
):
    befalls, stored = FAULTS[name]
    key, generation = str(uuid4()), Plan.objects.get().generation
    with load_on(on.envoy.port, pause=0.1) as load:
        with befalls(database):
            answer = by_proxy.post("/weeks/1/rollback/", request_key=key)
        assert answer.status_code in {500, 503}, answer.text
        events = AuditEvent.objects.filter(request_key=key)
        weights = set(Flag.objects.filter(week__number=1).values_list("weight", flat=True))
        assert (events.count(), weights) == ((1, {0}) if stored else (0, {100}))
        assert Plan.objects.get().generation == generation + stored
        assert on.served_by() == ON_THE_SERVICES, "nobody has said that it is applied"
        database.proxy.well()
        wait_for(lambda: answers(f"{web}/healthz"), "the web process has the database back")
        for _ in range(2):
            assert by_proxy.post("/weeks/1/rollback/", request_key=key).status_code == 303
        assert events.count() == 1
    assert on.served_by() == ON_THE_MONOLITH
    # Of a server that hangs with a commit in its hands nobody can tell sooner than it may well take.
    within = ANSWER_WITHIN + SAID_WITHIN if name == "hung at the commit" else SAID_WITHIN
    hold(on, clicks=by_proxy.clicks, load=load, within=within)
