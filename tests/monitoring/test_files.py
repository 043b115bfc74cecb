"""docs/monitoring asks for nothing that /metrics does not tell, in PromQL that parses."""

from __future__ import annotations

import re

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from prometheus_client.core import Metric

from migrations_app.observe.audit_counts import AuditCounts
from migrations_app.observe.metrics import read
from migrations_app.web.metrics import _read_queues
from tests.monitoring.files import ALERTS, EXPRESSIONS, README, SCRAPE, Expression, dashboard, rules

OF_PROMETHEUS = {"up": {"job": {"switchyard"}, "instance": set()}}
SEVERITIES = {"page", "ticket", "notice"}


@pytest.fixture
def families(estate) -> list[Metric]:
    return [*read(AuditCounts()), *_read_queues().families]


@pytest.fixture
def told(families: list[Metric]) -> dict[str, dict[str, set[str]]]:
    """Name -> label -> its values, as a scrape has them."""
    found: dict[str, dict[str, set[str]]] = {}
    for family in families:
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found | OF_PROMETHEUS


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_every_expression_parses_and_asks_for_something(expression: Expression):
    assert expression.selectors()


@pytest.mark.parametrize("wrong", ["rate(switchyard_polls_total)", "sum by (week", "switchyard_gate_open ==", "1 +* 2"])
def test_the_parser_refuses_what_is_no_promql(wrong: str):
    with pytest.raises(ValueError):  # noqa: PT011  # the parser has no error of its own
        Expression("wrong", wrong).selectors()


def test_every_expression_asks_for_what_a_scrape_has(told):
    """Names, labels, and the values that a label is compared with."""
    wrong = []
    for expression in EXPRESSIONS:
        for selector in expression.selectors():
            if selector.name not in told:
                wrong.append(f"{expression}: no metric {selector.name}")
                continue
            for matcher in selector.matchers.matchers:
                values = told[selector.name].get(matcher.name)
                if values is None or matcher.value not in values:
                    wrong.append(f"{expression}: no {selector.name} with {matcher.name} {matcher.value}")
    assert wrong == []


def test_every_label_that_is_grouped_by_is_one_of_the_metrics_asked_for(told):
    for expression in EXPRESSIONS:
        grouped = {
            label.strip()
            for labels in re.findall(r"\b(?:by|on|without) \(([^)]*)\)", expression.text)
            for label in labels.split(",")
            if label.strip()
        }
        known = {label for selector in expression.selectors() for label in told[selector.name]} | {"job"}
        known |= set(re.findall(r'label_replace\(.*?, "(\w+)"', expression.text, re.DOTALL))
        assert grouped <= known, expression


def test_every_rule_says_how_loud_it_is_what_is_wrong_and_what_to_do():
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in SEVERITIES, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        for told_of in rule["annotations"].values():
            assert told_of.endswith("."), rule["alert"]


def test_the_labels_that_a_sentence_names_come_out_of_its_expression():
    for rule in rules():
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        kept = re.match(r"\s*(?:max|min|sum) by \(([^)]*)\)", rule["expr"])
        assert not named or (kept and named <= {label.strip() for label in kept[1].split(",")}), rule["alert"]


def test_every_command_that_a_rule_names_is_there():
    for rule in rules():
        text = " ".join(rule["annotations"]["action"].split())
        for name, verb in re.findall(r"manage\.py (\w+)(?: ([a-z-]+))?", text):
            assert get_commands()[name] == "migrations_app", rule["alert"]
            usage = load_command_class("migrations_app", name).create_parser("manage.py", name).format_help()
            assert not verb or verb in usage, (rule["alert"], name, verb)


def test_the_dashboard_asks_the_data_source_that_is_chosen_and_its_panels_do_not_overlap():
    shown = dashboard()
    assert [one["name"] for one in shown["templating"]["list"]] == ["datasource"]
    panels, taken = shown["panels"], set()
    assert len(panels) >= 8
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources), panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_scrape_asks_our_address_by_the_name_that_the_rules_know():
    (job,) = yaml.safe_load(SCRAPE.read_text())["scrape_configs"]
    assert job["job_name"] == "switchyard"
    assert job["metrics_path"] == "/metrics"
    assert yaml.safe_load(SCRAPE.read_text())["rule_files"] == [ALERTS.name]


def test_the_table_of_the_readme_has_every_metric_with_its_labels(families, told):
    names = {sample.name for family in families for sample in family.samples} | {"switchyard_database_up"}
    rows = re.findall(r"^\| `(switchyard_\w+)` \|([^|]*)\|", README.read_text(), re.MULTILINE)
    written = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert written.keys() == names
    assert written == {name: set(told.get(name, {})) for name in names}


def test_every_rule_is_told_in_the_readme():
    written = dict(re.findall(r"^\| `(Switchyard\w+)` \| (\w+) \|", README.read_text(), re.MULTILINE))
    assert written == {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
