"""The decision, purely: what is desired and what was observed go in, what to do comes out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from migrations_app.gateways.base import Observed, RoutingTable


class Step(StrEnum):
    NOTHING = "nothing"  # the gateway runs exactly what is wanted
    APPLY = "apply"  # it runs an older generation, or nothing of ours
    REPAIR = "repair"  # it has this generation, but somebody changed what it runs or will start from
    STAND_BACK = "stand back"  # it has a newer generation than this pass knows


@dataclass(frozen=True, slots=True)
class Decision:
    step: Step
    because: tuple[str, ...] = ()  # a sentence each


def decide(table: RoutingTable, observed: Observed, pinned: Collection[str] = ()) -> Decision:
    """What one pass of the loop has to do about one gateway.

    A gateway that does not answer still gets its files: it will start from them. The flags that are `pinned` are at 0
    in the table already; that one still runs otherwise is nobody's edit.
    """
    if observed.generation is None and observed.drift:
        return Decision(Step.REPAIR, observed.drift)
    if observed.generation is None:
        return Decision(Step.APPLY, (observed.error or "The gateway runs no routing table of ours.",))
    if observed.generation > table.generation:
        return Decision(
            Step.STAND_BACK,
            (f"The gateway has generation {observed.generation}, this pass knows only {table.generation}.",),
        )
    if observed.generation < table.generation:
        return Decision(Step.APPLY, (f"Generation {observed.generation} runs, {table.generation} is wanted.",))
    wanted = table.weights()
    differing = {
        flag: f"{flag} runs at {observed.weights.get(flag)} %, wanted are {weight} %."
        for flag, weight in sorted(wanted.items())
        if observed.weights.get(flag) != weight
    }
    if drift := (*observed.drift, *(said for flag, said in differing.items() if flag not in pinned)):
        return Decision(Step.REPAIR, drift)
    because = tuple(f"{said} It is pinned." for said in differing.values())
    return Decision(Step.APPLY if because else Step.NOTHING, because)
