"""Mistyped commands: what is wrong, and the command that was meant."""

from __future__ import annotations

import difflib

from cyclopts import CycloptsError, UnknownCommandError, UnusedCliTokensError

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
"""Words of other tools, and where they are wanted one level deeper, by what they mean here."""
_CONFIG_SUFFIXES = (".yml", ".yaml", ".json", ".jsonnet", ".star")


def usage_error(error: CycloptsError) -> tuple[str, str]:
    """Return what is wrong with a command line, and a hint."""
    command = " ".join(["runstream", *(error.command_chain or ())])
    help_hint = f"`{command} --help` shows how it is used"
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
    if near := difflib.get_close_matches(word, names, 1):
        return f"did you mean `{command} {near[0]}`?"
    if word in SYNONYMS and command == "runstream":
        return f"did you mean `runstream {SYNONYMS[word]}`?"
    return f"its commands are: {', '.join(sorted(names))}"
