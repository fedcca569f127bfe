"""Request models: strict types, decoded in one pass. An error names the place in the body.

The fields are those of the API (docs/reference/api.md); events have types of their own. Each text has a type that
bounds its length and says whether it is shown as a name: `require_fitting` checks these bounds, and OpenAPI shows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, inspect
from starlette.requests import Request

from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.evaluation.files import ConfigName
from runstream.events.run_config import (
    DEFAULT_SHELL,
    DEFAULT_WORKING_DIR,
    Condition,
    GroupPolicy,
    RetryReason,
    RuntimeType,
    StepType,
)
from runstream.limits import MAX_COMMAND_BYTES, MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES, MAX_WORD_BYTES
from runstream.names import SHOWN_PATTERN, name_problem
from runstream.runconfig.amounts import MAX_NANOSECONDS, MAX_PROCESSORS, MAX_QUANTITY
from runstream.runconfig.parse import MAX_PRIORITY, MAX_WAITING
from runstream.runconfig.tasks import MAX_BACKOFF, MAX_RETRIES, REASONS

BOUND = "bytes"
"""Key of `Meta.extra`: maximum number of bytes of a text."""
SHOWN = "shown"
"""Key of `Meta.extra`: whether a text is shown as a name."""


def _text(limit: int, *, shown: bool = False) -> Meta:
    extra = {BOUND: limit, SHOWN: True} if shown else {BOUND: limit}
    return Meta(extra=extra, extra_json_schema={"maxLength": limit} | ({"pattern": SHOWN_PATTERN} if shown else {}))


Name = Annotated[str, _text(MAX_NAME_BYTES, shown=True)]
"""The name of a run, a task or a step; may be empty."""
Label = Annotated[str, _text(MAX_WORD_BYTES, shown=True)]
"""Other text that is shown on one line: names of variables, annotations and labels, images, users, groups, URLs."""
Word = Annotated[str, _text(MAX_WORD_BYTES)]
"""A path, a pattern or a key."""
Text = Annotated[str, _text(MAX_TEXT_BYTES)]
"""A value or a message."""
Command = Annotated[str, _text(MAX_COMMAND_BYTES)]
"""A step's command, or the value of a variable (which `require_fitting_environment` bounds further)."""
File = Annotated[str, _text(MAX_FILE_BYTES)]
"""The content of a file."""

Misfits = Callable[[Any, str], Iterator[BadRequestError]]


def require_fitting(body: object, kind: type) -> None:
    """Raise BadRequestError for the first text that is too long, or is a name that cannot be shown."""
    if (misfits := _misfits_of(kind)) is not None and (error := next(misfits(body, "$"), None)) is not None:
        raise error


@cache
def _misfits_of(kind: type) -> Misfits | None:
    return _of(inspect.type_info(kind))


def _of(kind: inspect.Type) -> Misfits | None:
    """Return the check of values of this type; None for a type without bounded texts."""
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
                hint="shorten it; larger texts belong in a file of the repository",
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
    """Return the check of a union; a struct's check passes over values of other types."""
    inner = [misfits for one in types if (misfits := _of(one)) is not None]

    def found(value: object, path: str) -> Iterator[BadRequestError]:
        if value is not None and not isinstance(value, int):
            for misfits in inner:
                yield from misfits(value, path)

    return found if inner else None


