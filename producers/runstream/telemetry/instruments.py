"""How something is measured cheaply: counters and gauges are plain numbers that are read when somebody asks.

The SDK's own counter costs 5 microseconds a call; a dict entry costs a tenth of that, and the SDK reads it
through an observable instrument. A histogram is recorded by the SDK, so it is for what happens once a batch.
Label values are positional, in the order declared, always text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.metrics import Histogram as SdkHistogram

Labels = tuple[str, ...]


class _Instrument:
    """What every instrument declares, and the list of all that were."""

    declared: list[_Instrument] = []  # noqa: RUF012 - the one list of the process

    def __init__(self, name: str, description: str, labels: Labels = (), unit: str = "1") -> None:
        self.name = name
        self.description = description
        self.labels = labels
        self.unit = unit
        self.declared.append(self)

    def register(self, meter: Meter) -> None:
        """Let this meter report it."""
        raise NotImplementedError

    def attributes(self, values: Labels) -> dict[str, str]:
        """The labels with their values. Raises ValueError when there are too few or too many."""
        return dict(zip(self.labels, values, strict=True))


class _Numbers(_Instrument):
    """Plain numbers by label values."""

    def __init__(self, name: str, description: str, labels: Labels = (), unit: str = "1") -> None:
        super().__init__(name, description, labels, unit)
        self._values: dict[Labels, float] = {}

    def add(self, amount: float, *values: str) -> None:
        """Add to the number of these label values."""
        self._values[values] = self._values.get(values, 0) + amount

    def value(self, *values: str) -> float:
        """The number of these label values; 0 when there is none yet."""
        return self._values.get(values, 0)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        # The copy is made in one step: the reader may be another thread.
        return [Observation(number, self.attributes(values)) for values, number in self._values.copy().items()]


class Counter(_Numbers):
    """A number that only grows."""

    def register(self, meter: Meter) -> None:
        """Let this meter read it."""
        meter.create_observable_counter(self.name, [self._observe], self.unit, self.description)


class Gauge(_Numbers):
    """A number as it is now."""

    def set(self, number: float, *values: str) -> None:
        """Replace the number of these label values."""
        self._values[values] = number

    def forget(self, *values: str) -> None:
        """Say nothing about these label values any more: a partition went to another process."""
        self._values.pop(values, None)

    def register(self, meter: Meter) -> None:
        """Let this meter read it."""
        meter.create_observable_gauge(self.name, [self._observe], self.unit, self.description)


class Histogram(_Instrument):
    """How durations are distributed. Each `record` costs about 6 microseconds once telemetry is set up."""

    def __init__(self, name: str, description: str, labels: Labels, buckets: Sequence[float]) -> None:
        super().__init__(name, description, labels, "s")
        self._buckets = tuple(buckets)
        self._attributes: dict[Labels, dict[str, str]] = {}
        self._sdk: list[SdkHistogram] = []

    def record(self, seconds: float, *values: str) -> None:
        """One duration."""
        attributes = self._attributes.get(values)
        if attributes is None:
            attributes = self._attributes[values] = self.attributes(values)
        for histogram in self._sdk:
            histogram.record(seconds, attributes)

    def register(self, meter: Meter) -> None:
        """Record with this meter from now on, and no longer with an earlier one."""
        self._sdk[:] = [
            meter.create_histogram(
                self.name, self.unit, self.description, explicit_bucket_boundaries_advisory=self._buckets
            )
        ]


def register_all(meter: Meter) -> None:
    """Let this meter report every instrument declared so far."""
    for instrument in _Instrument.declared:
        instrument.register(meter)
