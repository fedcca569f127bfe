"""Measured figures: each is the median of its repetitions, compared with its aim if it has one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of one part."""

    part: str
    """a to m."""
    name: str
    unit: str
    values: tuple[float, ...]
    """One for each repetition, in order."""
    aim: float | None = None
    better: Literal["more", "less"] = "more"
    limit: bool = False
    """True for a figure of the machine rather than of the system."""
    note: str = ""

    @property
    def median(self) -> float:
        """What the figure is."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median is as good as the aim; None without one."""
        if self.aim is None:
            return None
        return self.median >= self.aim if self.better == "more" else self.median <= self.aim


@dataclass(slots=True)
class Figures:
    """All figures of one run, in the order in which they were measured."""

    tell: Callable[[Figure], None]
    """Told of each as soon as it is known."""
    all: list[Figure] = field(default_factory=list)

    def add(
        self,
        part: str,
        name: str,
        unit: str,
        values: Sequence[float],
        *,
        aim: float | None = None,
        better: Literal["more", "less"] = "more",
        limit: bool = False,
        note: str = "",
    ) -> Figure:
        """Record a figure."""
        figure = Figure(part, name, unit, tuple(values), aim, better, limit, note)
        self.all.append(figure)
        self.tell(figure)
        return figure

    def find(self, name: str) -> Figure:
        """Return the figure of this name. Raises StopIteration for one that was not measured."""
        return next(figure for figure in self.all if figure.name == name)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered)) - 1))]
