"""The steps of a task, in both spellings: `{type: run, command: …}` and `{run: …}` (rule config-7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, get_args

from runstream.events.run_config import SaveContent, StepType
from runstream.limits import MAX_NAME_BYTES
from runstream.names import name_problem
from runstream.runconfig.cursor import Cursor, Fields, foreign_word
from runstream.runconfig.fields import CONTENT, STEP, STEP_TYPE, STEPS
from runstream.runconfig.foreign import FOREIGN_STEP, FOREIGN_STEP_FIELDS
from runstream.runconfig.nodes import MappingNode, ScalarNode, SequenceNode, describe
from runstream.runconfig.problems import quoted, suggestion
from runstream.runconfig.values import Value, decode_environment
from runstream.runconfig.when import When, decode_when

STEP_TYPES: tuple[StepType, ...] = get_args(StepType)
_HINT_LINE = 40
"""Characters of a command's first line in a hint."""
_HINT_FIELDS = 100
"""Characters of a step's fields in a hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CommonFields:
    """The fields of every step."""

    name: str = ""
    when: When | None = None
    step_timeout_interval: int = 0
    """Nanoseconds; 0 for no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneStep(_CommonFields):
    """A step that checks out the run's commit in the working directory."""

    depth: int | None = None
    """Commits of history; None for all."""
    recurse_submodules: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep(_CommonFields):
    """A step that runs a command."""

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
class SaveToWorkspaceStep(_CommonFields):
    """A step that hands files over to the tasks that depend on its task."""

    contents: tuple[SaveContent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreWorkspaceStep(_CommonFields):
    """A step that gets the files of the tasks that its task depends on."""

    dest_dir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCacheStep(_CommonFields):
    """A step that keeps files for later runs."""

    key: str
    contents: tuple[SaveContent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreCacheStep(_CommonFields):
    """A step that gets files of an earlier run, by the first key found."""

    keys: tuple[str, ...]
    dest_dir: str = ""


StepSpec = CloneStep | RunStep | SaveToWorkspaceStep | RestoreWorkspaceStep | SaveCacheStep | RestoreCacheStep
TYPE_OF_STEP: dict[type[StepSpec], StepType] = {
    CloneStep: "clone",
    RunStep: "run",
    SaveToWorkspaceStep: "save_to_workspace",
    RestoreWorkspaceStep: "restore_workspace",
    SaveCacheStep: "save_cache",
    RestoreCacheStep: "restore_cache",
}


def decode_steps(fields: Fields) -> tuple[StepSpec, ...]:
    """Decode the field `steps`."""
    found = (_step(place) for place in fields.items("steps"))
    return tuple(step for step in found if step is not None)


def _step(place: Cursor) -> StepSpec | None:
    match place.node:
        case MappingNode(entries=entries) if type_key := next((key for key in entries if key.lower() == "type"), ""):
            return _typed(place, place.at(place.node, type_key))
        case MappingNode(entries=entries) if len(entries) == 1:
            (key,) = entries
            return _keyed(place.at(place.node, key), key)
        case MappingNode(entries=entries) if entries:
            _report_several_keys(place, place.node)
        case MappingNode():
            place.error("the step is empty")
        case ScalarNode(kind="str", text=text) if text in STEP_TYPES:
            place.error("a step is a map, not a text", f"write `- {text}:` with a colon")
        case SequenceNode():
            place.error("expected a step, found a list", "name each step by an alias of its own, or write jsonnet")
        case node:
            hint = f"a step is a map with one of {', '.join(STEP_TYPES)}"
            place.error(f"expected a step, found {describe(node)}", hint)
    return None


def _typed(place: Cursor, at: Cursor) -> StepSpec | None:
    """Decode a step whose type is a field among the others."""
    step_type = _step_type(at, at.strict_text())
    if step_type is None:
        return None
    return _DECODERS[step_type](
        place.fields({"type": STEP_TYPE, **STEP, **STEPS[step_type]}, foreign=FOREIGN_STEP_FIELDS)
    )


def _keyed(at: Cursor, key: str) -> StepSpec | None:
    """Decode a step whose type is the key of its fields."""
    if key in FOREIGN_STEP:
        at.error(foreign_word(key), FOREIGN_STEP[key])  # in files for Agola too: an unknown step would be left out
        return None
    step_type = _step_type(at, key)
    if step_type is None:
        return None
    if at.is_null:
        return _DECODERS[step_type](Fields(at, {}))
    if isinstance(at.node, MappingNode):
        return _DECODERS[step_type](at.fields({**STEP, **STEPS[step_type]}, foreign=FOREIGN_STEP_FIELDS))
    if step_type == "run" and isinstance(at.node, ScalarNode):
        return _run(Fields(at, {"command": at}))
    at.error(f"expected a map of the step's fields, found {describe(at.node)}")
    return None


def _step_type(place: Cursor, name: str | None) -> StepType | None:
    found = next((known for known in STEP_TYPES if known == name), None)
    if found is None and name is not None:
        place.error(f"unknown step type {quoted(name)}", suggestion(name, STEP_TYPES))
    return found


def _report_several_keys(place: Cursor, node: MappingNode) -> None:
    """Report each word of another CI system; without such words, how to write the step's fields."""
    named = next((key for key in node.entries if key in STEP_TYPES), "")
    words = [key for key in node.entries if key in FOREIGN_STEP]
    for key in words:
        place.at(node, key).error(foreign_word(key), FOREIGN_STEP[key])
    if not words:
        more = ", ".join(f"{key}: …" for key in node.entries if key != named)
        command = "command: …, " if named == "run" else ""
        how = f": `- {named}: {{{command}{more}}}`" if named and len(more) <= _HINT_FIELDS else ""
        place.error("more than one step name per list entry", f"indent the fields under the step's name{how}")


class _Common(TypedDict):
    name: str
    when: When | None
    step_timeout_interval: int


def _common(fields: Fields) -> _Common:
    name = fields.strict_text("name")
    if name:
        fields.found["name"].require_printable(name, "step name")
    return {
        "name": name,
        "when": decode_when(fields),
        "step_timeout_interval": fields.limit("step_timeout_interval") or 0,
    }


def _clone(fields: Fields) -> CloneStep:
    place = fields.get("depth")
    depth = None if place is None else place.whole_number()
    if place is not None and depth is not None and depth < 1:
        place.error("the depth of a clone step is at least 1", "leave it out for the whole history")
    return CloneStep(**_common(fields), depth=depth, recurse_submodules=fields.flag("recurse_submodules"))


def _run(fields: Fields) -> RunStep:
    command, common = _command(fields), _common(fields)
    if not common["name"] and "\n" in command:
        first = next((line.strip() for line in command.splitlines() if line.strip()), "build")
        fields.place.error(
            "missing step name for a command of several lines",
            f"write `run: {{name: {quoted(first[:_HINT_LINE])}, command: …}}`",
        )
    common["name"] = common["name"] or _default_name(command)
    return RunStep(
        **common,
        command=command,
        environment=decode_environment(fields),
        working_dir=fields.strict_text("working_dir"),
        shell=fields.strict_text("shell"),
        tty=fields.flag("tty", default=True),
        no_output_timeout=fields.limit("no_output_timeout"),
    )


def _command(fields: Fields) -> str:
    place = fields.get("command")
    if place is None:
        fields.place.error("a run step needs a command")
        return ""
    command = place.strict_text()
    if command == "":
        place.error("the command of a run step is empty")
    return command or ""


def _default_name(command: str) -> str:
    """Return the command, cut to 100 bytes, with a blank for each character that a name cannot have."""
    text = command if not name_problem(command) else "".join(" " if name_problem(c) else c for c in command)
    return text.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _save_to_workspace(fields: Fields) -> SaveToWorkspaceStep:
    return SaveToWorkspaceStep(**_common(fields), contents=_contents(fields, ()))


def _restore_workspace(fields: Fields) -> RestoreWorkspaceStep:
    return RestoreWorkspaceStep(**_common(fields), dest_dir=fields.strict_text("dest_dir"))


def _save_cache(fields: Fields) -> SaveCacheStep:
    key = fields.strict_text("key")
    if not key:
        fields.place.error("a save_cache step needs a key")
    return SaveCacheStep(**_common(fields), key=key, contents=_contents(fields, ("**",)))


def _restore_cache(fields: Fields) -> RestoreCacheStep:
    keys = fields.strict_texts("keys")
    if not keys:
        fields.place.error("a restore_cache step needs at least one key", "keys is a list")
    return RestoreCacheStep(**_common(fields), keys=keys, dest_dir=fields.strict_text("dest_dir"))


def _contents(fields: Fields, default_paths: tuple[str, ...]) -> tuple[SaveContent, ...]:
    contents = (place.fields(CONTENT) for place in fields.items("contents"))
    return tuple(
        SaveContent(
            content.strict_text("source_dir"),
            content.strict_text("dest_dir"),
            content.strict_texts("paths") or default_paths,
        )
        for content in contents
    )


_DECODERS: dict[StepType, Callable[[Fields], StepSpec]] = {
    "clone": _clone,
    "run": _run,
    "save_to_workspace": _save_to_workspace,
    "restore_workspace": _restore_workspace,
    "save_cache": _save_cache,
    "restore_cache": _restore_cache,
}
