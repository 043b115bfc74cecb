"""A real Chromium in front of a real dashboard process, on the test database and the in-memory gateway."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from controlplane.embedded.children import free_port, wait_until
from migrations_app.actor import Actor
from migrations_app.roles import Role
from tests.chromium import find
from tests.factories import PASSWORD, load_tracseq, make_healthy, make_people

ROOT = Path(__file__).parent.parent.parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module, no longer: while it lives no other test of this process can run an event loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=ARGUMENTS)
        # Playwright's loop makes Django believe that it is called from asynchronous code.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        yield browser
        browser.close()
    os.environ.pop("DJANGO_ALLOW_ASYNC_UNSAFE", None)


@dataclass
class Dashboard:
    """A dashboard process. `faults` gathers, from every page, what no page may do."""

    url: str
    browser: Browser
    faults: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def page(self, account: str = "release-manager", *, at: str = "/", **options) -> Page:
        """A new browser profile, signed in, at an address."""
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = self.browser.new_context(base_url=self.url, **options)
        context.set_default_timeout(10_000)
        self.contexts.append(context)
        context.on("request", self._no_request_elsewhere)
        page = context.new_page()
        page.on("console", self._no_complaint)
        page.on("pageerror", lambda error: self.faults.append(f"script error: {error}"))
        page.goto(f"/sign-in/?next={quote(at)}")
        page.get_by_label("Name").fill(account)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"**{at}")
        return page

    def _no_request_elsewhere(self, request) -> None:
        if not request.url.startswith(self.url) and not request.url.startswith("data:"):
            self.faults.append(f"asked {request.url}")

    def _no_complaint(self, message) -> None:
        if "Content Security Policy" in message.text or "oobErrorNoTarget" in message.text:
            self.faults.append(message.text)


@pytest.fixture
def dashboard(transactional_db, chromium, settings, tmp_path) -> Iterator[Dashboard]:
    """TracSeq with its lines signed off by hand, healthy, an account for each role, and a process that serves them."""
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    make_people()
    port = free_port()
    database = settings.DATABASES["default"]
    environment = os.environ | {
        "DATABASE_URL": f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/{_name_of_test_database()}",
        "ALLOWED_HOSTS": "127.0.0.1",
        "WORKER_HEAD_START": "0.02",
        "HEALTH_STALE_AFTER": "3600",
        "REDIS_URL": "",
    }
    log = (tmp_path / "dashboard.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.browser.dashboard", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    found = Dashboard(f"http://127.0.0.1:{port}", chromium)
    try:
        assert wait_until(lambda: _answers(found.url), seconds=30, alive=lambda: process.poll() is None), (
            tmp_path / "dashboard.log"
        ).read_text()
        yield found
        assert found.faults == []
    finally:
        for context in found.contexts:
            context.close()
        process.terminate()
        process.wait(10)
        log.close()


def people_by_role() -> dict[Role, Actor]:
    """The accounts that the dashboard has, by their role."""
    return {role: Actor.signed_in(User.objects.get(username=role.value.replace(" ", "-"))) for role in Role}


def _name_of_test_database() -> str:
    from django.db import connection

    return connection.settings_dict["NAME"]


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/healthz", timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False
