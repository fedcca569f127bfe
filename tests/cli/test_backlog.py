"""Lines that a terminal cannot show in time are left out and counted; the others keep their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runstream.cli.screen import FRAME_CHARS, FRAME_LINES, HELD_LINES, PAUSE_SECONDS, QueuedLines, TaskLines

_STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 500), st.floats(0, 2)), max_size=20)


@given(_STEPS)
def test_every_line_is_drawn_in_order_or_counted_as_left_out(steps: list[tuple[str, int, float]]) -> None:
    backlog, now = QueuedLines(), 0.0
    written, drawn = {"a": 0, "b": 0}, {"a": 0, "b": 0}

    def see(shown: list[TaskLines]) -> None:
        for each in shown:
            drawn[each.task] += each.omitted
            begin, drawn[each.task] = drawn[each.task], drawn[each.task] + len(each.lines)
            assert each.lines == [str(number) for number in range(begin, drawn[each.task])]

    for task, count, seconds in steps:
        backlog.add(task, [str(written[task] + number) for number in range(count)])
        written[task] += count
        now += seconds
        frame = backlog.take(now)
        assert sum(len(shown.lines) for shown in frame) <= FRAME_LINES
        see(frame)
    see(backlog.rest())
    assert drawn == written


def test_a_frame_is_bounded_in_characters() -> None:
    backlog = QueuedLines()
    backlog.add("a", ["x" * (FRAME_CHARS // 2 + 1)] * 5)
    assert [len(shown.lines) for shown in backlog.take(0)] == [2]


def test_a_task_that_writes_too_much_is_shown_once_a_second_and_holds_no_other_up() -> None:
    backlog, shown = QueuedLines(), []
    for frame in range(25):
        backlog.add("flood", ["line"] * 10_000)
        backlog.add("quiet", [str(frame)])
        shown.append([(each.task, each.omitted, len(each.lines)) for each in backlog.take(frame * PAUSE_SECONDS / 8)])
    assert [frame for frame, tasks in enumerate(shown) if any(name == "flood" for name, *_ in tasks)] == [0, 8, 16, 24]
    quiet = [(omitted, count) for tasks in shown for name, omitted, count in tasks if name == "quiet"]
    assert sum(count for _, count in quiet) >= 24
    assert all(omitted == 0 and count <= 2 for omitted, count in quiet)  # at most one frame late
    floods = [omitted for tasks in shown for name, omitted, _ in tasks if name == "flood"]
    assert floods[1:] == [8 * 10_000 - HELD_LINES] * 3
