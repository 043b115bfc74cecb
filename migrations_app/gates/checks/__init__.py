"""Automatic checks by the name that a plan file calls them. One module each."""

from migrations_app.gates.verdict import Check

from .flags_on import flags_on

CHECKS: dict[str, Check] = {
    "flags_on": flags_on,
}
