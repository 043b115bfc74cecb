"""How seldom a process of ours looks for garbage that points at itself: never while a page or a click waits, if it can.

Nearly all of what they leave behind goes by its counts of references (https://docs.python.org/3.11/library/gc.html).
"""

from __future__ import annotations

import gc

ALLOCATED = (
    20_000  # objects more than were let go of, before the youngest are looked through; a page makes a few thousand
)
YOUNGER = 20  # looks at the younger ones before the next older ones are looked through too


def settle() -> None:
    """Once everything is loaded. It stays: to look through it again holds up a page or a click for tens of ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATED, YOUNGER, YOUNGER)
