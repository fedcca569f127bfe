"""The steps of a task, in both spellings: `{type: run, command: …}` and `{run: …}` (rule config-7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from runstream.events.run_config import SaveContent, StepType
from runstream.limits import MAX_NAME_BYTES
from runstream.names import name_problem
from runstream.runconfig.cursor import Cursor, Fields, foreign_word
from runstream.runconfig.fields import CONTENT, STEP, STEP_TYPE, STEPS
from runstream.runconfig.foreign import FOREIGN_STEP, FOREIGN_STEP_FIELDS
from runstream.runconfig.limits import decode_limit
from runstream.runconfig.nodes import Mapping, Scalar, Sequence, describe
from runstream.runconfig.problems import nearest, shown
from runstream.runconfig.values import Value, decode_environment
from runstream.runconfig.when import When, decode_when

STEP_TYPES: tuple[StepType, ...] = get_args(StepType)
_SHOWN_LINE = 40
"""Characters of a command's first line in a hint."""
_SHOWN_FIELDS = 100
"""Characters of a step's fields in a hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneStep:
    """Get the sources of the run's commit into the working directory."""

    name: str = ""
    when: When | None = None
    step_timeout_interval: int = 0
    """Nanoseconds; 0 for no limit."""
    depth: int | None = None
    """How many commits of history; None for all."""
    recurse_submodules: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """Run a command."""

    name: str
    when: When | None = None
    step_timeout_interval: int = 0
    command: str
    environment: dict[str, Value]
    working_dir: str = ""
    """Empty for the task's."""
    shell: str = ""
    """Empty for the task's."""
    tty: bool = True
    no_output_timeout: int | None = None
    """Nanoseconds; None for the task's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveToWorkspaceStep:
    """Hand files over to the tasks that depend on this one."""

    name: str = ""
    when: When | None = None
    step_timeout_interval: int = 0
    contents: tuple[SaveContent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreWorkspaceStep:
    """Get the files that earlier tasks handed over."""

    name: str = ""
    when: When | None = None
    step_timeout_interval: int = 0
    dest_dir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCacheStep:
    """Keep files for later runs."""

    name: str = ""
    when: When | None = None
    step_timeout_interval: int = 0
    key: str
    contents: tuple[SaveContent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreCacheStep:
    """Get files that an earlier run kept, by the first key that is found."""

    name: str = ""
    when: When | None = None
    step_timeout_interval: int = 0
    keys: tuple[str, ...]
    dest_dir: str = ""


StepSpec = CloneStep | RunStep | SaveToWorkspaceStep | RestoreWorkspaceStep | SaveCacheStep | RestoreCacheStep


def decode_steps(fields: Fields) -> tuple[StepSpec, ...]:
    """The field `steps`."""
    found = (_step(place) for place in fields.items("steps"))
    return tuple(step for step in found if step is not None)


def _step(place: Cursor) -> StepSpec | None:
    match place.node:
        case Mapping(entries=entries) if any(key.lower() == "type" for key in entries):
            return _typed(place)
        case Mapping(entries=entries) if len(entries) == 1:
            return _keyed(place, place.node, next(iter(entries)))
        case Mapping(entries=entries) if entries:
            _several(place, place.node)
        case Mapping():
            place.wrong("the step is empty")
        case Scalar(kind="str", text=text) if text in STEP_TYPES:
            place.wrong("a step is a map, not a text", f"write `- {text}:` with a colon")
        case Sequence():
            place.wrong("expected a step, found a list", "name each step by an alias of its own, or write jsonnet")
        case node:
            place.wrong(f"expected a step, found {describe(node)}", f"a step is a map with one of {_names()}")
    return None


def _typed(place: Cursor) -> StepSpec | None:
    node = place.node
    if not isinstance(node, Mapping):
        return None
    at = place.at(node, next(key for key in node.entries if key.lower() == "type"))
    step_type = _known(at, at.strict_text())
    if step_type is None:
        return None
    return _DECODERS[step_type](
        place.fields({"type": STEP_TYPE, **STEP, **STEPS[step_type]}, foreign=FOREIGN_STEP_FIELDS)
    )


def _keyed(place: Cursor, node: Mapping, key: str) -> StepSpec | None:
    at = place.at(node, key)
    if key in FOREIGN_STEP:
        at.wrong(foreign_word(key), FOREIGN_STEP[key])  # in files for Agola too: an unknown step is one that is missing
        return None
    step_type = _known(at, key)
    if step_type is None:
        return None
    if at.is_null:
        return _DECODERS[step_type](Fields(at, {}))
    if isinstance(at.node, Mapping):
        return _DECODERS[step_type](at.fields({**STEP, **STEPS[step_type]}, foreign=FOREIGN_STEP_FIELDS))
    if step_type == "run" and isinstance(at.node, Scalar):
        return _run(Fields(at, {"command": at}))
    at.wrong(f"expected a map of the step's fields, found {describe(at.node)}")
    return None


def _several(place: Cursor, node: Mapping) -> None:
    """Report a step of several keys: words of other CI systems each, else how its fields are written."""
    named = next((key for key in node.entries if key in STEP_TYPES), "")
    words = [key for key in node.entries if key in FOREIGN_STEP]
    for key in words:
        place.at(node, key).wrong(foreign_word(key), FOREIGN_STEP[key])
    if not words:
        more = ", ".join(f"{key}: …" for key in node.entries if key != named)
        command = "command: …, " if named == "run" else ""
        how = f": `- {named}: {{{command}{more}}}`" if named and len(more) <= _SHOWN_FIELDS else ""
        place.wrong("more than one step name per list entry", f"indent the fields under the step's name{how}")


def _known(place: Cursor, name: str | None) -> StepType | None:
    found = next((known for known in STEP_TYPES if known == name), None)
    if found is None and name is not None:
        place.wrong(f"unknown step type {shown(name)}", nearest(name, STEP_TYPES))
    return found


def _names() -> str:
    return ", ".join(STEP_TYPES)


def _clone(fields: Fields) -> CloneStep:
    place = fields.get("depth")
    depth = None if place is None else place.whole_number()
    if place is not None and depth is not None and depth < 1:
        place.wrong("the depth of a clone step is at least 1", "leave it out for the whole history")
    return CloneStep(
        name=_name(fields),
        when=decode_when(fields),
        step_timeout_interval=_timeout(fields),
        depth=depth,
        recurse_submodules=fields.flag("recurse_submodules"),
    )


def _run(fields: Fields) -> RunStep:
    command, name = _command(fields), _name(fields)
    if not name and "\n" in command:
        first = next((line.strip() for line in command.splitlines() if line.strip()), "build")
        fields.place.wrong(
            "missing step name for a command of several lines: only a line can be its own name",
            f"write `run: {{name: {shown(first[:_SHOWN_LINE])}, command: …}}`",
        )
    return RunStep(
        name=name or cut(command),
        when=decode_when(fields),
        step_timeout_interval=_timeout(fields),
        command=command,
        environment=decode_environment(fields),
        working_dir=fields.strict_text("working_dir"),
        shell=fields.strict_text("shell"),
        tty=fields.flag("tty", default=True),
        no_output_timeout=decode_limit(fields, "no_output_timeout"),
    )


def _name(fields: Fields) -> str:
    name = fields.strict_text("name")
    if name:
        fields.found["name"].require_shown(name, "step name")
    return name


def _command(fields: Fields) -> str:
    place = fields.get("command")
    if place is None:
        fields.place.wrong("a run step needs a command")
        return ""
    command = place.strict_text()
    if command == "":
        place.wrong("the command of a run step is empty")
    return command or ""


def cut(command: str) -> str:
    """The name of an unnamed run step: its command, cut to 100 bytes, with a blank for what a name cannot show."""
    text = command if not name_problem(command) else "".join(" " if name_problem(c) else c for c in command)
    return text.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _save_to_workspace(fields: Fields) -> SaveToWorkspaceStep:
    return SaveToWorkspaceStep(
        name=_name(fields),
        when=decode_when(fields),
        step_timeout_interval=_timeout(fields),
        contents=_contents(fields, ()),
    )


def _restore_workspace(fields: Fields) -> RestoreWorkspaceStep:
    return RestoreWorkspaceStep(
        name=_name(fields),
        when=decode_when(fields),
        step_timeout_interval=_timeout(fields),
        dest_dir=fields.strict_text("dest_dir"),
    )


def _save_cache(fields: Fields) -> SaveCacheStep:
    key = fields.strict_text("key")
    if not key:
        fields.place.wrong("a save_cache step needs a key")
    return SaveCacheStep(
        name=_name(fields),
        when=decode_when(fields),
        step_timeout_interval=_timeout(fields),
        key=key,
        contents=_contents(fields, ("**",)),
    )


def _restore_cache(fields: Fields) -> RestoreCacheStep:
    keys = fields.strict_texts("keys")
    if not keys:
        fields.place.wrong("a restore_cache step needs at least one key", "keys is a list")
    return RestoreCacheStep(
        name=_name(fields),
        when=decode_when(fields),
        step_timeout_interval=_timeout(fields),
        keys=keys,
        dest_dir=fields.strict_text("dest_dir"),
    )


def _timeout(fields: Fields) -> int:
    return decode_limit(fields, "step_timeout_interval") or 0


def _contents(fields: Fields, default: tuple[str, ...]) -> tuple[SaveContent, ...]:
    return tuple(_content(place, default) for place in fields.items("contents"))


def _content(place: Cursor, default: tuple[str, ...]) -> SaveContent:
    fields = place.fields(CONTENT)
    return SaveContent(
        fields.strict_text("source_dir"), fields.strict_text("dest_dir"), fields.strict_texts("paths") or default
    )


_DECODERS: dict[StepType, Callable[[Fields], StepSpec]] = {
    "clone": _clone,
    "run": _run,
    "save_to_workspace": _save_to_workspace,
    "restore_workspace": _restore_workspace,
    "save_cache": _save_cache,
    "restore_cache": _restore_cache,
}