T = TypeVar("T")
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_NANOSECONDS)]
Retries = Annotated[int, msgspec.Meta(ge=0, le=MAX_RETRIES)]
Priority = Annotated[int, msgspec.Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""NUL as JSON escapes it: behind an even number of backslashes."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of all request models: unknown fields are refused."""


class DependBody(Body, frozen=True):
    """A task (by its id) that a task waits for, and the outcomes that let it run."""

    task_id: Label
    conditions: list[Condition] = []


class TmpfsBody(Body, frozen=True):
    """A mount in memory."""

    size: Annotated[int, Meta(ge=0, le=MAX_QUANTITY)] = 0
    """Bytes; 0 for no limit."""


class VolumeBody(Body, frozen=True):
    """A mount in a container."""

    path: Word
    tmpfs: TmpfsBody


class ResourcesBody(Body, frozen=True):
    """The limits of a container: thousandths of a processor, and bytes; 0 for none."""

    cpu: Annotated[int, Meta(ge=0, le=MAX_PROCESSORS)] = 0
    memory: Annotated[int, Meta(ge=0, le=MAX_QUANTITY)] = 0


class ContainerBody(Body, frozen=True):
    """One container of a pod."""

    image: Label = ""
    environment: dict[Label, Command] = {}
    user: Label = ""
    privileged: bool = False
    entrypoint: Word = ""
    volumes: list[VolumeBody] = []
    resources: ResourcesBody = ResourcesBody()


class RuntimeBody(Body, frozen=True):
    """Where a task runs."""

    type: RuntimeType = "pod"
    arch: Label = ""
    containers: list[ContainerBody] = []
    labels: dict[Label, Label] = {}


class SaveContentBody(Body, frozen=True):
    """The files that a save step takes."""

    source_dir: Word = ""
    dest_dir: Word = ""
    paths: list[Word] = []


class StepBody(Body, frozen=True):
    """One step; which fields count depends on its type."""

    type: StepType
    name: Name = ""
    command: Command = ""
    environment: dict[Label, Command] = {}
    working_dir: Word = ""
    shell: Word = ""
    tty: bool | None = None
    depth: int | None = None
    recurse_submodules: bool = False
    key: Word = ""
    keys: list[Word] = []
    contents: list[SaveContentBody] = []
    dest_dir: Word = ""
    step_timeout_interval: Nanoseconds = 0
    no_output_timeout: Nanoseconds = 0
    """For run steps."""


class RetryBody(Body, frozen=True):
    """When a task is tried again."""

    max: Retries
    """How many attempts may follow the first."""
    backoff: Annotated[int, msgspec.Meta(ge=0, le=MAX_BACKOFF)] = 0
    """Nanoseconds before the second attempt; doubled for each one after it."""
    on: Annotated[list[RetryReason], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=lambda: list(REASONS))


class RegistryAuthBody(Body, frozen=True):
    """How to log in at a container registry."""

    type: Label = "basic"
    username: Text = ""
    password: Text = ""
    auth: Text = ""


class TaskBody(Body, frozen=True):
    """One task of the graph (rule create-3). The gateway computes `level` and ignores the one that is sent."""

    name: Name
    runtime: RuntimeBody
    id: Label = ""
    level: int = 0
    depends: dict[Label, DependBody] = {}
    environment: dict[Label, Command] = {}
    working_dir: Word = DEFAULT_WORKING_DIR
    shell: Word = DEFAULT_SHELL
    user: Label = ""
    steps: list[StepBody] = []
    ignore_failure: bool = False
    skip: bool = False
    needs_approval: bool = False
    docker_registries_auth: dict[Label, RegistryAuthBody] = {}
    task_timeout_interval: int = 0
    retry: Retries | RetryBody = 0


class ConcurrencyBody(Body, frozen=True):
    """What a new run does about earlier runs of its name in its group."""

    policy: GroupPolicy = "queue"
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAITING)] = 0


class ConfigFileBody(Body, frozen=True):
    """A configuration file: its name says its format."""

    name: ConfigName
    content: File
    imports: dict[Word, File] = {}
    """Files that a jsonnet program may import, by their paths below its folder."""
    path: Label = ""
    """Its path, for messages; below `.agola`, words of other CI systems are only worth a warning."""


class InputFileBody(Body, frozen=True):
    """A file of variables or secrets (YAML or JSON); its name is for messages."""

    name: Label
    content: File


class FreshBody(Body, frozen=True):
    """The file of the earlier run and its inputs, from which a restart resolves variables and secrets again."""

    config: ConfigFileBody
    variables: dict[Label, Text] = {}
    variable_files: list[InputFileBody] = []
    secret_files: list[InputFileBody] = []


