"""One estate for the run, one fresh gateway and one freshly loaded plan for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User

from controlplane.embedded.children import free_port
from migrations_app.models import Gateway
from migrations_app.reconcile.adapters import adapter_for, forget_adapters
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from tests.factories import PASSWORD, make_healthy, tick_all
from tests.faults.forks import Forks
from tests.faults.system import OPERATOR, Browser, Child, Estate, System, answers, python, running_sides, wait_for

# A promise that does not hold is told with what was found instead.
pytest.register_assert_rewrite("tests.faults.promises")


@pytest.fixture(scope="session")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    folder = tmp_path_factory.mktemp("faults")
    with running_sides() as sides:
        made = Estate.make(folder, sides)
        yield made
        made.envoy.close()


@pytest.fixture
def system(transactional_db, estate: Estate, settings) -> Iterator[System]:
    """Real commits, Envoy, the plan, everything healthy, week 1 signed off, and the gateway runs the plan."""
    estate.restart_gateway()
    settings.GATEWAY_DIR = estate.envoy.folder
    settings.GATEWAY_URL = f"http://127.0.0.1:{estate.envoy.port}"
    settings.GATEWAY_ADMIN_URL = f"http://127.0.0.1:{estate.envoy.admin_port}"
    settings.ENVOY_BINARY = str(estate.envoy.binary)
    settings.HEALTH_STALE_AFTER = 600.0
    forget_adapters()
    made = System(estate)
    try:
        made.load()
        make_healthy()
        tick_all(1, OPERATOR)
        (done,) = reconcile_all()
        assert done.error == ""
        yield made
    finally:
        made.close()
        for gateway in Gateway.objects.all():
            adapter_for(gateway).close()


@pytest.fixture(scope="session")
def web_url(django_db_setup, estate: Estate) -> Iterator[str]:
    """The real web process. Its Redis is a port of the estate's, on which each test puts what it wants."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    log = estate.folder / "web.log"
    child = Child(python("uvicorn", "controlplane.asgi:application", *options), estate.environ(), log)
    try:
        wait_for(lambda: answers(f"{url}/healthz") or child.process.poll() is not None, "the web process answers", 30)
        assert child.process.poll() is None, child.said()
        yield url
    finally:
        child.close()


@pytest.fixture
def manager(system: System, web_url: str) -> Iterator[Browser]:
    """A release manager, signed in at the web process."""
    user = User.objects.create_user("release-manager", password=PASSWORD)
    user.groups.add(Group.objects.get(name=Role.RELEASE_MANAGER.value))
    browser = Browser(web_url)
    browser.sign_in("release-manager")
    yield browser
    browser.close()


@pytest.fixture
def forks(system: System) -> Iterator[Forks]:
    """Passes and clicks in processes that may die. No worker is waited for: there is none."""
    made = Forks(system, WORKER_HEAD_START="0.01")
    yield made
    made.close()


@pytest.fixture
def redis_folder(tmp_path: Path) -> Path:
    return tmp_path / "redis"
