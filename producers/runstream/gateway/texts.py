"""The texts of a request: how long each may be, and which are names that have to be shown.

Each text of a body has one of the types below; `require_fitting` checks a decoded body against them, and OpenAPI has
their bounds from there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any

from msgspec import Meta, inspect

from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.limits import MAX_COMMAND_BYTES, MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES, MAX_WORD_BYTES
from runstream.names import SHOWN_PATTERN, name_problem

BOUND = "bytes"
"""What a type's `Meta.extra` has: how many bytes its text may have."""
SHOWN = "shown"
"""… and whether it is shown as a name."""

Name = Annotated[
    str,
    Meta(
        extra={BOUND: MAX_NAME_BYTES, SHOWN: True},
        extra_json_schema={"maxLength": MAX_NAME_BYTES, "pattern": SHOWN_PATTERN},
    ),
]
"""Of a run, a task, a step; may be empty."""
Label = Annotated[
    str,
    Meta(
        extra={BOUND: MAX_WORD_BYTES, SHOWN: True},
        extra_json_schema={"maxLength": MAX_WORD_BYTES, "pattern": SHOWN_PATTERN},
    ),
]
"""Whatever else is shown on one line: names of variables, annotations and labels, images, users, groups, URLs."""
Word = Annotated[str, Meta(extra={BOUND: MAX_WORD_BYTES}, extra_json_schema={"maxLength": MAX_WORD_BYTES})]
"""A path, a pattern, a key: what is on one line as a rule."""
Text = Annotated[str, Meta(extra={BOUND: MAX_TEXT_BYTES}, extra_json_schema={"maxLength": MAX_TEXT_BYTES})]
"""A value or a message."""
Command = Annotated[str, Meta(extra={BOUND: MAX_COMMAND_BYTES}, extra_json_schema={"maxLength": MAX_COMMAND_BYTES})]
"""What a step runs, and the value of an environment variable (which `require_fitting_environment` bounds further)."""
File = Annotated[str, Meta(extra={BOUND: MAX_FILE_BYTES}, extra_json_schema={"maxLength": MAX_FILE_BYTES})]
"""What a file holds."""

Misfits = Callable[[Any, str], Iterator[BadRequestError]]


def require_fitting(body: object, kind: type) -> None:
    """Raise BadRequestError for the first text of the body that is too long, or is a name that cannot be shown."""
    if (misfits := _misfits_of(kind)) is not None and (error := next(misfits(body, "$"), None)) is not None:
        raise error


@cache
def _misfits_of(kind: type) -> Misfits | None:
    return _of(inspect.type_info(kind))


def _of(kind: inspect.Type) -> Misfits | None:
    """Return what finds the misfits of a value of this type; None for a type without texts of bounded length."""
    match kind:
        case inspect.Metadata(type=inspect.StrType(), extra={"bytes": int(limit), **more}):
            return _of_text(limit, shown=SHOWN in more)
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.StructType(cls=cls):
            return _of_struct(kind, cls)
        case inspect.DictType(key_type=key, value_type=value):
            return _of_map(_of(key), _of(value))
        case inspect.ListType(item_type=item):
            return _of_list(_of(item))
        case inspect.UnionType(types=types):
            return _of_union(types)
    return None


def _of_text(limit: int, *, shown: bool) -> Misfits:
    def found(value: str, path: str) -> Iterator[BadRequestError]:
        if len(value) * 4 > limit and (size := len(value.encode())) > limit:
            yield BadRequestError(
                f"the text at {path} is too long: {counted(size, 'byte')}, at most {limit:,}",
                code="textTooLong",
                details={"path": path, "size": size, "limit": limit},
                hint="shorten it; what is larger belongs in a file of the repository",
            )
        elif shown and (problem := name_problem(value)):
            yield BadRequestError(
                f"the name {value[:80]!a} at {path} {problem}",
                code="invalidName",
                details={"path": path},
                hint="use letters that can be seen, on one line",
            )

    return found


def _of_struct(kind: inspect.StructType, cls: type) -> Misfits | None:
    inner = [(one.name, one.encode_name, misfits) for one in kind.fields if (misfits := _of(one.type)) is not None]

    def found(value: object, path: str) -> Iterator[BadRequestError]:
        if isinstance(value, cls):
            for name, shown, misfits in inner:
                yield from misfits(getattr(value, name), f"{path}.{shown}")

    return found if inner else None


def _of_map(key: Misfits | None, value: Misfits | None) -> Misfits | None:
    def found(entries: object, path: str) -> Iterator[BadRequestError]:
        if isinstance(entries, dict):
            for name, one in entries.items():
                if key is not None:
                    yield from key(name, f"a key of {path}")
                if value is not None:
                    yield from value(one, f"{path}[{name[:80]!a}]")

    return found if key is not None or value is not None else None


def _of_list(item: Misfits | None) -> Misfits | None:
    def found(items: object, path: str) -> Iterator[BadRequestError]:
        if item is not None and isinstance(items, list):
            for index, one in enumerate(items):
                yield from item(one, f"{path}[{index}]")

    return found if item is not None else None


def _of_union(types: tuple[inspect.Type, ...]) -> Misfits | None:
    """Of one type and null, or a text of a few words: what has bounded texts there is told apart by its own type."""
    inner = [misfits for one in types if (misfits := _of(one)) is not None]

    def found(value: object, path: str) -> Iterator[BadRequestError]:
        if value is not None and not isinstance(value, int):
            for misfits in inner:
                yield from misfits(value, path)

    return found if inner else None
