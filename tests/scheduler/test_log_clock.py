"""The time of decisions is that of the log's server, whatever the wall clock of a scheduler says."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from runstream.leases import LeaseChange
from runstream.scheduler.log_clock import FORGET_SECONDS, LogClock
from tests.scheduler.test_trust import hearing, renewal

SERVER = 1_800_000_000.0


@dataclass
class Times:
    monotonic: float = 100.0
    wall: float = SERVER

    def clock(self) -> LogClock:
        return LogClock(lambda: self.monotonic, lambda: self.wall)


@given(
    wrong=st.floats(-1e8, 1e8),
    rounds=st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 2.0)), min_size=1, max_size=30),
)
def test_it_is_late_by_at_most_the_delay_of_the_quickest_reading(
    wrong: float, rounds: list[tuple[float, float]]
) -> None:
    times = Times(wall=SERVER + wrong)
    clock, elapsed, delays = times.clock(), 0.0, list[float]()
    for pause, delay in rounds:
        elapsed += pause
        times.monotonic += pause
        times.wall -= pause  # whatever the wall clock does meanwhile
        delays.append(delay)
        clock.read(SERVER + elapsed - delay)
        late = SERVER + elapsed - clock().timestamp()
        most = min(delays) if elapsed <= FORGET_SECONDS else max(delays)
        assert -1e-3 <= late <= most + 1e-3


def test_before_the_first_reading_the_wall_clock_counts() -> None:
    times = Times()
    assert times.clock()().timestamp() == SERVER


def test_a_server_whose_clock_is_set_back_is_followed_after_a_while() -> None:
    times = Times()
    clock = times.clock()
    clock.read(SERVER)
    for _ in range(int(FORGET_SECONDS) + 2):
        times.monotonic += 1.0
        clock.read(SERVER - 3600.0 + times.monotonic - 100.0)
    assert abs(clock().timestamp() - (SERVER - 3600.0 + times.monotonic - 100.0)) < 1.0


async def test_renewals_that_arrive_are_readings() -> None:
    readings = list[float]()
    async with hearing(60, readings.append) as it:
        it.leases.changes.put_nowait(LeaseChange("ex1", "held", renewal(), nanoseconds=1_800_000_000_500_000_000))
        await it.offered.get()
    assert readings == [SERVER + 0.5]