class CreateRunBody(Body, frozen=True):
    """POST /runs: one run of resolved tasks; or with `run_id` a restart of that run, in its group.

    A restart runs all tasks again (`from_start`), chosen ones (`tasks`; with `descendants` also those that depend on
    them), or those that did not succeed and those that depend on them.
    """

    group: Label = ""
    name: Name = ""
    run_config_tasks: dict[Label, TaskBody] | None = None
    setup_errors: list[Text] = []
    static_environment: dict[Label, Command] = {}
    environment: dict[Label, Command] | None = None
    """For a restart: replaces the environment of the earlier run."""
    cache_group: Label = ""
    annotations: dict[Label, Text] = {}
    run_timeout_interval: Nanoseconds = 0
    run_id: Label = ""
    from_start: bool = False
    tasks: list[Label] = []
    """Names or ids."""
    descendants: bool = False
    fresh: FreshBody | None = None
    """Resolves variables and secrets again."""
    reset_tasks: list[Label] | None = None
    """Ignored, as it always was."""
    concurrency: GroupPolicy | ConcurrencyBody = "queue"
    priority: Priority = 0
    fail_fast: bool = False


class CreateRunsBody(Body, frozen=True):
    """POST /createruns: all runs of a configuration file whose `when` matches."""

    config: ConfigFileBody
    group: Label = ""
    branch: Word = ""
    tag: Word = ""
    ref: Word = ""
    commit_sha: Label = ""
    repository_url: Word = ""
    message: Text = ""
    environment: dict[Label, Command] = {}
    annotations: dict[Label, Text] = {}
    variables: dict[Label, Text] = {}
    variable_files: list[InputFileBody] = []
    secret_files: list[InputFileBody] = []
    priority: Priority | None = None
    cache_group: Label = ""
    """The project or user whose caches the runs use, such as /project/<id>; its own without."""
    on_setup_error: Literal["refuse", "run"] = "refuse"
    """What an invalid file makes: an error, or a run in phase setuperror that shows its problems."""
    strict: bool = False
    """Whether warnings are errors."""
    warnings: list[Text] = []
    """Warnings of the client, named with those of the service."""


class CommitRunBody(msgspec.Struct, frozen=True):
    """POST /projects/{project}/createrun: a commit of the project's repository; exactly one of branch, tag and ref."""

    branch: Word = ""
    tag: Word = ""
    ref: Word = ""
    """Such as refs/heads/main."""
    commit_sha: Label = ""
    """Another commit than the ref's; may be the beginning of an id."""
    cache_group: Label = ""
    """The project or user whose caches the runs use, such as /project/<id>; its own without."""


class DirectRunBody(msgspec.Struct, frozen=True):
    """POST /user/createrun: a commit that was pushed to /repos/; exactly one of branch, tag and ref."""

    repo_uuid: Label = ""
    """The id of the clone, whose caches no other clone shares."""
    repo_path: Label = ""
    """`<user id>/<repository uuid>`."""
    branch: Word = ""
    tag: Word = ""
    ref: Word = ""
    commit_sha: Label = ""
    message: Text = ""
    pull_request_ref_regexes: list[Word] = []
    """RE2 expressions; the first submatch is the id of a pull request."""
    variables: dict[Label, Text] | None = None
    """For `from_variable` alone."""


class RunActionBody(Body, frozen=True):
    """PUT /runs/{id}/actions. `changephase` takes the phase, which is `cancelled` for a user."""

    action_type: Literal["stop", "cancel", "changephase", "pause", "resume"]
    phase: Label = ""
    change_groups_update_tokens: Word = ""
    """The token of the run as it was read: the action is refused when the run has changed since."""


class TaskActionBody(Body, frozen=True):
    """PUT /runs/{id}/tasks/{task}/actions: approve a task, or replace its annotations."""

    action_type: Literal["approve", "setannotations"]
    annotations: dict[Label, Text] = {}
    change_groups_update_tokens: Word = ""
    """The token of the run as it was read: the action is refused when the run has changed since."""


class OwnedRunActionBody(msgspec.Struct, frozen=True):
    """PUT …/runs/{number}/actions of a project or user."""

    action_type: Literal["restart", "cancel", "stop"]
    from_start: bool = False
    """For a restart: all tasks, not only those that did not succeed."""


class OwnedTaskActionBody(msgspec.Struct, frozen=True):
    """PUT …/runs/{number}/tasks/{task}/actions of a project or user."""

    action_type: Literal["approve"]


