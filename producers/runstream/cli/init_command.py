"""`runstream init`: write a first configuration for the repository around the working directory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runstream.cli.connection import with_program
from runstream.cli.output import say
from runstream.cli.repository import repository_top
from runstream.errors import BadRequestError, ConflictError
from runstream.evaluation.files import candidates

MAX_BYTES = 1 << 20
"""Bytes of a file that are searched."""
_MAKE_TARGET = re.compile(r"^(check|test)\s*:(?!=)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Task:
    """A task that a file of the repository suggests."""

    name: str
    why: str
    commands: tuple[str, ...]


def init() -> None:
    """Write .runstream/config.yml for this repository. A configuration that is there is never overwritten."""
    folder = Path.cwd()
    top = repository_top(folder) or folder
    for candidate in candidates():
        if (top / candidate).exists():
            raise ConflictError(
                f"{top / candidate} already exists",
                code="configExists",
                hint="`runstream config check` shows what it would run",
            )
    file = top / ".runstream" / "config.yml"
    tasks = list(_tasks(top)) or [_Task("hello", "no build file was found: put your own commands here", ("ls -l",))]
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(configuration(tasks, clone=(top / ".git").exists()))
    except OSError as error:
        raise BadRequestError(f"cannot write {file}: {error.strerror or error}", code="configUnwritable") from error
    say(f"wrote {file.relative_to(folder) if file.is_relative_to(folder) else file}: {_listed(tasks)}")
    say("next:")
    next_commands = {
        "runstream config check": "what it would run",
        "runstream serve --detach": "start the service on this machine, if none is running",
        "runstream run create --follow": "run it, for the commit that is checked out",
    }
    shown = {with_program(command): comment for command, comment in next_commands.items()}
    width = max(map(len, shown))
    for command, comment in shown.items():
        say(f"  {command:{width}}   # {comment}")


def configuration(tasks: list[_Task], *, clone: bool) -> str:
    """Return the configuration's text; each task runs on the executor's own machine."""
    lines = [
        "# What Runstream runs for this repository. `runstream config check` says what is wrong with it.",
        "runs:",
        "  - name: ci",
        "    # when: {branch: main}        # for which branches, tags or refs; without it, for all",
        "    tasks:",
    ]
    for task in tasks:
        lines += [
            f"      - name: {task.name}  # {task.why}",
            "        runtime: {type: host}     # on the executor's own machine",
            "        # depends: [other task]   # tasks without it run at once",
            "        # environment: {STAGE: test}",
            "        task_timeout_interval: 30m",
            "        steps:",
            *(["          - clone:               # the commit that the run is for"] if clone else []),
            *(f"          - run: {json.dumps(command)}" for command in task.commands),
        ]
    return "\n".join(lines) + "\n"


def _tasks(top: Path) -> Iterator[_Task]:
    """Yield tasks for the build files at the top of a repository; for a Makefile with a test target, that one alone."""
    if target := _MAKE_TARGET.search(_text(top / "Makefile")):
        yield _Task(target[1], "Makefile", (f"make {target[1]}",))
        return
    if (top / "pyproject.toml").is_file() or (top / "setup.py").is_file():
        install = ("python3 -m venv .venv", ".venv/bin/pip install -q . pytest")
        yield _Task("python", "pyproject.toml or setup.py", (*install, ".venv/bin/python -m pytest"))
    if (top / "package.json").is_file():
        install_node = "npm ci" if (top / "package-lock.json").is_file() else "npm install"
        yield _Task("node", "package.json", (install_node, "npm test --if-present"))
    if (top / "go.mod").is_file():
        yield _Task("go", "go.mod", ("go build ./...", "go test ./..."))
    if (top / "Cargo.toml").is_file():
        yield _Task("rust", "Cargo.toml", ("cargo build", "cargo test"))
    if (top / "pom.xml").is_file():
        yield _Task("maven", "pom.xml", ("mvn -B verify",))
    if (top / "gradlew").is_file():
        yield _Task("gradle", "gradlew", ("./gradlew check",))


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _listed(tasks: list[_Task]) -> str:
    return f"run ci with {'task' if len(tasks) == 1 else 'tasks'} {', '.join(task.name for task in tasks)}"
