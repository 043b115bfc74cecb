"""The main job from nothing: `make demo`'s supervisor, the real estate and gateway, and a person in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from bench.processes import port_offset
from controlplane.environment import REPOSITORY

MOVED = {"/api/notifications": "notification", "/api/storage/locations": "storage", "/api/rag/health": "rag"}
STAYED = ["/api/templates", "/api/samples", "/api/sequencing"]
START_SECONDS = 90
STOP_SECONDS = 5
PLAN = "plans/tracseq-phase2.yaml"
TIME_SCALE = "10800"  # three times the demo's own: a soak of 48 hours takes 16 seconds
SOAK_SECONDS = 180  # and then a day's traffic on either side is compared, in 8


@dataclass(frozen=True)
class Demo:
    """A running demo: its base addresses, the password of its accounts, its state folder and its process."""

    dashboard: str
    gateway: str
    password: str
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def side(self, path: str) -> str:
        """The process that serves a path through the gateway, by its own word."""
        return httpx.get(f"{self.gateway}{path}", trust_env=False).headers["x-served-by"]

    def gate(self, week: int) -> dict[str, Any]:
        """The verdict on starting a week, as a second terminal reads it."""
        return json.loads(self.manage("week", "show", str(week), "--json").stdout)["verdict"]

    def line(self, week: int, key: str) -> str:
        """The id of a prerequisite."""
        return str(next(line["prerequisite"] for line in self.gate(week)["lines"] if line["key"] == key))

    def wait_for_gate(self, week: int) -> None:
        """With people at work on what has moved: a day is 8 seconds here, and light traffic alone is too little."""
        deadline = time.monotonic() + SOAK_SECONDS
        while not (gate := self.gate(week))["open"]:
            assert time.monotonic() < deadline, [line["value"] for line in gate["lines"] if not line["held"]]
            for path in [*MOVED] * 5:
                self.side(path)
            time.sleep(1)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command in a second terminal."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[Demo]:
    environment = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG"}}
    environment |= {"PORT_OFFSET": str(port_offset()), "STATE_DIR": str(tmp_path_factory.mktemp("demo") / "state")}
    log = Path(environment["STATE_DIR"]).parent / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "controlplane.embedded", "demo"],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (ready := re.search(r"^ready: dashboard (\S+), gateway (\S+)$", log.read_text(), re.MULTILINE)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        password = re.search(r"release-manager\s+password\s+(\S+)", log.read_text())
        yield Demo(ready[1], ready[2], password[1], environment, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=STOP_SECONDS * 2)


@pytest.fixture
def page(demo, chromium) -> Iterator[Page]:
    """A browser page; at the end nothing has left the origin and nothing was refused by the content security policy."""
    outside: list[str] = []
    complaints: list[str] = []
    context = chromium.new_context(base_url=demo.dashboard, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15_000)
    page = context.new_page()
    page.on("request", lambda request: request.url.startswith(demo.dashboard) or outside.append(request.url))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert outside == []
    # The browser notes every refusal, 409 by the gate and 403 by the role, as an error of its own.
    assert [line for line in complaints if not re.search("status of (409|403)", line)] == []


def sign_in(page: Page, demo: Demo, name: str) -> None:
    page.goto("/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(demo.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Enable safe services")).to_be_visible()


def test_a_person_moves_week_1_and_brings_it_back(demo, page):
    sign_in(page, demo, "release-manager")
    page.get_by_role("link", name="Enable safe services").first.click()
    expect(page).to_have_url(f"{demo.dashboard}/weeks/1/")

    page.locator("#enable-week-1").click()
    expect(page.locator("#outcome")).to_contain_text("not signed off")
    for _ in range(20):  # what week 2 will be compared with; nobody is as fast as this test
        assert {demo.side(path) for path in MOVED} == {"monolith"}

    page.get_by_label(re.compile("^Note")).first.fill("all three answer their health paths")
    page.get_by_role("button", name=re.compile("^Sign off")).first.click()
    expect(page.get_by_text("all three answer their health paths")).to_be_visible()

    page.locator("#enable-week-1").click()
    expect(page.locator("#outcome")).to_contain_text(re.compile(r"Week 1 is on.\s+Applied on the gateway in \d+ ms"))
    assert {path: demo.side(path) for path in MOVED} == {path: f"{key}-service" for path, key in MOVED.items()}
    assert {demo.side(path) for path in STAYED} == {"monolith"}
    # The demo's own traffic shows on the screen, without a reload.
    expect(page.locator("#service-notification")).to_contain_text(re.compile(r"[1-9]\d* % new"), timeout=20_000)

    page.get_by_role("button", name="Roll back week 1").click()
    expect(page.locator("#outcome")).to_contain_text(
        re.compile(r"Week 1 is rolled back.\s+Applied on the gateway in \d+ ms")
    )
    assert {demo.side(path) for path in [*MOVED, *STAYED]} == {"monolith"}

    page.goto("/audit/")
    for words in ("Week enabled", "Week rolled back", "Enable refused", "Signed off"):
        expect(page.locator("ol.events b", has_text=words).first).to_be_visible()


def test_the_same_from_a_second_terminal(demo):
    refused = demo.manage("week", "enable", "2")
    assert refused.returncode == 3
    assert "the gate of week 2 is closed" in refused.stderr
    assert demo.manage("plan", "load", PLAN, "--time-scale", TIME_SCALE).returncode == 0
    # Week 2 comes after week 1: that one is begun, and soaks.
    demo.manage("prerequisite", "tick", demo.line(1, "services-looked-at"), "--reason", "seen")
    assert demo.manage("week", "enable", "1", "--reason", "as planned").returncode == 0
    demo.wait_for_gate(2)
    enabled = demo.manage("week", "enable", "2", "--reason", "as planned")
    assert (enabled.returncode, enabled.stderr) == (0, "")
    assert demo.side("/api/templates") == "template-service"
    assert '"USE_TEMPLATE_SERVICE":true' in httpx.get(f"{demo.gateway}/routing-status", trust_env=False).text
    assert demo.manage("week", "rollback", "2").returncode == 0
    assert demo.side("/api/templates") == "monolith"
    assert "the chain is intact. Its head: " in demo.manage("audit", "verify").stdout


def test_support_sees_the_timeline_and_can_change_nothing(demo, page):
    sign_in(page, demo, "support")
    page.goto("/weeks/1/")
    expect(page.get_by_role("heading", name="Enable safe services")).to_be_visible()
    expect(page.locator("#enable-week-1")).to_have_count(0)
    assert page.goto("/audit/").status == 403
