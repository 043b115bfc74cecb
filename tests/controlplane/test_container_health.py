"""The health checks of our containers, each against what it checks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from controlplane import container_health
from controlplane.embedded.children import free_port


class OnlyItsName(BaseHTTPRequestHandler):
    """Answers as Django does: 200 to a name that it was given, 400 to others."""

    def do_GET(self) -> None:
        self.send_response(200 if self.headers["Host"] == "dashboard.example.org" else 400)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), OnlyItsName)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/healthz"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("hosts", ["dashboard.example.org", ".dashboard.example.org, other.example.org"])
def test_web_is_asked_under_its_own_name(url: str, monkeypatch: pytest.MonkeyPatch, hosts: str):
    monkeypatch.setenv("ALLOWED_HOSTS", hosts)
    assert container_health.web(url)


def test_web_that_refuses_or_is_away_is_unhealthy(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALLOWED_HOSTS", "another.example.org")
    assert not container_health.web(url)
    assert not container_health.web(f"http://127.0.0.1:{free_port()}/healthz")


def test_beat_is_healthy_while_it_writes(tmp_path: Path):
    assert not container_health.beat(tmp_path / "missing")
    assert not container_health.beat(tmp_path)
    (tmp_path / "schedule").write_text("")
    assert container_health.beat(tmp_path)
    os.utime(tmp_path / "schedule", (0, 0))
    assert not container_health.beat(tmp_path)


def test_an_unknown_name_is_no_success():
    assert container_health.main(["cron"]) == 2
    assert container_health.main([]) == 2
