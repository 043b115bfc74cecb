"""Imports go down only. The layers stand in order; a module imports from its own layer or from one below."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APP = ROOT / "migrations_app"

# From the top. What stands in one line may import each other only where the package is the same.
LAYERS = [
    ["web", "management", "tasks"],
    ["actions"],
    ["observe"],
    ["reconcile"],
    ["planfile"],
    ["audit"],
    ["actor", "gates"],
    ["models", "roles"],
    ["choices", "errors", "gateways", "durations", "live"],
]
LEVEL = {name: level for level, names in enumerate(reversed(LAYERS)) for name in names}
OUTSIDE = {"apps", "migrations", "templatetags", "__init__"}


def imports(path: Path) -> list[str]:
    """Dotted names of what a module imports when it runs; imports for type checkers alone are left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = []
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.append(".".join([*base, *([node.module] if node.module else [])]))
    return found


def part(dotted: str) -> str | None:
    pieces = dotted.split(".")
    return pieces[1] if pieces[0] == "migrations_app" and len(pieces) > 1 else None


def modules() -> list[Path]:
    return [
        path for path in sorted(APP.rglob("*.py")) if path.relative_to(APP).parts[0].removesuffix(".py") not in OUTSIDE
    ]


def test_every_part_has_its_layer():
    assert {path.relative_to(APP).parts[0].removesuffix(".py") for path in modules()} == set(LEVEL)


def test_imports_go_down_only():
    wrong = []
    for path in modules():
        own = path.relative_to(APP).parts[0].removesuffix(".py")
        for dotted in imports(path):
            other = part(dotted)
            if other in LEVEL and other != own and LEVEL[other] >= LEVEL[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {dotted}")
    assert wrong == []


def test_the_gateways_know_nothing_of_django():
    wrong = [
        f"{path.relative_to(ROOT)} imports {dotted}"
        for path in sorted((APP / "gateways").rglob("*.py"))
        for dotted in imports(path)
        if dotted.split(".")[0] == "django" or part(dotted) not in {None, "gateways"}
    ]
    assert wrong == []


PURE = [
    "durations.py",
    "gates/seen.py",
    "gates/parameters.py",
    "gates/verdict.py",
    "gates/steps.py",
    "gates/percentile.py",
    "gates/triggers.py",
]


@pytest.mark.parametrize("name", PURE)
def test_what_a_verdict_follows_from_knows_neither_django_nor_a_table(name):
    """The words (choices) and the roles' names are all that it may take from elsewhere."""
    beyond = {"models", "audit", "actor", "observe", "actions"}
    found = imports(APP / name)
    assert [dotted for dotted in found if dotted.split(".")[0] == "django" or part(dotted) in beyond] == []


def test_check_results_are_made_where_checks_are_run_and_nowhere_else():
    """Others read them. `actions.checks` answers with one of an instant check, which is not stored."""
    makers = {
        str(path.relative_to(APP))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "CheckResult"
    }
    assert makers == {"observe/checks.py", "actions/checks.py"}
    writers = {
        f"{path.relative_to(APP)}: {node.attr}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value).startswith("CheckResult.objects")
        and node.attr in {"create", "bulk_create", "get_or_create", "update_or_create", "update", "bulk_update"}
    }
    assert writers == {"observe/checks.py: bulk_create"}


def test_no_private_name_is_imported_from_another_module():
    wrong = [
        f"{path.relative_to(ROOT)}: {alias.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert wrong == []
