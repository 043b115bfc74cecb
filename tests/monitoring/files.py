"""The files of docs/monitoring, and the expressions that they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from controlplane.environment import REPOSITORY

FOLDER = REPOSITORY / "docs" / "monitoring"
ALERTS, DASHBOARD, SCRAPE, README = (
    FOLDER / name for name in ("alerts.yml", "grafana-dashboard.json", "prometheus.yml", "README.md")
)
GRAFANA_RATE_INTERVAL = "$__rate_interval"  # Grafana puts a length of time in its place


@dataclass(frozen=True)
class Expression:
    """`where` names the rule or the panel."""

    where: str
    text: str

    def selectors(self) -> list[Any]:
        """What it asks for, each with a name and matchers. Raises ValueError for what is no PromQL."""
        found: list[Any] = []

        def visit(node: object) -> None:
            if isinstance(node, promql_parser.VectorSelector):
                found.append(node)

        promql_parser.walk(promql_parser.parse(self.text), pre_visit=visit)
        return found

    def __str__(self) -> str:
        return self.where


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def of_rules() -> list[Expression]:
    return [Expression(rule["alert"], rule["expr"]) for rule in rules()]


def of_dashboard() -> list[Expression]:
    shown = dashboard()
    asked = [(panel["title"], target["expr"]) for panel in shown["panels"] for target in panel["targets"]]
    asked += [(f"annotation {one['name']}", one["expr"]) for one in shown["annotations"]["list"]]
    return [Expression(title, text.replace(GRAFANA_RATE_INTERVAL, "1m")) for title, text in asked]


EXPRESSIONS = [*of_rules(), *of_dashboard()]
