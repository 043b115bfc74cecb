"""What was applied, with the pins that have come since. Pure."""

from __future__ import annotations

from collections.abc import Collection

from migrations_app.gateways.base import with_pins
from migrations_app.gateways.envoy.files import AppliedState
from migrations_app.gateways.envoy.render import render


def obeying(state: AppliedState, pinned: Collection[str]) -> AppliedState:
    """What has to run in the place of what was applied. The same object when no pin has come since.

    A rollback script leaves exactly these files.
    """
    if not pinned or state.table is None:
        return state
    table = with_pins(state.table, pinned)
    return state if table is state.table else AppliedState(state.generation, render(table).files, table)
