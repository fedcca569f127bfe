"""`runstream log`: print the logs of a run, a task or a step."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, BinaryIO

from cyclopts import Parameter
from cyclopts.validators import Number

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Flag
from runstream.cli.connection import program_command
from runstream.cli.finding import RunName, did_you_mean, find_run, find_task, run_name
from runstream.cli.graph import by_start, failed_steps
from runstream.cli.log_files import STDOUT, writing_log
from runstream.cli.log_text import LogText
from runstream.cli.output import shows_colours, warn
from runstream.cli.owned_runs import OwnedLog, print_owned_log
from runstream.cli.terminal_text import printable
from runstream.client import Attempt, Client, ClientError, Run, Step, Task
from runstream.errors import BadRequestError, NotExistError
from runstream.log_times import milliseconds, stamp
from runstream.runconfig.amounts import parse_duration

MAX_TAIL_LINES = 10_000
_UNTIMED = (
    "note: the time of lines that begin with - is unknown: an earlier version wrote the log, or its executor was killed"
)
_NEVER_RAN = ("skipped", "cancelled")


@dataclass(frozen=True, slots=True)
class SelectedLog:
    """The log of a step of a task, or of its setup."""

    task: Task
    step: int | None
    """None for the setup, -N for service N."""
    begun: bool


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LogFilter:
    """Which logs of the run or task to print."""

    step: str | None = None
    """Only this step, by name or by number (from 0). Default: all steps."""
    setup: Flag = False
    """Only the log of the task's setup."""
    service: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    """Only the log of this service of the task's pod, from 1; needs a task."""
    failed: Flag = False
    """Only the steps that failed."""
    attempt: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    """Attempt number, from 1; needs a task. Default: the latest."""

    def require_one(self, task: str | None) -> None:
        """Raise BadRequestError for options that exclude each other."""
        chosen = [
            f"--{name}" for name in ("setup", "step", "service", "failed") if getattr(self, name) not in (None, False)
        ]
        if len(chosen) > 1:
            raise BadRequestError(f"give either {' or '.join(chosen)}", code="invalidRunTaskStepNumber")
        needing = [f"--{name}" for name in ("attempt", "service") if getattr(self, name) is not None]
        if needing and task is None:
            raise BadRequestError(
                f"{needing[0]} needs a task", code="invalidRunTaskStepNumber", hint="as in `runstream log get RUN TASK`"
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LogPart:
    """Which lines of the logs to print, and how."""

    tail: Annotated[int | None, Parameter(validator=Number(gte=1, lte=MAX_TAIL_LINES))] = None
    """Only the last lines of each task, at most 10,000."""
    since: str = ""
    """Only lines written in the last 90s, 10m or 2h, or since a time such as 2026-11-23T09:30."""
    grep: str | None = None
    """Only lines that match this RE2 expression; the service searches. Exit code 1 if there are none."""
    ignore_case: Flag = False
    """With --grep: match case-insensitively."""
    timestamps: Flag = False
    """Begin each line with the time at which it was written, in UTC, or with - if the time is unknown."""

    def require_one(self) -> None:
        """Raise BadRequestError for options that exclude each other."""
        chosen = [f"--{name}" for name in ("tail", "since", "grep") if getattr(self, name) not in (None, "")]
        if len(chosen) > 1:
            raise BadRequestError(f"give either {' or '.join(chosen)}", code="invalidLogPart")
        if self.ignore_case and self.grep is None:
            raise BadRequestError("--ignore-case needs --grep", code="invalidLogPart")

    def first_time(self) -> datetime | None:
        """Return the time that --since names, by this machine's clock. Raises BadRequestError."""
        if not self.since:
            return None
        with contextlib.suppress(ValueError):  # it may be a time
            ago = timedelta(microseconds=parse_duration(self.since) // 1000)
            return datetime.now(UTC) - abs(ago)
        try:
            return datetime.fromisoformat(self.since).astimezone()
        except (ValueError, OverflowError) as error:
            raise BadRequestError(
                f"--since {self.since[:80]!r} is neither a duration nor a time",
                code="invalidLogPart",
                hint="as in --since 10m, or --since 2026-11-23T09:30",
            ) from error


def get_log(
    run: RunName | None = None,
    task: str | None = None,
    /,
    *,
    choice: LogFilter = LogFilter(),
    part: LogPart = LogPart(),
    owned: OwnedLog = OwnedLog(),  # noqa: B008
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    output: Annotated[str, Parameter(name=["--output", "-o"], allow_leading_hyphen=True)] = STDOUT,
) -> int:
    """Print the logs of a run, of a task, or of some of its steps. Lines of several tasks begin with their task's name.

    A terminal gets their text and colours; a file or a pipe the bytes as they were written.

    Parameters
    ----------
    task
        The task's name or id. Default: all tasks, in the order in which they started.
    follow
        Keep printing until the step ends; needs a task.
    output
        The file to write instead, which exists once the logs are complete; not with --follow. `-` is stdout.
    """
    if follow and output != STDOUT:
        raise BadRequestError(
            "give either --follow or --output",
            code="invalidLogPart",
            hint=f"with `> {output}` the shell writes the file",
        )
    if owned:
        if run is not None or choice != LogFilter(step=choice.step, setup=choice.setup) or part != LogPart():
            raise BadRequestError(
                "--runnumber takes --step, --setup and --follow alone",
                code="invalidRun",
                hint="or name the run: RUN",
            )
        return print_owned_log(owned, choice.step, setup=choice.setup, follow=follow, output=output)
    name = owned.name(run)
    choice.require_one(task)
    part.require_one()
    since = part.first_time()
    if follow and part.grep is not None:
        hint = "give the lines of --follow to `grep`"
        raise BadRequestError("give either --follow or --grep", code="invalidLogPart", hint=hint)
    if follow and task is None:
        hint = f"`{program_command()} run follow` follows all tasks of a run"
        raise BadRequestError("--follow needs a task", code="invalidRunTaskStepNumber", hint=hint)

    async def work(client: Client) -> int:
        found, tasks = await _find(client, name, task)
        if task is not None:
            _require_run(found, tasks[0])
        wanted = selected_logs(found, tasks, choice)
        with writing_log(output) as file:
            logs = _Logs(client, found, choice, part, since, file)
            for of_task in wanted:
                logs.prefix = f"{printable(of_task[0].task.name)} | ".encode() if len(wanted) > 1 else b""
                await (logs.follow(of_task) if follow else logs.print(of_task))
            logs.require_some()
        if logs.matched == 0:
            return 1
        if logs.untimed:
            warn(_UNTIMED)
        return 0

    return with_client(work, reads_on=True)


async def _find(client: Client, run: str, task: str | None) -> tuple[Run, list[Task]]:
    """Return the run and its selected tasks. A missing run or task is reported as a missing log."""
    try:
        found = await find_run(client, run)
        return found, by_start(found) if task is None else [find_task(found, task)]
    except (ClientError, NotExistError) as error:
        if isinstance(error, ClientError) and error.kind != "not-exist":
            raise
        raise NotExistError(
            f"log doesn't exist: {error.message}", code=error.code, details=error.details, hint=error.hint
        ) from error


def _require_run(run: Run, task: Task) -> None:
    """Raise NotExistError for a task that ended without running."""
    if task.status in _NEVER_RAN and task.start_time is None:
        raise NotExistError(
            f"log doesn't exist: task {task.name!r} of {run_name(run)} was {task.status}",
            code="logDoesNotExist",
            hint=f"`{program_command()} run get {run_name(run)}` shows how the other tasks ended",
        )


class _Shown:
    """A filter of a log's bytes: for a terminal its text and colours, else the bytes as they are."""

    def __init__(self, file: BinaryIO) -> None:
        self._text = LogText(colours=shows_colours()) if file.isatty() else None

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes to write for a chunk."""
        return chunk if self._text is None else _encoded(self._text.feed(chunk))

    def end(self) -> bytes:
        """Return the remaining bytes at the end of the log."""
        return b"" if self._text is None else _encoded(self._text.end())


def _encoded(text: str) -> bytes:
    return text.encode(sys.stdout.encoding, sys.stdout.errors or "replace")


class _Logs:
    """A printer of logs that remembers whether there was any."""

    def __init__(
        self,
        client: Client,
        run: Run,
        choice: LogFilter,
        part: LogPart,
        since: datetime | None,
        file: BinaryIO,
    ) -> None:
        self._client = client
        self._file = file
        self._run = run
        self._choice = choice
        self._part = part
        self._since = since
        self.matched: int | None = None if part.grep is None else 0
        """Number of lines that --grep found; None without it."""
        self.untimed = False
        """True if a timestamp was unknown."""
        self._found = False
        self._missing: ClientError | None = None
        self.prefix = b""
        """The bytes written before each line."""
        self._within = False
        """True in the middle of a line."""

    async def print(self, logs: Sequence[SelectedLog]) -> None:
        """Print the logs of these steps of a task as they are now."""
        if self._part.tail is not None:
            await self._print_tail(logs, self._part.tail)
            return
        for log in self._readable(logs):
            await self._copy(self._read(log) if self._part.grep is None else self._matches(log, self._part.grep))

    def _place(self, log: SelectedLog) -> tuple[str, str, int | None]:
        return self._run.id, log.task.id, log.step

    def _read(self, log: SelectedLog) -> AsyncIterator[bytes]:
        return self._client.logs.read(
            *self._place(log), attempt=self._choice.attempt, since=self._since, timestamps=self._part.timestamps
        )

    async def _matches(self, log: SelectedLog, expression: str) -> AsyncIterator[bytes]:
        lines = self._client.logs.search(
            *self._place(log), expression, regex=True, ignore_case=self._part.ignore_case, attempt=self._choice.attempt
        )
        async for line in lines:
            self.matched = (self.matched or 0) + 1
            time = stamp(None if line.time is None else milliseconds(line.time)) if self._part.timestamps else b""
            yield time + line.text.encode() + b"\n"

    async def follow(self, logs: Sequence[SelectedLog]) -> None:
        """Print the logs of these steps of a task until they end; with a tail, from the step that started last."""
        begun = [number for number, log in enumerate(logs) if log.begun]
        first = begun[-1] if begun and self._part.tail is not None else 0
        for number, log in enumerate(logs[first:]):
            tail = self._part.tail if not number else None
            chunks = self._client.logs.follow(
                *self._place(log),
                attempt=self._choice.attempt,
                tail=tail,
                since=self._since,
                timestamps=self._part.timestamps,
            )
            if not await self._copy(chunks):
                return  # later steps do not run either

    def require_some(self) -> None:
        """Raise NotExistError when no log was found."""
        if self._found:
            return
        if self._missing is not None:
            raise self._missing
        raise NotExistError(
            f"log doesn't exist: no step of {run_name(self._run)} has started",
            code="logDoesNotExist",
            hint=f"`{program_command()} run why {run_name(self._run)}` says what it waits for",
        )

    async def _print_tail(self, logs: Sequence[SelectedLog], lines: int) -> None:
        """Print the last lines of a task: of its last step, and of earlier steps while there are fewer."""
        texts: list[bytes] = []
        for log in reversed(self._readable(logs)):
            if lines <= 0:
                break
            try:
                text = await self._client.logs.get(
                    *self._place(log), attempt=self._choice.attempt, tail=lines, timestamps=self._part.timestamps
                )
            except ClientError as error:
                self._skip_missing(error)
                continue
            self._found = True
            self._note_untimed(text, begins=True)
            lines -= text.count(b"\n") + (not text.endswith(b"\n"))
            texts.append(text)
        for text in reversed(texts):
            shown = _Shown(self._file)
            self._write(shown.feed(text) + shown.end(), ended=True)

    def _readable(self, logs: Sequence[SelectedLog]) -> list[SelectedLog]:
        """Return the logs that can exist: of several, those of steps that have started."""
        return list(logs) if len(logs) == 1 else [log for log in logs if log.begun]

    async def _copy(self, chunks: AsyncIterator[bytes]) -> bool:
        """Print a log as it arrives; return whether it exists."""
        shown = _Shown(self._file)
        begins = True
        try:
            async for chunk in chunks:
                self._note_untimed(chunk, begins=begins)
                begins = chunk.endswith(b"\n") if chunk else begins
                self._write(shown.feed(chunk))
        except ClientError as error:
            self._skip_missing(error)
            return False
        self._write(shown.end(), ended=True)
        self._found = True
        return True

    def _note_untimed(self, chunk: bytes, *, begins: bool) -> None:
        """Note unknown timestamps; `begins` says whether the chunk begins a line. Chunks do not end in a timestamp."""
        if self._part.timestamps and ((begins and chunk.startswith(b"- ")) or b"\n- " in chunk):
            self.untimed = True

    def _skip_missing(self, error: ClientError) -> None:
        """Skip a log that does not exist; raise any other error."""
        if error.kind != "not-exist":
            raise error
        self._missing = error

    def _write(self, text: bytes, *, ended: bool = False) -> None:
        """Write bytes of a log, with the prefix before each line; with a prefix, a log ends with a line end."""
        if self.prefix:
            *whole, last = text.split(b"\n")
            lines = [line + b"\n" for line in whole] + ([last] if last else [])
            skipped = int(self._within)
            self._within = bool(last) or (self._within and not whole)
            text = b"".join(line if number < skipped else self.prefix + line for number, line in enumerate(lines))
            if ended and self._within:
                text, self._within = text + b"\n", False
        self._file.write(text)
        self._file.flush()


def selected_logs(run: Run, tasks: Sequence[Task], choice: LogFilter) -> list[list[SelectedLog]]:
    """Return the logs for each task that has some. Raises NotExistError where the choice names none."""
    found = [logs for task in tasks if (logs := _selected_of_task(task, choice))]
    if found or not (choice.failed or choice.step is not None):
        return found
    which = f"task {tasks[0].name!r} of {run_name(run)}" if len(tasks) == 1 else run_name(run)
    if choice.failed:
        raise NotExistError(
            f"no step of {which} failed", code="logDoesNotExist", hint="leave --failed out for all logs"
        )
    raise _no_step(which, tasks, choice.step or "")


def _selected_of_task(task: Task, choice: LogFilter) -> list[SelectedLog]:
    state: Task | Attempt = next((one for one in task.attempts if one.attempt == choice.attempt), task)
    if choice.failed:
        wanted = failed_steps(state) if task.status == "failed" or isinstance(state, Attempt) else []
    elif choice.service is not None:
        return [SelectedLog(task, -choice.service, state.setup_step.start_time is not None)]
    elif choice.setup:
        wanted = [None]
    else:
        wanted = [
            number
            for number, step in enumerate(state.steps)
            if choice.step in (None, step.name) or choice.step == str(number)
        ]
    return [SelectedLog(task, number, _step_of(state, number).start_time is not None) for number in wanted]


def _no_step(which: str, tasks: Sequence[Task], wanted: str) -> NotExistError:
    names = list(dict.fromkeys(step.name for task in tasks for step in task.steps))
    there = (
        [f"{number} {_first_line(step.name)}" for number, step in enumerate(tasks[0].steps)] if len(tasks) == 1 else []
    )
    return NotExistError(
        f"log doesn't exist: {which} has no step {wanted[:80]!r}",
        code="runTaskStepDoesNotExist",
        hint=did_you_mean(wanted, names)
        + (f"its steps are: {', '.join(there)}" if there else "`runstream run get` shows the steps"),
    )


def _step_of(state: Task | Attempt, number: int | None) -> Step:
    return state.setup_step if number is None else state.steps[number]


def _first_line(name: str) -> str:
    return name.splitlines()[0][:60] if name else "(no name)"
