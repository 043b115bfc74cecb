"""A real Prometheus reads docs/monitoring, scrapes the real web process and answers every expression.

Only collected where `prometheus` and `promtool` are installed (conftest.py); test_files.py reads the same in any case.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from controlplane.embedded.children import free_port
from tests.faults.system import Child, wait_for
from tests.monitoring.conftest import Start
from tests.monitoring.files import ALERTS, EXPRESSIONS, SCRAPE, of_dashboard, rules

TOKEN = "a token for tests, long enough"


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules_and_the_configuration():
    assert f"{len(rules())} rules found" in promtool("check", "rules", ALERTS)
    promtool("check", "config", "--syntax-only", SCRAPE)


def test_promtool_sees_the_alerts_fire_when_they_should():
    cases = Path(__file__).parent / "alerts_test.yml"
    assert "SUCCESS" in promtool("test", "rules", cases)
    told = yaml.safe_load(cases.read_text())["tests"]
    fired = {
        name
        for case in told
        for test in case["promql_expr_test"]
        for sample in test.get("exp_samples", [])
        for name in [sample["labels"].split('"')[1]]
    }
    assert fired == {rule["alert"] for rule in rules()}


class Prometheus:
    """One that runs on the example of docs/monitoring, with our address in place of the example's."""

    def __init__(self, folder: Path, target: str) -> None:
        config = yaml.safe_load(SCRAPE.read_text())
        (job,) = config["scrape_configs"]
        job |= {"scheme": "http", "static_configs": [{"targets": [target]}]}
        # Quicker than by default, and so are the rules.
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
        (folder / ALERTS.name).write_text(ALERTS.read_text())
        (folder / "switchyard-token").write_text(TOKEN)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        promtool("check", "config", folder / "prometheus.yml")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        self.child = Child(command, {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}, folder / "log")

    def ask(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10, trust_env=False).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def up(self) -> bool:
        try:
            return [one["value"][1] for one in self.query('up{job="switchyard"}')] == ["1"]
        except (httpx.TransportError, json.JSONDecodeError):
            return False


@pytest.fixture
def prometheus(estate, start_web: Start, tmp_path: Path) -> Iterator[Prometheus]:
    """It needs the token: the address that it asks from is in no network that may."""
    url = start_web(METRICS_TOKEN=TOKEN, METRICS_NETWORKS="192.0.2.0/24")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    found = Prometheus(folder, urlsplit(url).netloc)
    try:
        wait_for(lambda: found.up() or found.child.process.poll() is not None, "Prometheus has scraped us", 30)
        assert found.child.process.poll() is None, found.child.said()
        yield found
    finally:
        found.child.close()


def test_prometheus_scrapes_us_and_answers_every_expression(prometheus: Prometheus):
    for expression in EXPRESSIONS:
        prometheus.query(expression.text)
    # A rate takes two scrapes, and the panels show something then.
    wait_for(lambda: len(prometheus.query("count_over_time(switchyard_polls_total[1m]) > 2")) == 1, "three scrapes", 20)
    empty = [one.where for one in of_dashboard() if not prometheus.query(one.text)]
    assert empty == [one.where for one in of_dashboard() if one.where.startswith("annotation")]
    assert [one["value"][1] for one in prometheus.query("scrape_samples_scraped > 200")] != []
    groups = prometheus.ask("rules")["groups"]
    assert [rule["name"] for group in groups for rule in group["rules"]] == [rule["alert"] for rule in rules()]
    wait_for(lambda: not unknown(prometheus), "every rule was evaluated", 20)
    bad = {rule["name"]: rule.get("lastError") for rule in every_rule(prometheus) if rule["health"] != "ok"}
    assert bad == {}


def every_rule(prometheus: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]


def unknown(prometheus: Prometheus) -> list[str]:
    return [rule["name"] for rule in every_rule(prometheus) if rule["health"] == "unknown"]
