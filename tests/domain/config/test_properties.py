"""Any sequence of commands keeps the rules, and leaves what a small reference has; also for concurrent writers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from runstream.commits import DecodedCommit, Position, StoredCommit
from runstream.config_folding import ConfigFold
from runstream.errors import RunstreamError
from runstream.folding import UnfitCommitError
from runstream.ids import new_id
from tests.domain.config.commands import check, decide
from tests.domain.config.reference import Reference, RefusedError
from tests.domain.world import START

NAMES = st.sampled_from("abc")
ROOTS = st.sampled_from(["user/a", "user/b", "org/a", "org/b"])
INNER = st.lists(st.sampled_from("gh"), max_size=2)
GROUPS = st.builds(lambda root, inner: "/".join((root, *inner)), ROOTS, INNER)
PROJECTS = st.builds(lambda group, name: f"{group}/{name}", GROUPS, st.sampled_from("gp"))
VISIBILITIES = st.sampled_from(["public", "private"])
ROLES = st.sampled_from(["owner", "member"])
PLACES = st.one_of(st.tuples(st.just("projectgroup"), GROUPS), st.tuples(st.just("project"), PROJECTS))
VALUES = st.builds(
    lambda sort, place, name: (sort, *place, name),
    st.sampled_from(["secret", "variable"]),
    PLACES,
    st.sampled_from("st"),
)


def commands(name: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *args)


COMMANDS = st.one_of(
    commands("create_user", NAMES),
    commands("rename_user", NAMES, NAMES),
    commands("delete_user", NAMES),
    commands("create_org", NAMES, VISIBILITIES, st.none() | NAMES),
    commands("change_org", NAMES, VISIBILITIES),
    commands("delete_org", NAMES),
    commands("set_member", NAMES, NAMES, ROLES),
    commands("remove_member", NAMES, NAMES),
    commands("invite", NAMES, NAMES, ROLES),
    commands("answer", NAMES, NAMES, st.sampled_from(["accept", "reject"])),
    commands("withdraw", NAMES, NAMES),
    commands("create_group", GROUPS, st.sampled_from("gh"), VISIBILITIES),
    commands("change_group", GROUPS, st.none() | st.sampled_from("gh"), st.none() | GROUPS, VISIBILITIES),
    commands("delete_group", GROUPS),
    commands("create_project", GROUPS, st.sampled_from("gp"), VISIBILITIES),
    commands("change_project", PROJECTS, st.none() | st.sampled_from("gp"), st.none() | GROUPS, VISIBILITIES),
    commands("delete_project", PROJECTS),
    VALUES.map(lambda value: ("create_value", *value)),
    st.builds(lambda value, new: ("rename_value", *value, new), VALUES, st.sampled_from("st")),
    VALUES.map(lambda value: ("delete_value", *value)),
)
BEGIN = [
    ("create_user", "a"),
    ("create_user", "b"),
    ("create_org", "a", "public", "a"),
    ("create_org", "b", "private", None),
    ("invite", "a", "b", "member"),
    ("create_group", "org/a", "g", "public"),
    ("create_group", "org/a/g", "h", "public"),
    ("create_group", "user/a", "h", "private"),
    ("create_project", "org/a/g", "p", "public"),
    ("create_value", "secret", "project", "org/a/g/p", "s"),
    ("create_value", "variable", "projectgroup", "org/a", "s"),
]
"""Something to act on."""


class Writer:
    """A gateway: its own fold of the log, which may be behind."""

    def __init__(self, log: list[StoredCommit]) -> None:
        self.log = log
        self.fold = ConfigFold()

    def catch_up(self) -> None:
        for stored in self.log[self.fold.after :]:
            try:
                self.fold.apply(stored)
            except UnfitCommitError as error:
                raise AssertionError(f"{stored.commit.events} does not fit: {error}") from error

    def perform(self, command: tuple[Any, ...]) -> bool:
        """Decide on the own state, append where that is the end of the log, otherwise read on and decide again.

        Return whether the decision was made on the newest state; only then does its refusal count.
        """
        while True:
            newest = self.fold.after == len(self.log)
            try:
                decision = decide(self.fold.state, new_id, *command)
            except RunstreamError:
                if newest:
                    raise
                return False
            if newest:
                for change in decision:
                    new = self.fold.commit_of(change, time=START, actor="test")
                    position = Position(1, 0, len(self.log) + 1)
                    decoded = DecodedCommit(new.id, new.address, new.version, START, "test", "", new.events)
                    self.log.append(StoredCommit(decoded, position, START))
                    self.catch_up()  # each step of a decision leaves a valid state
                return True
            self.catch_up()


def run(steps: Iterable[tuple[int, tuple[Any, ...]]], writers: int) -> None:
    log: list[StoredCommit] = []
    all_writers = [Writer(log) for _ in range(writers)]
    reference = Reference()
    for number, command in steps:
        refused = False
        try:
            decided = all_writers[number].perform(command)
        except RunstreamError:
            decided = refused = True
        if not decided:
            continue
        name, *args = command
        try:
            getattr(reference, name)(*args)
        except RefusedError:
            assert refused, command
        else:
            assert not refused, command
    for writer in all_writers:
        writer.catch_up()
        check(writer.fold.state, reference)


@given(st.lists(COMMANDS, max_size=25))
@example([("change_group", "org/a/g", None, "org/a/g/h", "public")])
@settings(deadline=None, max_examples=150)
def test_any_commands_leave_what_the_reference_has(more: list[tuple[Any, ...]]) -> None:
    run(((0, command) for command in (*BEGIN, *more)), 1)


@given(st.lists(st.tuples(st.integers(0, 1), COMMANDS), max_size=25))
@settings(deadline=None, max_examples=100)
def test_two_writers_leave_what_the_reference_has(more: list[tuple[int, tuple[Any, ...]]]) -> None:
    run((*((0, command) for command in BEGIN), *more), 2)
