"""The outer edge of a command: an error becomes one sentence, a hint and an exit code; never a traceback."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import sys
from collections.abc import Callable
from typing import TextIO

from cyclopts import CycloptsError, UnknownCommandError, UnusedCliTokensError

from runstream.cli.connection import program, with_program
from runstream.cli.terminal_text import prepare_streams, printable_lines
from runstream.errors import causes, chain_lines, outermost

SYNONYMS = {
    "rerun": "run restart",
    "retry": "run restart",
    "restart": "run restart",
    "logs": "log get",
    "cancel": "run cancel",
    "abort": "run stop",
    "kill": "run stop",
    "create": "run create",
    "trigger": "run create",
    "start": "serve",
    "up": "serve",
    "down": "stop",
    "list": "run list",
    "ls": "run list",
    "runs": "run list",
    "ps": "run list",
    "show": "run get",
    "watch": "run follow",
    "follow": "run follow",
    "why": "run why",
    "approve": "run approve",
    "pause": "run pause",
    "resume": "run resume",
    "check": "config check",
    "lint": "config check",
    "validate": "config check",
    "executors": "executor list",
    "agents": "executor list",
    "runners": "executor list",
    "backup": "export",
    "restore": "import",
}
"""Commands of other tools, and subcommands typed without their group, by the command they mean here."""
_CONFIG_SUFFIXES = (".yml", ".yaml", ".json", ".jsonnet", ".star")
BROKEN_PIPE = 141
"""The exit code that shells report for a program ended by SIGPIPE: the reader of its output has closed it."""
INTERRUPTED = 130
MISTYPED = 2
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
"""Error numbers of the system, redundant beside the text that follows."""
_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


def usage_error(error: CycloptsError) -> tuple[str, str]:
    """Return what is wrong with a command line, and a hint."""
    command = " ".join(["runstream", *(error.command_chain or ())])
    help_hint = f"`{' '.join([program(), *(error.command_chain or ())])} --help` shows how it is used"
    unused = error.unused_tokens or []
    if isinstance(error, UnknownCommandError) and unused:
        return f"unknown command {unused[0]!r}", _command_hint(error, unused[0], command)
    if isinstance(error, UnusedCliTokensError) and unused:
        near = f"did you mean --config {unused[0]}?" if unused[0].endswith(_CONFIG_SUFFIXES) else help_hint
        return f"unexpected argument {unused[0]!r}", near
    text = str(error)
    return f"{text[:1].lower()}{text[1:]}".rstrip("."), help_hint


def _command_hint(error: CycloptsError, word: str, command: str) -> str:
    names = [name for name in (error.app or ()) if not name.startswith("-")]
    if word in SYNONYMS and command == "runstream":
        return with_program(f"did you mean `runstream {SYNONYMS[word]}`?")
    if near := difflib.get_close_matches(word, names, 1):
        return with_program(f"did you mean `{command} {near[0]}`?")
    return f"its commands are: {', '.join(sorted(names))}"


def run_command(command: Callable[[], object], *, detailed: bool) -> int:
    """Run a command; return its exit code, or 1 after an error that is reported on stderr."""
    prepare_streams()
    try:
        answer = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except CycloptsError as error:
        problem, hint = usage_error(error)
        _write([f"error: {problem}", f"hint: {hint}"])
        return MISTYPED
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich ends the process with 1 when it prints help
            return BROKEN_PIPE
        raise
    except Exception as error:  # noqa: BLE001 - the edge reports every error, once
        failed = _of_output(error)
        if failed is not None:
            _give_up(sys.stdout)
        if isinstance(failed, BrokenPipeError):
            return BROKEN_PIPE
        print_error(error, detailed=detailed)
        return 1
    return answer if isinstance(answer, int) else 0


def print_error(error: BaseException, *, detailed: bool) -> None:
    """Report an error and its hint on stderr; with `detailed` also the chain of causes."""
    # Imported only on an error, because it loads all of telemetry.
    from runstream.telemetry.logs import without_secrets

    known = outermost(error)
    failed = _of_output(error)
    lines = [f"error: {sentence(error)}"]
    if failed is not None:
        lines.append("hint: make room where the output goes, or send it elsewhere")
    elif known is not None and known.hint:
        lines.append(f"hint: {with_program(known.hint)}")
    elif known is None and not detailed:
        lines.append("hint: this is a bug in Runstream; please report it with the output of --detailed-errors")
    if detailed:
        lines.extend([f"  code {known.code}, kind {known.kind}"] if known is not None else [])
        lines.extend(f"  {line}" for line in chain_lines(error))
    _write([without_secrets("\n".join(lines))])


def _write(lines: list[str]) -> None:
    try:
        sys.stderr.write(printable_lines("\n".join(lines)) + "\n")
        sys.stderr.flush()
    except OSError:  # the reader has closed it
        _give_up(sys.stderr)


def sentence(error: BaseException) -> str:
    """Return the message of an error for people: of the outermost RunstreamError, else of the first cause."""
    known = outermost(error)
    if known is not None:
        return _ERRNO.sub("", known.message)
    if (failed := _of_output(error)) is not None:
        return f"cannot write the output: {failed.strerror}"
    shown = next((cause for cause in causes(error) if not isinstance(cause, BaseExceptionGroup)), error)
    return str(shown) or type(shown).__name__


def _of_output(error: BaseException) -> OSError | None:
    """Return the error of a write to stdout: an OSError without file name that was not translated; else None."""
    if outermost(error) is not None:
        return None
    shown = next((cause for cause in causes(error) if not isinstance(cause, BaseExceptionGroup)), error)
    if isinstance(shown, BrokenPipeError) or (
        isinstance(shown, OSError) and shown.errno in _NO_ROOM and shown.filename is None
    ):
        return shown
    return None


def _give_up(stream: TextIO) -> None:
    """Drop the buffered output, so that the interpreter does not try to write it at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
