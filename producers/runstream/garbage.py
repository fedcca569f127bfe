"""How seldom garbage is looked for: a service makes many objects that live for a moment, and hardly any cycles.

With Python's own thresholds a busy scheduler spends a fifth of its time looking through everything that lives.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
"""How many more objects than before are looked through for cycles; 700 is Python's own."""


def load_without_looking() -> None:
    """Look seldom from now on: what is made at the start of a process stays. A tenth of the start goes into looking."""
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)


def collect_seldom() -> None:
    """Never look at what has been loaded so far, and seldom at what comes. Called once, before a process serves."""
    gc.collect()
    gc.freeze()
    load_without_looking()