class ExecutorActionBody(Body, frozen=True):
    """PUT /executors/{id}/actions."""

    action_type: Literal["drain", "undrain"]


class ParkedRetryBody(Body, frozen=True):
    """PUT /parked/actions."""

    action_type: Literal["retry"]
    positions: Annotated[list[Label], Meta(max_length=1000)] = []
    """EPOCH/PARTITION/SEQUENCE of each commit; none for all."""


class ParkedActionBody(Body, frozen=True):
    """PUT /parked/{epoch}/{partition}/{sequence}/actions."""

    action_type: Literal["skip"]
    reason: Word


class FsckBody(Body, frozen=True):
    """POST /fsck; the body is optional."""

    partitions: Annotated[list[int], Meta(max_length=256)] = []
    """Only these; none for all."""
    archive: bool = True
    """Also check the archive of the log."""
    objects: bool | None = None
    """Also check that the objects of runs are stored, and no others; by default with the archive of all partitions."""


class MaintenanceBody(Body, frozen=True):
    """Who changes the mode, and why; the body is optional."""

    by: Label = ""
    reason: Word = ""
    deadline: Label = ""
    """When enabling: how long running tasks may take before they are stopped, such as `10m`; empty: no limit."""


def converted(value: msgspec.Struct, kind: type[T], **changed: object) -> T:
    """Return the value as another type with the same fields, except for those in `changed`."""
    return msgspec.convert(msgspec.structs.asdict(value) | changed, kind, from_attributes=True)


def decoded(content: bytes, kind: type[T]) -> T:
    """Decode a body as a `kind`. Raises BadRequestError that names line and column, or the path."""
    if b"\\u0000" in content and _NUL.search(content):
        raise BadRequestError(
            "the body has a text with the character NUL (\\u0000), which cannot be stored", code="nulCharacter"
        )
    try:
        found = msgspec.json.decode(content, type=kind)
        json.loads(content, object_pairs_hook=_unique)
        require_fitting(found, kind)
        return found
    except msgspec.ValidationError as error:
        raise BadRequestError(
            f"the body does not fit: {error}",
            code="invalidBody",
            hint="/api/v1alpha/openapi.json describes the body of each route",
        ) from error
    except msgspec.DecodeError as error:
        raise _malformed(content, error) from error
    except UnicodeDecodeError as error:
        raise BadRequestError(
            f"the body is not UTF-8: {error.reason}", code="malformedBody", hint="send JSON in UTF-8"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object. Raises BadRequestError for one with a key twice, since one of the values would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRequestError(
            f"the body has the key {twice[:80]!r} twice in one object", code="duplicateKey", hint="give each key once"
        )
    return found


_RAISE_LIMIT = "send less, or raise max_body_bytes of the gateway"


async def read_content(
    request: Request, limit: int, hint: str = _RAISE_LIMIT, on_part: Callable[[int], None] = lambda _: None
) -> bytes:
    """Read the request's body; `on_part` is called with the size of each part, in bytes.

    Raises BadRequestError with this hint for more than `limit` bytes, and what `on_part` raises.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit, int(declared), hint)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit, size, hint)
        on_part(len(part))
        parts.append(part)
    return b"".join(parts)


def _too_large(limit: int, size: int, hint: str) -> BadRequestError:
    return BadRequestError(
        f"the body is larger than the {limit} bytes that this gateway takes",
        code="bodyTooLarge",
        details={"limit": limit, "size": size},
        hint=hint,
    )


def _malformed(content: bytes, error: msgspec.DecodeError) -> BadRequestError:
    """Return the error with line and column in place of msgspec's `(byte N)`."""
    text = str(error)
    where: dict[str, Any] = {}
    place = text.rpartition("(byte ")[2].rstrip(")")
    offset = int(place) if place.isdigit() else len(content)
    before = content[:offset]
    where = {"line": before.count(b"\n") + 1, "column": offset - (before.rfind(b"\n") + 1) + 1, "byte": offset}
    return BadRequestError(
        f"the body is not JSON: {text.partition(' (byte ')[0]} at line {where['line']}, column {where['column']}",
        code="malformedBody",
        details=where,
    )
